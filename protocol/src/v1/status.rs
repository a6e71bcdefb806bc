//! How an instance is, as it travels up.

use crate::id::{ChildId, InstanceId};
use crate::state::InstanceState;
use serde::{Deserialize, Serialize};

/// Longest detail of a status: a line for people, not a log.
pub const DETAIL_BYTES_MAX: usize = 512;

/// State of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Which.
    pub instance: InstanceId,
    /// Revision that the state is of.
    pub revision: u32,
    /// State.
    pub state: InstanceState,
    /// Why, for people.
    pub detail: String,
    /// Starts after the first one.
    pub restarts: u32,
    /// How it ended the last time, if it did.
    pub exit: Option<ExitCause>,
    /// Since when, by the clock of whoever saw it.
    pub since_unix_ms: u64,
    /// Where it runs; filled in by the first tier that knows.
    pub node: Option<NodeRef>,
}

/// The node an instance is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRef {
    /// Its id.
    pub id: ChildId,
    /// Its name.
    pub name: String,
    /// Where its host ports answer; empty if not known.
    pub address: String,
}

/// How a workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// By itself with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By the kernel, for its memory limit.
    OutOfMemory,
    /// Without a trace, as after a power loss.
    Lost,
}

impl ExitCause {
    /// As clients are shown it.
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Self::Code(code) => serde_json::json!({"code": code}),
            Self::Signal(signal) => serde_json::json!({"signal": signal}),
            Self::OutOfMemory => serde_json::json!({"out_of_memory": true}),
            Self::Lost => serde_json::json!({"lost": true}),
        }
    }
}

impl InstanceStatus {
    /// A status of which nothing but the state is known.
    pub fn bare(instance: InstanceId, state: InstanceState, since_unix_ms: u64) -> Self {
        Self {
            instance,
            revision: 0,
            state,
            detail: String::new(),
            restarts: 0,
            exit: None,
            since_unix_ms,
            node: None,
        }
    }

    /// Cuts a text to [`DETAIL_BYTES_MAX`] at a character's border.
    pub fn detail(text: &str) -> String {
        let mut end = text.len().min(DETAIL_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_cut_between_characters() {
        assert_eq!(InstanceStatus::detail("short"), "short");
        let long = "ä".repeat(DETAIL_BYTES_MAX);
        assert_eq!(InstanceStatus::detail(&long).len(), DETAIL_BYTES_MAX);
        let odd = format!("a{long}");
        assert_eq!(InstanceStatus::detail(&odd).len(), DETAIL_BYTES_MAX - 1);
    }
}
