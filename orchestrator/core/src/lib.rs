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
//! - what is reserved on a child is the sum of what is placed there and not over, and of what
//!   leaves it;
//! - a child's generation never decreases within the tier's epoch;
//! - an instance is desired on one child at most, but while it is moved; it may run on a second
//!   one that is silent and was not told yet.
//!
//! See also: `loss` (silent children), `movement` (moves, drain, rebalance), `operate` (what
//! operators want), `claim` (children that come from another parent), `foreign` (those of
//! another tree), `missed` (what nobody above could be told), `kin` (who is above and beside),
//! `cards` (the clusters of the subtree).

mod cards;
mod child;
mod choose;
mod claim;
mod decisions;
mod downward;
mod foreign;
mod instance;
mod kin;
mod loss;
mod missed;
mod movement;
mod offer;
mod operate;
mod peers;
mod records;
mod restore;
mod sum;
mod tier;
mod ties;
mod upward;

pub use child::Child;
pub use decisions::{DECISIONS_MAX, Decision, Verdict};
pub use foreign::{FOREIGN_MAX, Foreign};
pub use instance::Instance;
pub use loss::{FORGET_MS, GRACE_MS};
pub use missed::HISTORY_MAX;
pub use movement::{MOVES_MAX, REBALANCE_MAX};
pub use records::RecordError;
pub use tier::{Tier, TierError};

use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{Down, OperationEnd, OperationId, Up, Verb, Workload};

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
    /// An operator wants some and wants others gone, as scaling does: one write, and one
    /// change for each child. Those that exist become what is wanted now; new ones that
    /// [`Tier::check`] does not let pass are left out.
    Apply {
        /// New or other.
        upserts: Vec<Workload>,
        /// To be gone.
        removes: Vec<InstanceId>,
    },
    /// An operator wants something of a cluster: this tier or one below it. Answered by
    /// [`Effect::Operated`].
    Operate {
        /// For the answer; the owner's own number.
        operation: OperationId,
        /// The cluster that has to do it.
        cluster: ChildId,
        /// Which child of that cluster, by name or id; the cluster as a whole if absent.
        child: Option<String>,
        /// What.
        verb: Verb,
    },
    /// An operator takes a child of another tree, as [`Tier::foreign`] lists them: what it runs
    /// and is not desired here stops.
    Adopt(ChildId),
    /// The connection to the parent is up: say hello.
    ParentUp {
        /// The parent that this tier would rather have, if it is not this one.
        preferred: Option<ChildId>,
    },
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
    /// How [`Input::Operate`] went.
    Operated {
        /// As in the input.
        operation: OperationId,
        /// How.
        end: OperationEnd,
    },
    /// This parent cannot be the parent of this tier: end the connection, try another.
    LeaveParent {
        /// Why, for people.
        reason: String,
    },
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
    /// Its own labels, `key=value` or `key`.
    pub labels: Vec<String>,
    /// Where it takes clusters as children; empty if it takes none.
    pub address: String,
    /// Where it takes nodes; empty if it takes none.
    pub node_address: String,
}
