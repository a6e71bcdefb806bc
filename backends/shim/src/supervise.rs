//! `marram-shim run DIR INCARNATION`: the parent of one program of the host.
//!
//! ```text
//!  lock ─► alive ─► spawn stage ─► running.json ─► "running" on stdout
//!                       │ failed: "failed" on stdout, nothing left behind
//!                       ▼
//!         keep output and reap until the first process ends
//!                       ▼
//!         kill the rest of the group ─► drain the pipes ─► exit.json ─► end
//! ```
//!
//! Why one thread and a signal descriptor: after a process-id namespace was made no thread
//! can be, and a second stack is memory for nothing.
//!
//! Invariants:
//! - a shim that holds no lock does nothing;
//! - the program never outlives its shim: it is killed by the kernel when the shim goes, and
//!   the engine takes its children away by the group;
//! - `exit.json` is written after the last process of the group is gone and its output is
//!   in the log.

use crate::cgroup::OomNotice;
use crate::files::{self, Ended, Reason, RunSpec, Running};
use crate::launch::{self, LaunchError, Orders};
use crate::log::RotatedLog;
use crate::process::{self, Identity, Pump};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Out-of-memory score of the shim: the kernel takes nearly everything else first. A shim
/// that is killed takes its workload along.
const OOM_SCORE_ADJ: &str = "-900";

/// Longest wait between two looks at a group that is being killed.
const KILL_WAIT_MAX: Duration = Duration::from_millis(50);

/// How often a group is killed before the shim gives up: two seconds at the longest wait.
/// What is left then is stuck in the kernel.
const KILL_ROUNDS_MAX: u32 = 45;

/// The line that the shim prints once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The program runs, or has run.
    Running(Running),
    /// It was not started; nothing is left.
    Failed(LaunchError),
    /// Another shim has this directory.
    Busy,
    /// It was started and has ended before.
    Ended(Ended),
}

/// Supervises what `dir` describes, until it has ended. `announce` is called once.
///
/// `incarnation` is the one that was meant: a shim that is slow to begin must not start a
/// later workload of the same id.
///
/// # Errors
/// What keeps the shim from doing its work; what keeps the program from starting is a
/// [`Report`].
pub fn run(dir: &Path, incarnation: &str, announce: impl FnOnce(&Report)) -> io::Result<()> {
    // Before anything of our own is open.
    launch::close_others(&[])?;
    let dir = dir.canonicalize()?;
    std::env::set_current_dir("/")?;
    match rustix::process::setsid() {
        // It leads a group already, as from a shell: then the session stays.
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    // Not allowed without rights over the system: then the kernel chooses freely.
    drop(std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ));
    let Some(lock) = lock(&dir)? else {
        announce(&Report::Busy);
        return Ok(());
    };
    // For as long as the process exists, to the very last of it.
    std::mem::forget(lock);
    if let Some(ended) = files::load(&dir, files::EXIT)? {
        announce(&Report::Ended(ended));
        return Ok(());
    }
    let spec: RunSpec = files::load(&dir, files::SPEC)?
        .ok_or_else(|| io::Error::other(format!("{} has no {}", dir.display(), files::SPEC)))?;
    if spec.incarnation != incarnation {
        return Err(io::Error::other(format!("{} is of another incarnation", dir.display())));
    }
    // Likewise; nothing is ever written to it.
    let alive = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    std::mem::forget(rustix::fs::open(dir.join(files::ALIVE), alive, Mode::empty())?);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    match Supervisor::start(dir, spec)? {
        Ok((supervisor, running)) => {
            announce(&Report::Running(running));
            supervisor.attend()
        }
        Err(error) => {
            announce(&Report::Failed(error));
            Ok(())
        }
    }
}

