//! Logs and exec: streams inside the connection that the child opened.
//!
//! Flow control is by credit: the child sends no more output than the parent has granted,
//! so that a slow client far away fills no memory on the way. A stream begins with none; who
//! opens it grants up to [`CREDIT_BYTES`] right behind, and more as output is taken.
//! Input has no credit: a child keeps [`CREDIT_BYTES`] that its workload has not read, and
//! ends a stream whose client sends more with [`StreamFault::TooMany`].

use crate::id::InstanceId;
use crate::v1::ExitCause;
use serde::{Deserialize, Serialize};

/// Longest piece of a stream, so that state changes never wait long behind a log.
pub const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// Output on its way at most, for one stream.
pub const CREDIT_BYTES: u32 = 64 * 1024;

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
    /// No such instance here.
    NotFound,
    /// The backend has no such ability.
    Unsupported,
    /// Nobody who knows can be reached.
    Unreachable,
    /// Too many streams at once, or too much input that is not read.
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
