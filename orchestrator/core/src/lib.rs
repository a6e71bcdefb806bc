//! Decides what a tier with children does next; never does it. The same for a cluster and
//! for the root.
//!
//! ```text
//!            deploy, remove (root)        parent's desired state (cluster)
//!                       └──────────┬──────────────┘
//!                                  ▼
//!        children's summaries ─► choose a child ─► its desired state
//!                                  ▲                      │
//!               refusal: the next ─┘                      ▼
//!        parent, clients ◄───────── statuses ◄──────── child
//! ```
//!
//! Why apart from the shells: a decision is a function of state and time, and only
//! functions can be replayed from a seed. The owner calls [`Tier::handle`] with each input,
//! then performs [`Tier::poll_effect`] until it is empty, in order, then sleeps until
//! [`Tier::poll_timeout`].
//!
//! Invariants:
//! - [`Effect::Persist`] comes before every effect that relies on it;
//! - what is reserved on a child is the sum of what is placed there and not over;
//! - a child's generation never decreases within the tier's epoch;
//! - an instance is placed on one child at most.

mod child;
mod choose;
mod downward;
mod instance;
mod peers;
mod records;
mod tier;
mod upward;

pub use child::Child;
pub use instance::Instance;
pub use records::RecordError;
pub use tier::{Tier, TierError};

use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{Down, Up, Workload};

/// Children of one tier: design limit of a cluster's nodes.
pub const CHILDREN_MAX: usize = 10_000;

/// Bytes of an encoded workload: two fit one message with room to spare, and no
/// descriptor of an edge service comes near.
pub const WORKLOAD_BYTES_MAX: usize = 96 * 1024;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Never goes back; for intervals.
    pub mono_ms: u64,
    /// What the wall clock says; for people.
    pub unix_ms: u64,
}

/// What happens to a tier.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An operator wants an instance; checked before by [`Tier::check`].
    Deploy(Workload),
    /// An operator wants it gone. Unknown ones are gone already.
    Remove(InstanceId),
    /// The connection to the parent is up: say hello.
    ParentUp,
    /// It is down.
    ParentGone,
    /// The parent speaks.
    Parent(Down),
    /// A child speaks; who it is was authenticated by the shell.
    Child(ChildId, Up),
    /// A child's connection is down. An incarnation, if known, tells an old connection from
    /// the one that has taken its place.
    ChildGone(ChildId, Option<u64>),
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one at a time is handed over")]
pub enum Effect {
    /// Make durable, all or nothing, before performing what follows. `None` deletes.
    Persist(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// Send to a child, if it is connected; it is told again when it comes back.
    ToChild(ChildId, Down),
    /// Send to the parent, if it is connected; it is told again when it comes back.
    ToParent(Up),
    /// An instance is other than before, or gone: tell who watches.
    Changed(InstanceId),
}

/// What a tier is, for itself and towards its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: ChildId,
    /// Its name.
    pub name: String,
    /// Where it is, `latitude,longitude[,metres]` or empty.
    pub location: String,
    /// Version of the program.
    pub version: String,
    /// Drawn at each start of the program.
    pub incarnation: u64,
}
