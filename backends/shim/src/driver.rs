//! The mode for containers: containerd's binary logging driver.
//!
//! Why: a container's output must be read while the engine is away, and its exit code must
//! outlive containerd's memory of it (see [`crate::witness`]). containerd starts such a program
//! beside each task if the task's output is a URI of the form
//!
//! ```text
//! binary:///usr/lib/marram/marram-shim?log=/var/lib/marram/ID/log&bytes_max=1048576
//!     &exit=/var/lib/marram/ID&memory_counter=/sys/fs/cgroup/marram/ID/memory.events
//! ```
//!
//! containerd passes the query's keys and values as arguments, in any order; the read ends
//! of the outputs as descriptors 3 and 4; as descriptor 5 the write end of a pipe that has
//! to be closed when the driver is ready. When both outputs have ended, or at SIGTERM, the
//! driver marks the log as ended; it goes once it knows how the container ended, or that it
//! will not learn it.

use crate::log::RotatedLog;
use crate::process::Pump;
use crate::witness::Witness;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Descriptors as containerd numbers them.
const STDOUT_FD: i32 = 3;
const STDERR_FD: i32 = 4;
const READY_FD: i32 = 5;

/// How long word of the container's end may still take when the shim removes the task: the
/// answer was sent before, if the program ever ran. If it did not, the shim answers nobody, and
/// waits for this process to end.
const LAST_WORD: Duration = Duration::from_millis(200);

/// What the URI asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Directory of the log; key `log`.
    pub log: PathBuf,
    /// Bound of the log; key `bytes_max`.
    pub bytes_max: u64,
    /// Directory of the file that says how the container ended; key `exit`. `None` keeps the
    /// output only.
    pub exit: Option<PathBuf>,
    /// The kernel's file that counts kills for memory in the container's cgroup; key
    /// `memory_counter`.
    pub memory_counter: Option<PathBuf>,
}

/// Why arguments are no request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// A key without a value, or an unknown key.
    #[error(
        "expected `log DIR bytes_max N [exit DIR] [memory_counter FILE]` in any order, got {0:?}"
    )]
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
                    && text
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"/._-:@,".contains(&b)) =>
            {
                Ok(text.to_owned())
            }
            _ => {
                Err(RequestError::Value(key, "an absolute path of letters, digits, / . _ - : @ ,"))
            }
        };
        let (shim, log) = (plain(shim, "the shim's path")?, plain(&self.log, "log")?);
        let mut uri = format!("binary://{shim}?log={log}&bytes_max={}", self.bytes_max);
        for (key, path) in [("exit", &self.exit), ("memory_counter", &self.memory_counter)] {
            if let Some(path) = path {
                uri.push_str(&format!("&{key}={}", plain(path, key)?));
            }
        }
        Ok(uri)
    }

    /// Reads the arguments that containerd passes.
    pub fn from_arguments(arguments: &[String]) -> Result<Self, RequestError> {
        let (mut log, mut bytes_max, mut exit, mut memory_counter) = (None, None, None, None);
        for pair in arguments.chunks(2) {
            match pair {
                [key, value] if key == "log" => log = Some(PathBuf::from(value)),
                [key, value] if key == "bytes_max" => bytes_max = value.parse().ok(),
                [key, value] if key == "exit" => exit = Some(PathBuf::from(value)),
                [key, value] if key == "memory_counter" => {
                    memory_counter = Some(PathBuf::from(value));
                }
                other => return Err(RequestError::Argument(other.join(" "))),
            }
        }
        let log = log.filter(|path| path.is_absolute());
        for (key, path) in [("exit", &exit), ("memory_counter", &memory_counter)] {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                return Err(RequestError::Value(key, "an absolute path"));
            }
        }
        Ok(Self {
            exit,
            memory_counter,
            log: log.ok_or(RequestError::Value("log", "an absolute path"))?,
            bytes_max: bytes_max.ok_or(RequestError::Value("bytes_max", "a number of bytes"))?,
        })
    }
}

/// Keeps the output until both pipes end, or until it is asked to end (SIGTERM): by containerd
/// once the task is gone, whoever still holds the pipes, or by the engine. Then waits for word
/// of the container's end, if that has not come yet.
pub fn drive(request: &Request) -> io::Result<()> {
    let log = RotatedLog::open(&request.log, request.bytes_max)?;
    let mut witness = match &request.exit {
        Some(dir) => Witness::of_parent(dir, request.memory_counter.clone())?,
        None => None,
    };
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGTERM);
    asked.thread_block()?;
    let asked = SignalFd::with_flags(&asked, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut pump = Pump::new(log, [inherited(STDOUT_FD)?, inherited(STDERR_FD)?]);
    nix::unistd::close(READY_FD)?;
    let mut told = false;
    while pump.is_open() && !told {
        let (wakes, pause) = witness.as_ref().map_or((None, None), |it| (it.wakes(), it.pause()));
        told = pump.wait(asked.as_fd(), wakes, pause)?;
        if let Some(witness) = &mut witness {
            witness.attend();
        }
    }
    let kept = pump.finish();
    if let Some(witness) = &mut witness {
        see_out(witness, &asked, told)?;
    }
    kept
}

/// Lets the witness learn how the container ended: for as long as that takes, but once asked to
/// end (`told`, or a signal that comes) for [`LAST_WORD`] at most.
fn see_out(witness: &mut Witness, asked: &SignalFd, mut told: bool) -> io::Result<()> {
    let mut since = None;
    loop {
        if told && since.is_none() {
            witness.hurry();
            since = Some(Instant::now());
        }
        witness.attend();
        let left = since.map(|since: Instant| LAST_WORD.saturating_sub(since.elapsed()));
        if witness.is_done() || left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        let limit = [left, witness.pause()].into_iter().flatten().min();
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let wakes = witness.wakes();
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(2);
        fds.extend(wakes.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        // Once is enough: the signal stays to be read.
        if since.is_none() {
            fds.push(PollFd::new(asked, PollFlags::IN));
        }
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        told = since.is_none() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
    }
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
        let expected =
            Request { log: "/var/log/x".into(), bytes_max: 1024, exit: None, memory_counter: None };
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
            &["log", "/x", "bytes_max", "1", "exit", "x"],
            &["log", "/x", "bytes_max", "1", "memory_counter", "x"],
        ];
        for bad in bad {
            assert!(Request::from_arguments(&owned(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_uri_needs_no_escapes() {
        let request = Request {
            log: "/run/m/a.0/log".into(),
            bytes_max: 5,
            exit: Some("/run/m/a.0".into()),
            memory_counter: Some("/sys/fs/cgroup/m/memory.events".into()),
        };
        let uri = request.uri(Path::new("/usr/bin/marram-shim")).unwrap();
        let (program, query) = uri.split_once('?').unwrap();
        assert_eq!(program, "binary:///usr/bin/marram-shim");
        let arguments: Vec<&str> = query.split(['=', '&']).collect();
        assert_eq!(Request::from_arguments(&owned(&arguments)).unwrap(), request);
        assert!(request.uri(Path::new("/with space")).is_err());
        assert!(request.uri(Path::new("relative")).is_err());
    }
}
