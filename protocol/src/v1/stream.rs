//! Logs and exec: streams inside the connection that the child opened.
//!
//! Flow control is by credit, both ways: nobody sends more than the other side has granted,
//! so that a slow client far away, or a program that does not read, fills no memory on the
//! way. A stream begins with none. Who opens it grants up to [`CREDIT_BYTES`] of output right
//! behind, and more as output is taken; a child grants as much input once a program waits for
//! it, and more as the program takes it. Who sends more is broken off.

use crate::id::{ChildId, InstanceId};
use crate::v1::ExitCause;
use serde::{Deserialize, Serialize};

/// Longest piece of a stream, so that state changes never wait long behind a log.
pub const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// On its way at most, for one stream and direction.
pub const CREDIT_BYTES: u32 = 64 * 1024;

/// What the shortest piece of input costs: a client that sends single letters must not fill
/// queues on the way, which count messages too.
pub const INPUT_COST_MIN: u32 = 256;

/// What a piece of input takes from the credit. Closing the input is free.
pub fn input_cost(bytes: usize) -> u32 {
    match bytes {
        0 => 0,
        _ => u32::try_from(bytes).unwrap_or(u32::MAX).max(INPUT_COST_MIN),
    }
}

/// Streams open at once on one child: an operator's hands, not a log collector's.
pub const STREAMS_MAX: usize = 32;

/// Names a stream on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u32);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamRequest {
    /// Kept output.
    Logs {
        /// Of which instance.
        instance: InstanceId,
        /// So many lines before the end; all that is kept if absent.
        tail_lines: Option<u32>,
        /// Go on with what comes.
        follow: bool,
    },
    /// A further program beside the workload's own.
    Exec {
        /// In which instance.
        instance: InstanceId,
        /// Program and arguments.
        argv: Vec<String>,
        /// With a terminal of rows and columns.
        terminal: Option<(u16, u16)>,
    },
    /// The children of the tier that is asked, one JSON object a line: what an operator
    /// looks at now and then does not travel up all the time.
    Children,
    /// Why the instance is where it is, or nowhere: one JSON object a tier, from the one that
    /// is asked down to the node.
    Explain {
        /// Of which instance.
        instance: InstanceId,
    },
    /// [`StreamRequest::Children`] of a cluster at or below the tier that is asked.
    ChildrenOf {
        /// Which cluster.
        cluster: ChildId,
    },
}

/// Which output a piece came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Standard output, and logs.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a stream could not be had or broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamFault {
    /// Something is not here: the instance, its log, the program to start.
    NotFound,
    /// The backend has no such ability.
    Unsupported,
    /// Nobody who knows can be reached.
    Unreachable,
    /// Too many streams at once, or more input than was granted.
    TooMany,
    /// The backend failed.
    Failed,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamEnd {
    /// All was sent.
    Done,
    /// The program ended.
    Exited(ExitCause),
    /// It broke.
    Fault(StreamFault, String),
}
