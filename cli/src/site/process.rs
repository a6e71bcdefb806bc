//! Programs in the background, found again by a later command.
//!
//! Why pid and start time and boot: pids are used again, start times count from the boot, and a
//! board that boots the same way each time gives the same pair to something else.
//!
//! Invariant: a signal goes only to the process that the pid file means. It is sent through a
//! descriptor that was opened before the start time was compared, so that the pid cannot change
//! hands in between (before Linux 5.3, which has no such descriptors, that moment is left).

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::config::write_private;
use crate::error::Error;
use crate::text;

use super::layout::read;

/// How long a program may take to end by itself before it is killed: it has files to close.
const GRACE_SECONDS: u64 = 10;

/// How long the kernel may take to end what was killed: a write to a slow disk comes first.
const KILL_SECONDS_MAX: u64 = 5;

/// Pause between two looks: short beside a start, long beside a look.
pub(super) const LOOK_MS: u64 = 20;

/// A log that is longer is put aside before the next start.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Lines of a log that are shown of a program that failed.
const LAST_LINES: usize = 15;

/// Bytes read for them.
const LAST_BYTES_MAX: u64 = 16 * 1024;

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Runs,
    /// It is being ended, and may hold its ports and files for a moment.
    Ends,
    /// Only its entry is left, until somebody asks how it ended.
    Ended,
}

/// A process, told from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pid: i32,
    /// Field 22 of its stat: clock ticks from boot to start.
    started: u64,
    boot: String,
}

impl Identity {
    /// The process that has this pid, also one that has ended and that nobody has reaped yet.
    fn of(pid: i32) -> Result<Option<(Life, Self)>, Error> {
        let path = format!("/proc/{pid}/stat");
        let stat = match std::fs::read(&path) {
            Ok(stat) => stat,
            // ESRCH: it ended while its file was open.
            Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(3) => {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("read", path, error)),
        };
        let (life, started) = parse_stat(&String::from_utf8_lossy(&stat))
            .ok_or_else(|| Error::Failed(format!("{path} has not the form that is known")))?;
        let boot = "/proc/sys/kernel/random/boot_id";
        let boot = std::fs::read_to_string(boot).map_err(|error| Error::io("read", boot, error))?;
        Ok(Some((life, Self { pid, started, boot: boot.trim().to_owned() })))
    }

    /// The running process that a pid file means. One that was killed a moment ago and still
    /// shows is waited for: it does not run any more, and holds its ports until it is gone.
    pub(super) fn running(path: &Path) -> Result<Option<Self>, Error> {
        let Some(text) = read(path)? else { return Ok(None) };
        let Some(meant) = Self::parse(&text) else {
            return Err(Error::Failed(format!("{} is damaged: {text:?}", path.display())));
        };
        match meant.life()? {
            Life::Runs => Ok(Some(meant)),
            Life::Ended => Ok(None),
            Life::Ends if meant.gone_within(KILL_SECONDS_MAX)? => Ok(None),
            Life::Ends => Err(Error::Failed(format!(
                "process {} was killed and is still there after {KILL_SECONDS_MAX} s",
                meant.pid
            ))),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
        let started = words.next()?.parse().ok()?;
        let boot = words.next()?.to_owned();
        words.next().is_none().then_some(Self { pid, started, boot })
    }

    /// Its pid.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    fn life(&self) -> Result<Life, Error> {
        let found = Self::of(self.pid)?.filter(|(_, found)| found == self);
        Ok(found.map_or(Life::Ended, |(life, _)| life))
    }

    /// Whether it is still there.
    pub(super) fn is_running(&self) -> Result<bool, Error> {
        Ok(self.life()? != Life::Ended)
    }