/// Takes the lock of a directory; `None` if somebody has it.
fn lock(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(dir.join(files::LOCK), flags, Mode::RUSR | Mode::WUSR)?;
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

struct Supervisor {
    dir: PathBuf,
    spec: RunSpec,
    pid: Pid,
    pump: Pump,
    children: SignalFd,
    oom_kills_before: u64,
    oom_notice: Option<OomNotice>,
}

impl Supervisor {
    fn start(dir: PathBuf, spec: RunSpec) -> io::Result<Result<(Self, Running), LaunchError>> {
        let log = RotatedLog::open(&dir.join(files::LOG), spec.log_bytes_max)?;
        let mut signals = SigSet::empty();
        signals.add(NixSignal::SIGCHLD);
        // Whoever asks the shim to end means the workload: the engine stops that.
        for ignored in [NixSignal::SIGTERM, NixSignal::SIGINT, NixSignal::SIGHUP] {
            signals.add(ignored);
        }
        signals.thread_block()?;
        let children =
            SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let group = spec.group.as_ref();
        let oom_kills_before = group.and_then(crate::cgroup::Group::oom_kills);
        let oom_notice = match (group, oom_kills_before) {
            // A kernel that refuses the notice too leaves only the bare signal to be told.
            (Some(group), None) => OomNotice::register(group).ok().flatten(),
            _ => None,
        };
        if spec.private_namespaces {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID)?;
        }
        let started_unix_ms = process::unix_ms();
        let (pid, outputs) = match spawn(&spec) {
            Ok(spawned) => spawned,
            Err(error) => return Ok(Err(error)),
        };
        let running = Running { process: Identity::of(pid)?, started_unix_ms };
        files::store(&dir, files::RUNNING, &running)?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process id out of range"))?;
        let pump = Pump::new(log, outputs);
        let oom_kills_before = oom_kills_before.unwrap_or(0);
        let supervisor = Self { dir, spec, pid, pump, children, oom_kills_before, oom_notice };
        Ok(Ok((supervisor, running)))
    }

    /// Keeps the output and reaps until the first process has ended, then clears up.
    fn attend(mut self) -> io::Result<()> {
        let status = loop {
            if let Some(status) = self.reap()? {
                break status;
            }
            if self.pump.wait(self.children.as_fd(), None, None)? {
                while self.children.read_signal()?.is_some() {}
            }
        };
        let at_unix_ms = process::unix_ms();
        let reason = self.reason(status);
        self.clear()?;
        drop(self.pump.finish());
        files::store(&self.dir, files::EXIT, &Ended { reason, at_unix_ms })
    }

    /// Takes the dead; tells how the first process ended, if it did.
    fn reap(&self) -> io::Result<Option<WaitStatus>> {
        let mut first = None;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => first = Some(status),
                Ok(Some(_)) => {}
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(first),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn reason(&self, status: WaitStatus) -> Reason {
        if let Some(code) = status.exit_status() {
            return Reason::Code(code);
        }
        let Some(signal) = status.terminating_signal() else { return Reason::Lost };
        let killed = signal == rustix::process::Signal::KILL.as_raw();
        if killed && !self.dir.join(files::KILLED).exists() && self.ran_out_of_memory() {
            return Reason::OutOfMemory;
        }
        Reason::Signal(signal)
    }

    fn ran_out_of_memory(&self) -> bool {
        let counted = self.spec.group.as_ref().and_then(crate::cgroup::Group::oom_kills);
        counted.is_some_and(|count| count > self.oom_kills_before)
            || self.oom_notice.as_ref().is_some_and(OomNotice::happened)
    }

    /// Takes away what the first process left behind.
    fn clear(&mut self) -> io::Result<()> {
        let mut wait = Duration::from_millis(1);
        for _ in 0..KILL_ROUNDS_MAX {
            let left = match &self.spec.group {
                Some(group) => group.kill()?,
                None => kill_descendants()?,
            };
            self.reap()?;
            if left == 0 {
                return Ok(());
            }
            // Its output may be what keeps it from dying.
            std::thread::sleep(wait);
            wait = (wait * 2).min(KILL_WAIT_MAX);
        }
        Ok(())
    }
}

fn kill_descendants() -> io::Result<usize> {
    let all = process::descendants(std::process::id())?;
    for pid in &all {
        process::kill(*pid, rustix::process::Signal::KILL);
    }
    Ok(all.len())
}

/// Starts the program and waits until it has begun.
fn spawn(spec: &RunSpec) -> Result<(u32, [File; 2]), LaunchError> {
    let orders = Orders {
        program: spec.program.clone(),
        group: spec.group.clone(),
        make_namespaces: spec.private_namespaces,
        enter_namespaces_of: None,
        input: None,
        inherited_input: None,
        terminal: None,
        // From inside a new process-id namespace the parent has no id.
        die_with: Some(if spec.private_namespaces { 0 } else { std::process::id() }),
    };
    let mut command = Command::new("/proc/self/exe");
    command.arg("child").stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, socket) = launch::begin(command, &orders)?;
    let result = launch::await_outcome(socket).and_then(|()| {
        let out = child.stdout.take().map(OwnedFd::from);
        let err = child.stderr.take().map(OwnedFd::from);
        let (Some(out), Some(err)) = (out, err) else {
            return Err(LaunchError::new("taking its output", &io::ErrorKind::NotFound.into()));
        };
        let quiet = |error: rustix::io::Errno| LaunchError::new("taking its output", &error.into());
        for pipe in [&out, &err] {
            let flags = rustix::fs::fcntl_getfl(pipe).map_err(quiet)?;
            rustix::fs::fcntl_setfl(pipe, flags | OFlags::NONBLOCK).map_err(quiet)?;
        }
        Ok((child.id(), [out.into(), err.into()]))
    });
    if result.is_err() {
        // Gone or about to go; either way it is not to stay.
        drop(child.kill());
        drop(child.wait());
    }
    result
}

/// Prints the report as one line and gives standard output away, so that the engine's read
/// ends.
pub fn print(report: &Report) {
    // The engine may be gone: then it learns the same from the files.
    drop(try_print(report));
}

fn try_print(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let written = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    written
}
