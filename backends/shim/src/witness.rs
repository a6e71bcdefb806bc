//! Sees how a container ends, for whoever asks later: has containerd's shim tell, and writes
//! it down.
//!
//! Why: containerd 1.7 and later, started again, take a shim whose program has ended for a
//! leaked one and remove it, exit code and all. The shim itself answers as long as it lives,
//! with or without containerd and engine; marram-shim stands beside it and asks.
//!
//! ```text
//!  pause ─► "state": which process? ─► "wait": how did it end? ─► exit file, done
//!    ▲              │ refused: the task is not made yet   │
//!    └──────────────┴─────────────────────────────────────┘
//!  done without a file: no shim answers, or none that is understood
//! ```
//!
//! Invariants:
//! - what is written was said by the shim of the very process that it names;
//! - a file that an earlier task left is gone before this one's program runs.

use crate::ttrpc::{self, Answer, Message};
use crate::{cgroup, files, process};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The service of containerd's shims, in the order in which they are tried: that of 2.x, that
/// of 1.x.
const SERVICES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// gRPC's number for a service or method that is not there.
const UNIMPLEMENTED: u64 = 12;

/// First and longest pause before the shim is asked again: making a task takes milliseconds
/// or, where a virtual machine boots, seconds.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Largest file with a shim's address that is read.
const ADDRESS_BYTES_MAX: u64 = 4096;

/// One read from the shim.
const READ_BYTES: usize = 1024;

/// The process that the container's task is, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEnd {
    /// Its process id on this host.
    pub pid: u32,
    /// Of which boot.
    pub boot_id: String,
    /// As containerd tells it: the code, or 128 and the signal's number.
    pub status: u32,
    /// When, by the wall clock.
    pub at_unix_ms: u64,
    /// How often the kernel had killed in its cgroup for the memory limit.
    #[serde(default)]
    pub memory_kills: u64,
}

impl TaskEnd {
    /// Reads what was written down, if it is of the task that is that process in this boot.
    /// Anything else tells nothing: of an earlier boot even the file system's memory may be
    /// older than the workload.
    pub fn of(dir: &Path, pid: u32) -> Option<Self> {
        let end: Self = files::load(dir, files::EXIT).ok()??;
        let boot_id = process::boot_id().ok()?;
        (end.pid == pid && end.boot_id == boot_id).then_some(end)
    }
}

/// Where the shim is, and what is asked of it.
#[derive(Debug)]
struct Shim {
    address: PathBuf,
    namespace: String,
    /// The task's.
    id: String,
}

/// What is going on.
#[derive(Debug)]
enum Step {
    /// To be asked, or asked again, then.
    Pause(Instant),
    /// The question for the process.
    State(Talk),
    /// The question for its end, of this process.
    Wait(Talk, u32),
    Done,
}

/// A connection with one question on it.
#[derive(Debug)]
struct Talk {
    socket: UnixStream,
    received: Vec<u8>,
    stream: u32,
}

/// Asks and writes down; never waits by itself.
#[derive(Debug)]
pub(crate) struct Witness {
    shim: Shim,
    dir: PathBuf,
    memory_counter: Option<PathBuf>,
    service: usize,
    pause: Duration,
    /// No task will come that is not there now.
    last: bool,
    step: Step,
}

