//! Version 1 of the messages between a parent and a child, the same on every hop.
//!
//! ```text
//!          desired state, requests for logs and exec            Down
//!  parent ──────────────────────────────────────────────► child
//!         ◄──────────────────────────────────────────────
//!          observed state, summaries, telemetry, output           Up
//! ```
//!
//! A message is an envelope: one byte of version, one byte of kind, and a postcard body.
//! Enums grow at the end and structs never change: a change that does not fit is version 2,
//! beside this one. An unknown version or number is refused with a reason, never guessed.

mod echo;
mod spec;
mod status;
mod stream;
mod summary;
mod tree;

pub use echo::{ECHOES_MAX, EchoKey, PEERS_MAX, Peer, Peers};
pub use spec::{
    Anchor, Mount, MovePolicy, Patience, Placement, Proximity, RestartPolicy, ServiceSpec, Workload,
};
pub use status::{DETAIL_BYTES_MAX, ExitCause, InstanceStatus, NodeRef};
pub use stream::{
    CHUNK_BYTES_MAX, CREDIT_BYTES, INPUT_COST_MIN, Output, STREAMS_MAX, StreamEnd, StreamFault,
    StreamId, StreamRequest, input_cost,
};
pub use summary::{
    Coordinate, Geo, Pressure, RESOURCE_KINDS, Resources, SUMMARY_LIST_MAX, Summary, Telemetry,
    WorkloadUsage,
};
pub use tree::{
    ALTERNATES_MAX, Alternate, Ancestor, CARDS_MAX, CLUSTERS_MAX, Claim, ClusterCard, DEPTH_MAX,
    Kin, Missed, OperationEnd, OperationId, Verb,
};

use crate::MESSAGE_BYTES_MAX;
use crate::id::{ChildId, InstanceId};
use serde::{Deserialize, Serialize};

/// First byte of every message of this version.
pub const VERSION: u8 = 1;

const KIND_UP: u8 = 1;
const KIND_DOWN: u8 = 2;

/// A place in a parent's sequence of desired states.
///
/// Numbers of one epoch are compared; an epoch is drawn when a parent's store is made, so
/// that a parent that lost its disk cannot be mistaken for one that counts on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Generation {
    /// Which life of the parent's store; 0 is "never had one".
    pub epoch: u64,
    /// Counts changes within it.
    pub number: u64,
}

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChildKind {
    /// A machine that runs workloads.
    Node,
    /// An orchestrator with children of its own.
    Cluster,
}

/// First message of a child on every new connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who.
    pub child: ChildId,
    /// What.
    pub kind: ChildKind,
    /// Name for people; unique among siblings.
    pub name: String,
    /// Version of the program, for people.
    pub version: String,
    /// Drawn at each start of the program.
    pub incarnation: u64,
    /// The desired state that the child holds.
    pub generation: Generation,
    /// What it can do.
    pub summary: Summary,
    /// What is known of the machine, for people: `kernel`, `board`, `address`, …
    pub facts: Vec<(String, String)>,
    /// The tree whose desired state it holds, as in [`Kin`]; 0 if it never had a parent.
    pub tree: u64,
    /// The parent it would rather have, if this one is not it.
    pub preferred: Option<ChildId>,
    /// Where it takes clusters as children; empty for a node.
    pub address: String,
    /// Where it takes nodes; empty for a node.
    pub node_address: String,
    /// A cluster's own labels; a node's are in its summary.
    pub labels: Vec<String>,
}

/// Whether statuses tell of changes or of everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Only what changed.
    Change,
    /// Part of a whole; with the last part, instances not named are absent.
    Snapshot {
        /// The first part: forget what was collected before.
        first: bool,
        /// The last part.
        last: bool,
    },
}

/// From a child to its parent. Grows at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one message at a time is held, and never many")]
pub enum Up {
    /// Here I am.
    Hello(Hello),
    /// Connected or not; on MQTT retained, and left as last will.
    Presence {
        /// Connected.
        online: bool,
        /// Of which start of the program.
        incarnation: u64,
    },
    /// How instances are.
    Observed {
        /// The desired state that this was seen under: what it says of an instance that the
        /// parent has spoken of since is out of date.
        generation: Generation,
        /// Changes or everything.
        scope: Scope,
        /// One for each instance.
        statuses: Vec<InstanceStatus>,
    },
    /// Something was missed: send the manifest. Names what is held.
    Resync(Generation),
    /// Send these workloads, they are in the manifest and not here.
    Fetch {
        /// Of the manifest.
        generation: Generation,
        /// Which.
        instances: Vec<InstanceId>,
    },
    /// What it can do has changed.
    Summary(Summary),
    /// What is used.
    Telemetry(Telemetry),
    /// Output of a stream.
    StreamData {
        /// Which stream.
        stream: StreamId,
        /// Which output.
        output: Output,
        /// At most [`CHUNK_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// The stream is over.
    StreamEnd {
        /// Which stream.
        stream: StreamId,
        /// How.
        end: StreamEnd,
    },
    /// The program takes so much input more.
    StreamCredit {
        /// Which stream.
        stream: StreamId,
        /// Added to what may be sent, counted as [`input_cost`] does.
        bytes: u32,
    },
    /// Run here by the word of another parent: may they stay? Answered for each by a desired
    /// state that holds it or by [`Down::Disown`]. At most [`CARDS_MAX`].
    Claim(Vec<Claim>),
    /// Clusters of the subtree, the teller not among them.
    Clusters {
        /// With a snapshot's first part, forget the others.
        scope: Scope,
        /// New or changed, at most [`CARDS_MAX`].
        cards: Vec<ClusterCard>,
        /// No longer there.
        gone: Vec<ChildId>,
    },
    /// How [`Down::Operate`] went.
    Operated {
        /// As in the request.
        operation: OperationId,
        /// How.
        end: OperationEnd,
    },
    /// What happened while the parent was not there, oldest first; so many older were dropped.
    Missed {
        /// At most [`CARDS_MAX`].
        entries: Vec<Missed>,
        /// For which there was no room.
        dropped: u32,
    },
}

/// An entry of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// Which instance.
    pub instance: InstanceId,
    /// [`Workload::digest`] of what it should be. Its bits are random, so eight bytes are
    /// shorter than a variable length, and the longest manifest still fits one message.
    #[serde(with = "postcard::fixint::le")]
    pub digest: u64,
}