    /// Ends it, gently at first. Says whether that was enough.
    pub(super) fn stop(&self) -> Result<bool, Error> {
        self.signal(Signal::TERM)?;
        if self.gone_within(GRACE_SECONDS)? {
            return Ok(true);
        }
        self.signal(Signal::KILL)?;
        if self.gone_within(KILL_SECONDS_MAX)? {
            return Ok(false);
        }
        Err(Error::Failed(format!("process {} does not end, not even when killed", self.pid)))
    }

    fn gone_within(&self, seconds: u64) -> Result<bool, Error> {
        let end = Instant::now() + Duration::from_secs(seconds);
        while self.is_running()? {
            if Instant::now() >= end {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        }
        Ok(true)
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let handle: Option<OwnedFd> = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            Err(Errno::SRCH) => return Ok(()),
            Err(Errno::NOSYS) => None,
            Err(error) => return Err(self.failed(error)),
        };
        if !self.is_running()? {
            return Ok(());
        }
        let sent = match handle {
            Some(handle) => pidfd_send_signal(handle, signal),
            None => kill_process(pid, signal),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: Errno) -> Error {
        Error::io("signal", format!("process {}", self.pid), error.into())
    }
}

/// How far it has come, and its start time. The name before stands in parentheses and may hold
/// any character.
fn parse_stat(stat: &str) -> Option<(Life, u64)> {
    /// The kernel's flag of a task that is on its way out.
    const EXITING: u64 = 0x4;
    /// Signal 9, in the mask of those that have not arrived.
    const KILL: u64 = 1 << 8;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The first one after the name is number 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let (flags, threads, started, pending) = (number(9)?, number(20)?, number(22)?, number(31)?);
    let life = match *fields.first()? {
        // The first thread of several may be gone before the others.
        "Z" if threads > 1 => Life::Ends,
        "Z" | "X" | "x" => Life::Ended,
        _ if flags & EXITING != 0 || pending & KILL != 0 => Life::Ends,
        _ => Life::Runs,
    };
    Some((life, started))
}

/// Starts a program that outlives us, in a process group of its own, so that an interrupt typed
/// at this terminal does not reach it. Its output goes to the end of the log.
pub(super) fn start(
    command: &mut Command,
    log: &Path,
    pid_file: &Path,
) -> Result<(Child, Identity), Error> {
    put_aside(log)?;
    let failed = |error| Error::io("open", log, error);
    let out = File::options().create(true).append(true).open(log).map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let command = command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    let program = command.get_program().to_owned();
    let mut child = command.spawn().map_err(|error| Error::io("start", program, error))?;
    match identify(&child, pid_file) {
        Ok(identity) => Ok((child, identity)),
        Err(error) => {
            // Without a pid file nobody would find it again. It may have ended already.
            child.kill().and_then(|()| child.wait()).ok();
            Err(error)
        }
    }
}

fn identify(child: &Child, pid_file: &Path) -> Result<Identity, Error> {
    let pid = i32::try_from(child.id()).map_err(|error| Error::Failed(error.to_string()))?;
    // Nobody has reaped it, so its entry is there even if it ended at once.
    let found = Identity::of(pid)?;
    let (_, identity) =
        found.ok_or_else(|| Error::Failed(format!("there is no process {pid} any more")))?;
    let text = format!("{} {} {}\n", identity.pid, identity.started, identity.boot);
    write_private(pid_file, text.as_bytes())?;
    Ok(identity)
}

fn put_aside(log: &Path) -> Result<(), Error> {
    if log.metadata().is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        let aside = log.with_extension("log.old");
        std::fs::rename(log, aside).map_err(|error| Error::io("rename", log, error))?;
    }
    Ok(())
}