impl Witness {
    /// For the container that containerd's shim has started this process beside: in the
    /// folder where it keeps its address, with the container's names in the environment.
    /// `None` if it has not, or if no shim can be asked that way.
    pub(crate) fn of_parent(
        dir: &Path,
        memory_counter: Option<PathBuf>,
    ) -> io::Result<Option<Self>> {
        match fs::remove_file(dir.join(files::EXIT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let name = |key| std::env::var(key).ok();
        let (id, namespace) = (name("CONTAINER_ID"), name("CONTAINER_NAMESPACE"));
        let shim = match (id, namespace, address(Path::new("."))) {
            (Some(id), Some(namespace), Some(address)) => Shim { address, namespace, id },
            _ => return Ok(None),
        };
        Ok(Some(Self::new(shim, dir, memory_counter)))
    }

    fn new(shim: Shim, dir: &Path, memory_counter: Option<PathBuf>) -> Self {
        let step = Step::Pause(Instant::now());
        let dir = dir.to_path_buf();
        Self { shim, dir, memory_counter, service: 0, pause: PAUSE_MIN, last: false, step }
    }

    /// Asks once more at most: the shim is about to remove the task, or has.
    pub(crate) fn hurry(&mut self) {
        self.last = true;
        if let Step::Pause(_) = self.step {
            self.step = Step::Pause(Instant::now());
        }
    }

    /// Whether nothing more will be learnt.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// What becomes readable when there is something to attend to.
    pub(crate) fn wakes(&self) -> Option<BorrowedFd<'_>> {
        match &self.step {
            Step::State(talk) | Step::Wait(talk, _) => Some(talk.socket.as_fd()),
            Step::Pause(_) | Step::Done => None,
        }
    }

    /// How long until there is something to attend to without being woken.
    pub(crate) fn pause(&self) -> Option<Duration> {
        match self.step {
            Step::Pause(until) => Some(until.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// Does what there is to do now.
    pub(crate) fn attend(&mut self) {
        let step = std::mem::replace(&mut self.step, Step::Done);
        self.step = match step {
            Step::Pause(until) if until > Instant::now() => Step::Pause(until),
            // A shim that takes no connection is gone and will not be back.
            Step::Pause(_) => UnixStream::connect(&self.shim.address)
                .and_then(|socket| self.ask(socket, "State", 1))
                .map_or(Step::Done, Step::State),
            Step::State(mut talk) => match talk.answer() {
                Ok(None) => Step::State(talk),
                Ok(Some(Answer::Payload(state))) => self.found(talk, &state),
                Ok(Some(Answer::Refused(code))) => self.refused(code),
                Err(_) => self.again(),
            },
            Step::Wait(mut talk, pid) => match talk.answer() {
                Ok(None) => Step::Wait(talk, pid),
                Ok(Some(Answer::Payload(end))) => self.ended(pid, &end),
                Ok(Some(Answer::Refused(_))) | Err(_) => self.again(),
            },
            Step::Done => Step::Done,
        };
    }

    fn ask(&self, mut socket: UnixStream, method: &str, stream: u32) -> io::Result<Talk> {
        let mut payload = Vec::new();
        ttrpc::put(&mut payload, 1, self.shim.id.as_bytes());
        let service = SERVICES[self.service];
        let namespace = &self.shim.namespace;
        let frame = ttrpc::question(stream, service, method, namespace, &payload);
        // Some hundred bytes into an empty buffer: it takes them whole.
        socket.write_all(&frame)?;
        socket.set_nonblocking(true)?;
        Ok(Talk { socket, received: Vec::new(), stream })
    }

    fn again(&mut self) -> Step {
        if self.last {
            return Step::Done;
        }
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Step::Pause(until)
    }

    fn refused(&mut self, code: u64) -> Step {
        match (code, self.service + 1 < SERVICES.len()) {
            (UNIMPLEMENTED, true) => {
                self.service += 1;
                Step::Pause(Instant::now())
            }
            (UNIMPLEMENTED, false) => Step::Done,
            // While the task is being made there is none.
            _ => self.again(),
        }
    }

    /// `state`: 3 process id, and more.
    fn found(&mut self, talk: Talk, state: &[u8]) -> Step {
        let pid = Message::parse(state).ok().and_then(|state| u32::try_from(state.number(3)).ok());
        match pid {
            Some(pid @ 1..) => self
                .ask(talk.socket, "Wait", talk.stream + 2)
                .map_or_else(|_| self.again(), |talk| Step::Wait(talk, pid)),
            _ => self.again(),
        }
    }

    /// `end`: 1 status, 2 time { 1 seconds, 2 nanoseconds }.
    fn ended(&self, pid: u32, end: &[u8]) -> Step {
        // Nobody is left to be told of a disk that is full; the code is then lost.
        drop(self.write(pid, end));
        Step::Done
    }

    fn write(&self, pid: u32, end: &[u8]) -> io::Result<()> {
        let end = Message::parse(end)?;
        let at = end.bytes(2).map(Message::parse).transpose()?;
        let at_unix_ms =
            at.map(|at| at.number(1).saturating_mul(1000).saturating_add(at.number(2) / 1_000_000));
        let status = u32::try_from(end.number(1)).map_err(io::Error::other)?;
        let counter = self.memory_counter.as_deref();
        let end = TaskEnd {
            pid,
            boot_id: process::boot_id()?,
            status,
            at_unix_ms: at_unix_ms.unwrap_or_else(process::unix_ms),
            memory_kills: counter.and_then(|file| cgroup::counter(file, "oom_kill")).unwrap_or(0),
        };
        files::store(&self.dir, files::EXIT, &end)
    }
}

impl Talk {
    /// The answer, if it is there.
    fn answer(&mut self) -> io::Result<Option<Answer>> {
        let mut room = [0; READ_BYTES];
        loop {
            if let Some(answer) = ttrpc::take_answer(&mut self.received, self.stream)? {
                return Ok(Some(answer));
            }
            match self.socket.read(&mut room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.received.extend_from_slice(&room[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Where containerd's shim listens, as written in its folder: since 2.0 as JSON, before as one
/// line.
fn address(folder: &Path) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Bootstrap {
        address: String,
        protocol: String,
    }
    let read = |name: &str| {
        let mut text = String::new();
        let file = fs::File::open(folder.join(name)).ok()?;
        file.take(ADDRESS_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let text = match read("bootstrap.json") {
        Some(text) => {
            let bootstrap: Bootstrap = serde_json::from_str(&text).ok()?;
            (bootstrap.protocol == "ttrpc").then_some(bootstrap.address)?
        }
        None => read("address")?,
    };
    let path = text.trim().strip_prefix("unix://")?;
    Some(PathBuf::from(path))
}

#[cfg(test)]
mod tests;