/// From a parent to its child. Grows at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// The parent's answer to [`Hello`].
    Welcome {
        /// The parent's epoch: a generation of another one says nothing.
        epoch: u64,
        /// The parent's wall clock, a floor for boards without one.
        unix_ms: u64,
    },
    /// The parent does not take this child; it may ask again later.
    Rejected {
        /// Why, for people.
        reason: String,
    },
    /// From generation `base` to `generation`: bytes for what changed only.
    Change {
        /// What must be held for the change to apply.
        base: Generation,
        /// What is held after.
        generation: Generation,
        /// New or other workloads.
        upserts: Vec<Workload>,
        /// No longer desired.
        removes: Vec<InstanceId>,
    },
    /// Everything that is desired, by digest.
    Manifest {
        /// Of this list.
        generation: Generation,
        /// All of them.
        entries: Vec<ManifestEntry>,
    },
    /// Answer to [`Up::Fetch`], in as many messages as their size asks for.
    Specs {
        /// As in the request.
        generation: Generation,
        /// Those asked for that still exist.
        workloads: Vec<Workload>,
    },
    /// Start a stream.
    StreamOpen {
        /// Chosen by the parent, unique on this connection.
        stream: StreamId,
        /// What.
        request: StreamRequest,
    },
    /// Input of a stream; empty closes the input.
    StreamData {
        /// Which stream.
        stream: StreamId,
        /// At most [`CHUNK_BYTES_MAX`], and no more than was granted.
        bytes: Vec<u8>,
    },
    /// The receiver takes so many bytes more.
    StreamCredit {
        /// Which stream.
        stream: StreamId,
        /// Added to what may be sent.
        bytes: u32,
    },
    /// Nobody listens any more.
    StreamClose {
        /// Which stream.
        stream: StreamId,
    },
    /// The terminal at the other end has another size.
    StreamResize {
        /// Which stream.
        stream: StreamId,
        /// Lines.
        rows: u16,
        /// Characters a line.
        columns: u16,
    },
    /// The tree above and around the child.
    Kin(Kin),
    /// Nobody above wants these of [`Up::Claim`]: they are to be stopped.
    Disown(Vec<InstanceId>),
    /// An operator wants something of a cluster below, or of its child of this name or id.
    Operate {
        /// For the answer.
        operation: OperationId,
        /// The cluster that has to do it; the receiver or one below it.
        cluster: ChildId,
        /// Which child of that cluster; the cluster as a whole if absent.
        child: Option<String>,
        /// What.
        verb: Verb,
    },
    /// Nodes whose distance is to be measured now and then, for [`Summary::coordinate`].
    Peers(Peers),
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message has at most {MESSAGE_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
    /// Shorter than an envelope.
    #[error("a message begins with a version and a kind, got {0} bytes")]
    TooShort(usize),
    /// Of a version that this program does not know.
    #[error("message version {0} is not known here, known is {VERSION}")]
    Version(u8),
    /// A message of the other direction, or of none.
    #[error("message kind {0} was not expected here")]
    Kind(u8),
    /// The body does not fit its kind.
    #[error("malformed message body: {0}")]
    Body(String),
    /// Bytes after the body.
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
}

impl Up {
    /// The message with its envelope.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        encode(KIND_UP, self)
    }

    /// Messages that tell everything, with at most so many statuses each.
    pub fn snapshot(
        generation: Generation,
        statuses: &[InstanceStatus],
        statuses_max: usize,
    ) -> Vec<Self> {
        let mut parts: Vec<&[InstanceStatus]> = statuses.chunks(statuses_max).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        let message = |(part, statuses): (usize, &[InstanceStatus])| Self::Observed {
            generation,
            scope: Scope::Snapshot { first: part == 0, last: part == last },
            statuses: statuses.to_vec(),
        };
        parts.into_iter().enumerate().map(message).collect()
    }

    /// Reads what [`Up::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode(KIND_UP, bytes)
    }
}

impl Down {
    /// The message with its envelope.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        encode(KIND_DOWN, self)
    }

    /// Reads what [`Down::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode(KIND_DOWN, bytes)
    }
}

fn encode<T: Serialize>(kind: u8, message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = postcard::to_extend(message, vec![VERSION, kind])
        .map_err(|error| CodecError::Body(error.to_string()))?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(CodecError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

fn decode<'a, T: Deserialize<'a>>(kind: u8, bytes: &'a [u8]) -> Result<T, CodecError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(CodecError::TooLong(bytes.len()));
    }
    let &[version, found, ref body @ ..] = bytes else {
        return Err(CodecError::TooShort(bytes.len()));
    };
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    if found != kind {
        return Err(CodecError::Kind(found));
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(CodecError::Trailing(rest.len())),
        Err(error) => Err(CodecError::Body(error.to_string())),
    }
}
