//! Decides what a node does next; never does it.
//!
//! ```text
//!   cluster's desired state ─┐                    ┌─► persist
//!   what backends have found ├─► Engine ──────────┼─► prepare, start, stop, destroy
//!   exits, results, time ────┘                    └─► reports to the cluster
//! ```
//!
//! Why apart from the shell: a decision is a function of state and time, and only functions
//! can be replayed from a seed. The owner calls [`Engine::handle`] with each input, performs
//! [`Engine::poll_effect`] until it is empty, in order, and sleeps until
//! [`Engine::poll_timeout`].
//!
//! Invariants:
//! - an effect for an instance is never given out while another of it is in flight;
//! - [`Effect::Persist`] comes before every effect that relies on it;
//! - the generation never decreases within an epoch;
//! - a workload is stopped because it is no longer desired, desired otherwise, because an
//!   operator drains the node, or because it may only run with the root's word (`fence`); never
//!   because the engine or a connection came or went.
//!
//! See also: `slot` (the life of one instance), `restart` (when it is started again),
//! `admit` (what is refused), `fence` (what must never run twice), `vivaldi` and `echo` (where the node is in the net).

mod admit;
pub mod echo;
mod engine;
mod fence;
mod ledger;
mod restart;
mod slot;
mod telemetry;
pub mod vivaldi;

pub use engine::Engine;
pub use ledger::LedgerError;
pub use restart::{BACKOFF_FIRST_MS, BACKOFF_MAX_MS, FAILURES_MAX, STABLE_MS};
pub use slot::SlotView;

use marram_backend_api::{ErrorKind, Exit, Observed};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{Down, Summary, Telemetry, Up, Workload};

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Never goes back; for intervals.
    pub mono_ms: u64,
    /// What the wall clock says; for people.
    pub unix_ms: u64,
}

/// The node, towards its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: ChildId,
    /// Its name.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Drawn at each start of the program.
    pub incarnation: u64,
}

/// What a backend keeps for finding its workload again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleBytes {
    /// Layout.
    pub version: u16,
    /// The backend's own.
    pub state: Vec<u8>,
}

/// What a backend serves on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendFacts {
    /// Its name.
    pub name: String,
    /// Values of `virtualization` that it serves, names of its runtimes among them.
    pub serves: Vec<String>,
    /// Why it serves nothing now, if so.
    pub trouble: Option<String>,
}

/// What happens to a node.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one at a time is handed over")]
pub enum Input {
    /// What the host can do; at the start and whenever that changes.
    Host {
        /// Towards the cluster.
        summary: Summary,
        /// For people.
        facts: Vec<(String, String)>,
    },
    /// A backend was looked at: at the start, when its health changes, when it asks to be
    /// listed again.
    Backend {
        /// What it serves.
        facts: BackendFacts,
        /// Everything of ours that it has; `None` if it could not be asked.
        found: Option<Vec<(InstanceId, Observed)>>,
    },
    /// The connection to the cluster is up.
    LinkUp {
        /// The parent that the node would rather have, if it is not this one.
        preferred: Option<ChildId>,
    },
    /// It is down.
    LinkDown,
    /// The cluster speaks.
    Parent(Down),
    /// An effect has been performed.
    Done(InstanceId, Outcome),
    /// A workload has ended.
    Exited(InstanceId, Exit),
    /// A preparation goes on: bytes done, bytes in all (0 if not known).
    Progress(InstanceId, u64, u64),
    /// A sample was taken.
    Telemetry(Telemetry),
    /// Stop everything, and stay so until the next start.
    Drain,
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Of [`Effect::Prepare`].
    Prepared(HandleBytes),
    /// Of [`Effect::Start`].
    Started(HandleBytes),
    /// Of [`Effect::Recover`].
    Recovered(Observed),
    /// Of [`Effect::Stop`].
    Stopped(Exit),
    /// Of [`Effect::Destroy`].
    Destroyed,
    /// Of any.
    Failed(ErrorKind, String),
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one at a time is handed over")]
pub enum Effect {
    /// Make durable before performing what follows.
    Persist {
        /// Counts writes.
        generation: u64,
        /// All that the engine must remember.
        bytes: Vec<u8>,
    },
    /// Answered by [`Input::Done`], as all that follow.
    Prepare {
        /// On which backend.
        backend: String,
        /// What.
        workload: Box<Workload>,
    },
    /// Start what was prepared.
    Start {
        /// On which backend.
        backend: String,
        /// Which.
        instance: InstanceId,
        /// From preparing.
        handle: HandleBytes,
    },
    /// Take up what runs from before.
    Recover {
        /// On which backend.
        backend: String,
        /// Which.
        instance: InstanceId,
        /// From starting.
        handle: HandleBytes,
    },
    /// End it.
    Stop {
        /// On which backend.
        backend: String,
        /// Which.
        instance: InstanceId,
        /// Before force.
        grace_ms: u64,
    },
    /// Remove what is left.
    Destroy {
        /// On which backend.
        backend: String,
        /// Which.
        instance: InstanceId,
    },
    /// Tell the cluster, if connected; it is told again when the link is up.
    Send(Up),
    /// Everything is stopped, as asked.
    Drained,
}
