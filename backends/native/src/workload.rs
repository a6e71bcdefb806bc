//! One workload on the host: its directory, and what it says about the truth.
//!
//! ```text
//!  exit.json ───────────────────────────────► exited
//!  lock held ── running.json ───────────────► running
//!           └── not yet ────────────────────► starting: wait, it is a matter of moments
//!  lock free ── running.json ───────────────► orphaned: the shim was killed; clear up, lost
//!           └── none ───────────────────────► prepared
//! ```
//!
//! Invariant: the lock's holder is asked of the kernel each time, so no recorded process id
//! is ever believed on its own.

use crate::watches::{DirWatch, end_of_file};
use marram_backend_api::{Error, ErrorKind, Exit, ExitReason, Result, WorkloadId};
use marram_shim::cgroup::Group;
use marram_shim::files::{self, Ended, Reason, RunSpec, Running};
use marram_shim::log;
use marram_shim::process::{self, unix_ms};
use rustix::process::{Flock, FlockType, Signal};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long a shim may take from its lock to the start of its program, or to clear up after
/// its end, on a slow and loaded board.
const SHIM_DEADLINE: Duration = Duration::from_secs(30);

/// How often a directory is looked at beside being told of its changes: the death of a shim
/// that has written nothing changes no file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Longest wait between two rounds of killing.
const KILL_WAIT_MAX: Duration = Duration::from_millis(50);

/// How long killed processes may take to go. Longer only if they hang in a driver.
const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// After which time a shim that clears up is killed as well.
const SHIM_PATIENCE: Duration = Duration::from_secs(5);

/// What is true of a workload now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Absent,
    Prepared,
    Running(Running),
    Exited(Ended),
}

/// For people, behind the workload's name.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("is not here"),
            Self::Prepared => f.write_str("was not started yet"),
            Self::Running(_) => f.write_str("runs"),
            Self::Exited(ended) => match ended.reason {
                Reason::Code(code) => write!(f, "has ended with code {code}"),
                Reason::Signal(signal) => write!(f, "was ended by signal {signal}"),
                Reason::OutOfMemory => f.write_str("was ended for its memory limit"),
                Reason::Lost => f.write_str("has ended, and nobody saw how"),
            },
        }
    }
}

/// What is true, with the states that do not last.
enum Glimpse {
    Lasting(Seen),
    Starting,
    Orphaned,
}

/// The directory of one workload.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) id: WorkloadId,
    pub(crate) dir: PathBuf,
}

/// Makes an error of the file system one of the contract.
pub(crate) fn io_error(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory => ErrorKind::Exhausted,
            io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
            _ => ErrorKind::Internal,
        };
        Error::new(kind, doing, error.to_string())
    }
}

/// The contract's exit for the shim's.
pub(crate) fn exit(ended: Ended) -> Exit {
    let reason = match ended.reason {
        Reason::Code(code) => ExitReason::Code(code),
        Reason::Signal(signal) => ExitReason::Signal(signal),
        Reason::OutOfMemory => ExitReason::OutOfMemory,
        Reason::Lost => ExitReason::Lost,
    };
    Exit { reason, at_unix_ms: ended.at_unix_ms }
}

impl Workload {
    /// The orders for the shim, if it is prepared.
    pub(crate) fn spec(&self) -> io::Result<Option<RunSpec>> {
        files::load(&self.dir, files::SPEC)
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.dir.join(files::LOG)
    }

    /// The group that its processes are in; none where the host has none, or before prepare.
    pub(crate) fn group(&self) -> Option<Group> {
        self.spec().ok().flatten().and_then(|spec| spec.group)
    }

