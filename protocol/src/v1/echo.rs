//! Who measures the distance to whom: nodes that answer echo requests over UDP.
//!
//! A node tells where it answers in its summary, a cluster tells some of its nodes, and each
//! parent hands its children a few of the others. What travels between nodes is no message of
//! this protocol; the node engine knows its form.

use crate::id::ChildId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Nodes that answer echo requests, in one summary: with a few of each cluster, the space of
/// latencies is one for the whole tree.
pub const ECHOES_MAX: usize = 4;

/// Nodes that a child measures against. Vivaldi needs a handful of neighbours; more make it
/// no better.
pub const PEERS_MAX: usize = 8;

/// A node that answers echo requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub id: ChildId,
    /// `address:port` in UDP.
    pub address: String,
}

/// With this key, nodes of a tree know each other's echo requests from anybody else's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EchoKey(pub u128);

impl fmt::Debug for EchoKey {
    /// Messages are logged, and the key is not to be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EchoKey")
    }
}

/// Whom a child measures against.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peers {
    /// The key of the tree, or of the part of it that has no parent yet.
    pub key: EchoKey,
    /// At most [`PEERS_MAX`].
    pub peers: Vec<Peer>,
}