/// The last lines of a log, from an offset on, each on a line of its own; empty if there are none.
pub(super) fn last_lines(log: &Path, from: u64) -> String {
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(LAST_BYTES_MAX))))?;
        let mut bytes = Vec::new();
        file.take(LAST_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) => return format!("\n  {} cannot be read: {error}", log.display()),
    };
    let tail = text::lines(&String::from_utf8_lossy(&bytes));
    let lines: Vec<&str> = tail.lines().collect();
    let mut shown = String::new();
    for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
        shown.push_str("\n  | ");
        shown.push_str(line);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(state: &str, flags: u64, threads: u32, pending: u64) -> String {
        format!(
            "42 (a ) b) {state} 1 42 42 0 -1 {flags} 1 0 0 0 0 0 0 0 20 0 {threads} 0 987 2 3 \
             18446744073709551615 1 1 0 0 0 {pending} 0 0 0 0 0 0 17"
        )
    }

    fn sleeper(folder: &Path, script: &str) -> (Child, Identity) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        start(&mut command, &folder.join("log"), &folder.join("pid")).unwrap()
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        assert_eq!(parse_stat(&stat("S", 4_194_560, 1, 0)), Some((Life::Runs, 987)));
        for bad in [
            "",
            "42",
            "42 (a",
            "42 (a) S 1 2",
            "42 (a) S 1 42 42 0 -1 1 1 0 0 0 0 0 0 0 20 0 1 0 x 0 0 0 0 0 0 0 0 0",
        ] {
            assert_eq!(parse_stat(bad), None);
        }
    }

    #[test]
    fn what_was_killed_does_not_run() {
        let life = |state, flags, threads, pending| {
            parse_stat(&stat(state, flags, threads, pending)).unwrap().0
        };
        for state in ["Z", "X", "x"] {
            assert_eq!(life(state, 4_228_108, 1, 0), Life::Ended);
        }
        assert_eq!(life("Z", 4_228_108, 2, 0), Life::Ends, "other threads are left");
        assert_eq!(life("R", 4_194_564, 1, 0), Life::Ends, "on its way out");
        assert_eq!(life("D", 4_194_560, 1, 0x100), Life::Ends, "killed, and not told yet");
        assert_eq!(life("D", 4_194_560, 1, 0x4000), Life::Runs, "it was only asked");
    }

    #[test]
    fn what_was_started_is_found_again_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, identity) = sleeper(folder.path(), "exec sleep 600");
        let found = Identity::running(&folder.path().join("pid")).unwrap();
        assert_eq!(found.as_ref(), Some(&identity));
        assert!(identity.stop().unwrap(), "it ends when asked");
        assert!(
            Identity::running(&folder.path().join("pid")).unwrap().is_none(),
            "a zombie is gone"
        );
        child.wait().unwrap();
        assert!(identity.stop().unwrap(), "twice is fine");
    }

    #[test]
    fn a_pid_that_changed_hands_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, identity) = sleeper(folder.path(), "exec sleep 600");
        let earlier = Identity { started: identity.started - 1, ..identity.clone() };
        let other_boot = Identity { boot: "x".into(), ..identity.clone() };
        for other in [earlier, other_boot] {
            let file = folder.path().join("other");
            std::fs::write(&file, format!("{} {} {}", other.pid, other.started, other.boot))
                .unwrap();
            assert_eq!(Identity::running(&file).unwrap(), None);
            assert!(other.stop().unwrap());
        }
        assert!(identity.is_running().unwrap(), "none of that touched it");
        identity.stop().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn damaged_pid_files_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        for bad in ["", "x", "1", "1 2", "-5 1 b", "0 1 b", "1 2 b more"] {
            std::fs::write(&file, bad).unwrap();
            assert!(Identity::running(&file).unwrap_err().to_string().contains("damaged"), "{bad}");
        }
    }

    #[test]
    fn logs_end_in_their_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let text: String = (0..30).map(|n| format!("line {n}\x1b\n")).collect();
        std::fs::write(&log, &text).unwrap();
        let shown = last_lines(&log, 0);
        assert!(shown.starts_with("\n  | line 15\n") && shown.ends_with("| line 29"), "{shown}");
        assert_eq!(last_lines(&log, text.len() as u64), "");
        assert!(last_lines(&folder.path().join("none"), 0).contains("cannot be read"));
    }
}