    /// The process that holds the lock, told by the kernel.
    pub(crate) fn supervisor(&self) -> io::Result<Option<u32>> {
        let file = match fs::File::options().read(true).write(true).open(self.dir.join(files::LOCK))
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let held = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))?;
        Ok(held.map(|lock| {
            // A holder of another process-id namespace has no id here; it holds all the same.
            lock.pid.and_then(|pid| u32::try_from(pid.as_raw_pid()).ok()).unwrap_or(0)
        }))
    }

    fn glimpse(&self) -> io::Result<Glimpse> {
        if !self.dir.is_dir() {
            return Ok(Glimpse::Lasting(Seen::Absent));
        }
        if let Some(ended) = files::load(&self.dir, files::EXIT)? {
            return Ok(Glimpse::Lasting(Seen::Exited(ended)));
        }
        let supervised = self.supervisor()?.is_some();
        // It may have ended between the two looks.
        if let Some(ended) = files::load(&self.dir, files::EXIT)? {
            return Ok(Glimpse::Lasting(Seen::Exited(ended)));
        }
        let running = files::load::<Running>(&self.dir, files::RUNNING)?;
        Ok(match (supervised, running) {
            (true, Some(running)) => Glimpse::Lasting(Seen::Running(running)),
            (true, None) => Glimpse::Starting,
            (false, Some(_)) => Glimpse::Orphaned,
            (false, None) => Glimpse::Lasting(Seen::Prepared),
        })
    }

    /// What is true, once it lasts.
    pub(crate) async fn seen(&self) -> Result<Seen> {
        let failed = io_error("looking at the workload");
        let deadline = Instant::now() + SHIM_DEADLINE;
        loop {
            let glimpse = self.glimpse();
            match glimpse.map_err(&failed)? {
                Glimpse::Lasting(seen) => return Ok(seen),
                Glimpse::Orphaned => return self.lose().await.map(Seen::Exited),
                Glimpse::Starting => {}
            }
            if Instant::now() >= deadline {
                let why = format!("its shim has been starting for {SHIM_DEADLINE:?}");
                return Err(Error::new(ErrorKind::Transient, "looking at the workload", why));
            }
            self.changed(&self.dir).await.map_err(&failed)?;
        }
    }

    /// Waits until one of the directory's files changes, or a second.
    async fn changed(&self, dir: &Path) -> io::Result<()> {
        let watch = match DirWatch::new(dir) {
            Ok(watch) => watch,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        // What happened before the watch was made shows in a second look.
        if !matches!(self.glimpse()?, Glimpse::Starting) {
            return Ok(());
        }
        tokio::time::timeout(LOOK_EVERY, watch.changed()).await.unwrap_or(Ok(()))
    }

    /// The shim is gone and has not said how the program ended: takes away what is left.
    pub(crate) async fn lose(&self) -> Result<Ended> {
        self.kill_all().await?;
        let failed = io_error("writing down the loss");
        // The shim may have been quicker than it seemed.
        if let Some(ended) = files::load(&self.dir, files::EXIT).map_err(&failed)? {
            return Ok(ended);
        }
        let ended = Ended { reason: Reason::Lost, at_unix_ms: unix_ms() };
        files::store(&self.dir, files::EXIT, &ended).map_err(&failed)?;
        log::mark_ended(&self.log_dir()).map_err(&failed)?;
        tracing::warn!(workload = %self.id, "its shim was killed; what it supervised is lost");
        Ok(ended)
    }

    /// Kills every process of the workload and waits until they are gone, its shim too.
    pub(crate) async fn kill_all(&self) -> Result<()> {
        let failed = io_error("killing the workload");
        let group = self.group();
        let began = Instant::now();
        let mut wait = Duration::from_millis(1);
        loop {
            let supervisor = self.supervisor().map_err(&failed)?;
            let left = match (&group, supervisor) {
                (Some(group), _) => group.kill().map_err(&failed)?,
                (None, Some(shim)) if shim != 0 => kill_below(shim).map_err(&failed)?,
                (None, _) => 0,
            };
            let late = match supervisor {
                None => self.late_shims().map_err(&failed)?,
                Some(_) => Vec::new(),
            };
            for shim in &late {
                process::kill(*shim, Signal::KILL);
            }
            if left == 0 && supervisor.is_none() && late.is_empty() {
                return Ok(());
            }
            if let Some(shim) = supervisor.filter(|shim| *shim != 0)
                && left == 0
                && began.elapsed() > SHIM_PATIENCE
            {
                tracing::warn!(workload = %self.id, shim, "a shim does not end, it is killed");
                process::kill(shim, Signal::KILL);
            }
            if began.elapsed() > KILL_DEADLINE {
                let why = format!("{left} processes have not gone after {KILL_DEADLINE:?}");
                return Err(Error::new(ErrorKind::Transient, "killing the workload", why));
            }
            self.shim_gone_or(wait).await;
            wait = (wait * 2).min(KILL_WAIT_MAX);
        }
    }

    /// Shims that were started by an engine that was cut off right after, and have not come
    /// to take the lock yet. Only a workload that never ran can have them.
    fn late_shims(&self) -> io::Result<Vec<u32>> {
        if self.dir.join(files::RUNNING).exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // Gone meanwhile: not late any more.
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split(|byte| *byte == 0).skip(1);
            if words.next() == Some(b"run")
                && words.next() == Some(self.dir.as_os_str().as_encoded_bytes())
            {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// Waits this long, or until the shim has ended.
    async fn shim_gone_or(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let alive = self.dir.join(files::ALIVE);
        let gone = end_of_file(&alive);
        // A FIFO that is at its end, or cannot be read, tells nothing new the next time.
        if let Ok(Ok(())) = tokio::time::timeout_at(until, gone).await
            && self.supervisor().is_ok_and(|holder| holder.is_none())
        {
            return;
        }
        tokio::time::sleep_until(until).await;
    }

    /// Removes the group, waiting for the kernel to let go of what was killed.
    pub(crate) async fn remove_group(&self, group: &Group) -> Result<()> {
        let failed = io_error("removing the cgroup");
        let deadline = Instant::now() + KILL_DEADLINE;
        loop {
            match group.remove() {
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    group.kill().map_err(&failed)?;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                other => return other.map_err(&failed),
            }
        }
    }
}

fn kill_below(shim: u32) -> io::Result<usize> {
    let all = process::descendants(shim)?;
    for pid in &all {
        process::kill(*pid, Signal::KILL);
    }
    Ok(all.len())
}
