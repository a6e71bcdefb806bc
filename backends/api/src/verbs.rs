//! The verbs: what the engine asks of a backend.
//!
//! Cancellation: a future of any verb may be dropped at any await. What it left half done
//! is repaired by the next call of the same verb or by `destroy`.

use crate::{
    Capabilities, Event, Exit, Fingerprint, Handle, Observed, Result, Spec, Usage, WorkloadId,
};
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A boxed future, so that the traits stay object-safe without a macro.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Takes events from a backend.
pub trait Events: Send + Sync + Debug {
    /// MUST return at once. A full queue coalesces to [`Event::Resync`].
    fn push(&self, event: Event);
}

/// Runs workloads of one kind on this host.
///
/// A backend MUST be usable from several tasks at once. The engine calls lifecycle verbs of
/// one workload one after another, verbs of different workloads side by side.
pub trait Backend: Send + Sync + Debug {
    /// Short name, the same in configuration, fingerprint and logs.
    fn name(&self) -> &'static str;

    /// What the code can do. MUST agree with the `as_…` methods.
    fn capabilities(&self) -> Capabilities;

    /// What works on this host now. MUST NOT fail: what is missing is a health with a reason.
    fn fingerprint(&self) -> BoxFuture<'_, Fingerprint>;

    /// Gives the backend its sink of events. Called once, before any lifecycle verb.
    /// Exits MUST be pushed without anybody polling for them.
    fn watch(&self, events: Arc<dyn Events>);

    /// Tells whether `spec` could run here, touching nothing. MUST refuse what it would
    /// otherwise have to drop.
    fn validate(&self, spec: &Spec) -> Result<()>;

    /// Makes everything ready to start (image, files, cgroup) and returns what must be
    /// remembered. MUST be repeatable: prepared already with the same spec is success;
    /// a running workload of that id is left alone and its handle returned. Another spec
    /// for an id that exists is `Invalid`: destroy first. Progress goes to the events.
    fn prepare<'a>(&'a self, id: &'a WorkloadId, spec: &'a Spec) -> BoxFuture<'a, Result<Handle>>;

    /// Starts what was prepared and returns the handle to remember from now on. Started
    /// already is success. Ended already is `Invalid`: a restart is destroy, prepare, start.
    /// When it returns, the workload's program runs or has run.
    fn start<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Handle>>;

    /// Asks the workload to end, forces it after `grace`, returns how it ended. Not started
    /// or absent is success with `ExitReason::Lost`; ended already returns that exit.
    /// A paused workload MUST be stoppable.
    fn stop<'a>(&'a self, id: &'a WorkloadId, grace: Duration) -> BoxFuture<'a, Result<Exit>>;

    /// Removes everything of the workload, by force if it still runs. Absent is success.
    /// Images MAY stay.
    fn destroy<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>>;

    /// Everything of ours on this host, whether the engine remembers it or not.
    fn list(&self) -> BoxFuture<'_, Result<Vec<(WorkloadId, Observed)>>>;

    /// Takes a workload up again after the engine, the backend's daemon or the host was
    /// restarted: exits are pushed from here on. MUST NOT disturb it. An id alone is not
    /// proof: a process is adopted only if it is provably the one that was started.
    fn recover<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Observed>>;

    /// One sample. `NotFound` if it does not run.
    fn usage<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<Usage>>;

    /// Reading of logs, if the backend has them.
    fn as_logs(&self) -> Option<&dyn Logs> {
        None
    }

    /// Running further programs inside a workload.
    fn as_exec(&self) -> Option<&dyn Exec> {
        None
    }

    /// Freezing and thawing.
    fn as_pause(&self) -> Option<&dyn Pause> {
        None
    }
}

/// Which output a piece of text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A place in a workload's output: bytes written before it since the first start. Stays
/// true across rotation and restarts of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor(pub u64);

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Where the piece begins: later than asked for if older output was rotated away.
    pub start: Cursor,
    /// Where the next read goes on.
    pub next: Cursor,
    /// Both outputs as they came, interleaved.
    pub bytes: Vec<u8>,
}

/// Output that was kept, readable after the workload's end until `destroy`.
pub trait Logs: Send + Sync {
    /// Up to `bytes_max` from `from`; empty at the end, without waiting.
    fn read<'a>(
        &'a self,
        id: &'a WorkloadId,
        from: Cursor,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<LogChunk>>;

    /// The place `lines` lines before the end, bounded by what is kept.
    fn tail<'a>(&'a self, id: &'a WorkloadId, lines: u32) -> BoxFuture<'a, Result<Cursor>>;

    /// Returns when there is more after `from`, or when the workload has ended and nothing
    /// more will come (then `false`). Event-driven: MUST NOT poll faster than once a second.
    fn wait<'a>(&'a self, id: &'a WorkloadId, from: Cursor) -> BoxFuture<'a, Result<bool>>;
}

/// What to run beside a workload's own program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// On top of the workload's own.
    pub environment: Vec<(String, String)>,
    /// With a terminal of rows and columns.
    pub terminal: Option<(u16, u16)>,
}

/// Running further programs inside a workload.
pub trait Exec: Send + Sync {
    /// Starts a program with the workload's limits, user and file system.
    fn exec<'a>(
        &'a self,
        id: &'a WorkloadId,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession>>;
}

/// A program started by [`Exec`]. Dropping both halves kills it.
#[derive(Debug)]
pub struct ExecSession {
    /// To its standard input.
    pub input: Box<dyn ExecInput>,
    /// From its outputs.
    pub output: Box<dyn ExecOutput>,
}

/// The writing half of an exec.
pub trait ExecInput: Send + Debug {
    /// Writes all of `bytes`; waits while the program does not read. Empty closes the input.
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>>;

    /// Tells the terminal its new size; nothing without a terminal.
    fn resize(&mut self, rows: u16, columns: u16) -> BoxFuture<'_, Result<()>>;
}

/// The reading half of an exec.
pub trait ExecOutput: Send + Debug {
    /// Next piece. After [`ExecEvent::Exited`] it is not called again. At most 64 KiB each.
    fn next(&mut self) -> BoxFuture<'_, Result<ExecEvent>>;
}

/// What comes from an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// Bytes of one of its outputs.
    Output(Stream, Vec<u8>),
    /// Ended, after all its output.
    Exited(Exit),
}

/// Freezing and thawing.
pub trait Pause: Send + Sync {
    /// Freezes all processes. Frozen already is success.
    fn pause<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>>;

    /// Thaws. Running already is success.
    fn resume<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>>;
}
