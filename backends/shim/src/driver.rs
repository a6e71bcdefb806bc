//! The mode for containers: containerd's binary logging driver.
//!
//! Why: a container's output must be read while the engine is away, and containerd starts
//! such a program beside each task if the task's output is a URI of the form
//!
//! ```text
//! binary:///usr/lib/marram/marram-shim?log=/var/lib/marram/ID/log&bytes_max=1048576
//! ```
//!
//! containerd passes the query's keys and values as arguments, in any order; the read ends
//! of the outputs as descriptors 3 and 4; as descriptor 5 the write end of a pipe that has
//! to be closed when the driver is ready. The end of both outputs, or SIGTERM, ends the
//! driver, which then marks the log as ended.

use crate::log::RotatedLog;
use crate::process::Pump;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Descriptors as containerd numbers them.
const STDOUT_FD: i32 = 3;
const STDERR_FD: i32 = 4;
const READY_FD: i32 = 5;

/// What the URI asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Directory of the log; key `log`.
    pub log: PathBuf,
    /// Bound of the log; key `bytes_max`.
    pub bytes_max: u64,
}

/// Why arguments are no request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// A key without a value, or an unknown key.
    #[error("expected `log DIR bytes_max N` in any order, got {0:?}")]
    Argument(String),
    /// A key is missing or its value is of the wrong kind.
    #[error("{0} is missing or is not {1}")]
    Value(&'static str, &'static str),
}

impl Request {
    /// The URI that makes containerd start `shim` as a driver for this request.
    ///
    /// # Errors
    /// If a path holds something that a URI would have to escape.
    pub fn uri(&self, shim: &Path) -> Result<String, RequestError> {
        let plain = |path: &Path, key| match path.to_str() {
            Some(text)
                if path.is_absolute()
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b)) =>
            {
                Ok(text.to_owned())
            }
            _ => Err(RequestError::Value(key, "an absolute path of letters, digits, / . _ -")),
        };
        let (shim, log) = (plain(shim, "the shim's path")?, plain(&self.log, "log")?);
        Ok(format!("binary://{shim}?log={log}&bytes_max={}", self.bytes_max))
    }

    /// Reads the arguments that containerd passes.
    pub fn from_arguments(arguments: &[String]) -> Result<Self, RequestError> {
        let (mut log, mut bytes_max) = (None, None);
        for pair in arguments.chunks(2) {
            match pair {
                [key, value] if key == "log" => log = Some(PathBuf::from(value)),
                [key, value] if key == "bytes_max" => bytes_max = value.parse().ok(),
                other => return Err(RequestError::Argument(other.join(" "))),
            }
        }
        let log = log.filter(|path| path.is_absolute());
        Ok(Self {
            log: log.ok_or(RequestError::Value("log", "an absolute path"))?,
            bytes_max: bytes_max.ok_or(RequestError::Value("bytes_max", "a number of bytes"))?,
        })
    }
}

/// Keeps the output until both pipes end, or until containerd asks to end (SIGTERM), which
/// it does once the task is gone whoever still holds the pipes.
pub fn drive(request: &Request) -> io::Result<()> {
    let log = RotatedLog::open(&request.log, request.bytes_max)?;
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGTERM);
    asked.thread_block()?;
    let asked = SignalFd::with_flags(&asked, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut pump = Pump::new(log, [inherited(STDOUT_FD)?, inherited(STDERR_FD)?]);
    nix::unistd::close(READY_FD)?;
    while pump.is_open() && !pump.wait(asked.as_fd())? {}
    pump.finish()
}

/// A pipe that was passed by number, opened anew: without unsafe code a number cannot be
/// taken over. Never blocks, even if its writers are gone already.
fn inherited(number: i32) -> io::Result<File> {
    let path = format!("/proc/self/fd/{number}");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn arguments_come_in_any_order() {
        let expected = Request { log: "/var/log/x".into(), bytes_max: 1024 };
        for order in
            [["log", "/var/log/x", "bytes_max", "1024"], ["bytes_max", "1024", "log", "/var/log/x"]]
        {
            assert_eq!(Request::from_arguments(&owned(&order)).unwrap(), expected);
        }
        let bad: &[&[&str]] = &[
            &[],
            &["log"],
            &["log", "/x"],
            &["log", "x", "bytes_max", "1"],
            &["log", "/x", "bytes_max", "-1"],
            &["log", "/x", "bytes_max", "1", "other", "2"],
        ];
        for bad in bad {
            assert!(Request::from_arguments(&owned(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_uri_needs_no_escapes() {
        let request = Request { log: "/run/m/a.0/log".into(), bytes_max: 5 };
        let uri = request.uri(Path::new("/usr/bin/marram-shim")).unwrap();
        assert_eq!(uri, "binary:///usr/bin/marram-shim?log=/run/m/a.0/log&bytes_max=5");
        assert!(request.uri(Path::new("/with space")).is_err());
        assert!(request.uri(Path::new("relative")).is_err());
    }
}
