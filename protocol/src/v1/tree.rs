//! How tiers find their place in the tree: who is above, who else could be, what a subtree
//! holds, and what an operator wants of a tier far below.

use crate::id::{ChildId, InstanceId};
use crate::state::InstanceState;
use serde::{Deserialize, Serialize};

/// Tiers from the root to a node, both included: deeper trees serve nobody, and a path of
/// more is a loop.
pub const DEPTH_MAX: usize = 8;

/// Alternates that a child remembers: enough for any outage it can survive at all.
pub const ALTERNATES_MAX: usize = 8;

/// Clusters of a whole tree: each is on a card at the root and on all tiers above it.
pub const CLUSTERS_MAX: usize = 1_024;

/// Cards or claims in one message: a card has some hundred bytes.
pub const CARDS_MAX: usize = 256;

/// A tier above a child.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ancestor {
    /// Its id.
    pub id: ChildId,
    /// Its name.
    pub name: String,
    /// Its own labels.
    pub labels: Vec<String>,
    /// Where it takes clusters as children; empty if it takes none.
    pub address: String,
    /// Where it takes nodes; empty if it takes none.
    pub node_address: String,
}

/// Another tier that may serve a child as its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternate {
    /// Its id.
    pub id: ChildId,
    /// Its name.
    pub name: String,
    /// Where it takes children of this kind: a URL.
    pub address: String,
}

/// What a parent tells a child of the tree above and around it; again whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kin {
    /// Which tree: the epoch of its root. 0 if the parent never had one above it.
    pub tree: u64,
    /// The parent's way up is whole now.
    pub rooted: bool,
    /// All tiers above, the root first, the parent last.
    pub path: Vec<Ancestor>,
    /// Who else could be the parent, the best first.
    pub alternates: Vec<Alternate>,
    /// For a cluster: its siblings that take nodes, which its nodes may turn to.
    pub node_alternates: Vec<Alternate>,
}

/// A cluster of a subtree, as all tiers above it know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterCard {
    /// Its id.
    pub id: ChildId,
    /// Its parent.
    pub parent: ChildId,
    /// Its name.
    pub name: String,
    /// Its own labels.
    pub labels: Vec<String>,
    /// As in a summary.
    pub location: String,
    /// Where it takes clusters as children; empty if it takes none.
    pub address: String,
    /// Where it takes nodes; empty if not known.
    pub node_address: String,
    /// Nodes of its own that can take work.
    pub nodes: u32,
    /// Connected to its parent.
    pub connected: bool,
    /// Takes nothing new.
    pub cordoned: bool,
}

/// An instance that a child runs by the word of another parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which.
    pub instance: InstanceId,
    /// Of which revision.
    pub revision: u32,
    /// On which node, if that is known: the same node is the same copy.
    pub node: Option<ChildId>,
    /// How it is there; with `Undeployed` an earlier claim is taken back.
    pub state: InstanceState,
}

/// Names an operator's wish on its way down and its answer on the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(pub u64);

/// What an operator wants of a cluster, or of a child of that cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Give it nothing new.
    Cordon,
    /// Give it work again.
    Uncordon,
    /// Give it nothing new, and move what can be moved away.
    Drain,
    /// It will not come back: what was placed there is lost, its name is free.
    Forget,
    /// Move what would sit better elsewhere.
    Rebalance,
}

/// How an operator's wish went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationEnd {
    /// It is noted and durable. What follows from it, as moves, goes on.
    Done,
    /// Somebody on the way is not there.
    Unreachable(String),
    /// There is no such child.
    NotFound(String),
    /// It cannot be done, for this reason.
    Refused(String),
}

/// What happened to an instance while nobody above could be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Which.
    pub instance: InstanceId,
    /// When, by the clock of who tells.
    pub unix_ms: u64,
    /// What it came to.
    pub state: InstanceState,
    /// Why, for people.
    pub detail: String,
}
