//! What a backend says about itself, this host and its workloads.
//!
//! Invariant: `Observed::Unknown` is an answer of its own. A backend that cannot tell says
//! so; it never guesses "gone", because the engine would start a second copy.

use crate::WorkloadId;

/// What the code can do, whatever the host; never changes while the program runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `as_logs()` is `Some`.
    pub logs: bool,
    /// `as_exec()` is `Some`.
    pub exec: bool,
    /// `as_pause()` is `Some`.
    pub pause: bool,
}

/// What the backend can do on this host now, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Usable or not, and why.
    pub health: Health,
    /// Version of what is driven ("containerd 1.6.20"); empty if there is none.
    pub version: String,
    /// Runtimes that can be asked for by name; the first is the default.
    pub runtimes: Vec<Runtime>,
    /// Values of the SLA's `virtualization` that this backend serves here.
    pub virtualizations: Vec<String>,
    /// For each limit, whether it is enforced here.
    pub limits: Vec<Limit>,
}

/// A runtime inside a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// As in `Spec::runtime`.
    pub name: String,
    /// Version or handler, for people.
    pub version: String,
}

/// One kind of limit and whether this host enforces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// `memory`, `cpu` or `pids`.
    pub name: &'static str,
    /// Enforced, or `Err` with the reason why not.
    pub enforced: Result<(), String>,
}

/// Whether a backend is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// What it drives is not on this host.
    Undetected(String),
    /// It is there and does not work.
    Unhealthy(String),
    /// It works.
    Healthy,
}

/// What is believed of a workload that exists on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// Nothing of it is there.
    Absent,
    /// Something is there and its state cannot be told; the text says why.
    Unknown(String),
    /// `prepare` is done, it was not started.
    Prepared,
    /// Running since this time of the wall clock; the process id on the host.
    Running {
        /// Process id of the workload's first process, seen from the host.
        pid: u32,
        /// When it was started, for people; 0 if unknown.
        started_unix_ms: u64,
        /// Frozen by `Pause`.
        paused: bool,
    },
    /// Ended; what it left is still there.
    Exited(Exit),
}

/// How a workload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub reason: ExitReason,
    /// When, by the wall clock; 0 if unknown.
    pub at_unix_ms: u64,
}

/// Why a workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// Ended by itself with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
    /// Killed by the kernel for its memory limit.
    OutOfMemory,
    /// Gone without a trace (power loss, a killed supervisor).
    Lost,
}

impl ExitReason {
    /// Ended as it should: code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

/// What happens without being asked. Pushed once at least; the engine asks again by
/// `list` whatever it must be sure of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The workload ended.
    Exited(WorkloadId, Exit),
    /// `prepare` goes on: bytes done of bytes in all (0 if not known yet).
    Progress(WorkloadId, u64, u64),
    /// The backend's connection broke or came back: everything may have changed, list again.
    Resync,
}

/// One sample of what a workload uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time since start.
    pub cpu_usec: u64,
    /// Memory that counts against the limit, less reclaimable file cache.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Read from block devices since start.
    pub io_read_bytes: u64,
    /// Written to block devices since start.
    pub io_write_bytes: u64,
}
