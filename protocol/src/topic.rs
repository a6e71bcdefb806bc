//! Topics between a node and its cluster: `nodes/<node-id>/<leaf>`.
//!
//! One total function reads them, one writes them; nothing else in the project knows the
//! text. A node touches topics under its own id only.

use crate::id::ChildId;
use std::fmt;
use std::str::FromStr;

/// Longest topic of ours: prefix, id and the longest leaf fit three times.
pub const TOPIC_BYTES_MAX: usize = 128;

/// What a topic carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leaf {
    /// Retained, with a last will: whether the node is connected. Node to cluster.
    Presence,
    /// Hello, observed states, fetches. Node to cluster, QoS 1.
    Report,
    /// Measured use. Node to cluster, QoS 0.
    Telemetry,
    /// Log and exec output. Node to cluster, QoS 1.
    StreamOut,
    /// Desired state. Cluster to node, QoS 1.
    Desired,
    /// Log and exec requests and input. Cluster to node, QoS 1.
    StreamIn,
}

/// Who writes to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the node to the cluster.
    Up,
    /// From the cluster to the node.
    Down,
}

impl Leaf {
    /// All leaves.
    pub const ALL: [Self; 6] = [
        Self::Presence,
        Self::Report,
        Self::Telemetry,
        Self::StreamOut,
        Self::Desired,
        Self::StreamIn,
    ];

    /// The text after the node's id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Report => "report",
            Self::Telemetry => "telemetry",
            Self::StreamOut => "stream/out",
            Self::Desired => "desired",
            Self::StreamIn => "stream/in",
        }
    }

    /// Who writes to it.
    pub fn direction(self) -> Direction {
        match self {
            Self::Presence | Self::Report | Self::Telemetry | Self::StreamOut => Direction::Up,
            Self::Desired | Self::StreamIn => Direction::Down,
        }
    }

    /// The filter by which a cluster hears this leaf of all its nodes.
    pub fn of_all_nodes(self) -> String {
        format!("nodes/+/{}", self.as_str())
    }
}

/// A topic of the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Whose.
    pub node: ChildId,
    /// What.
    pub leaf: Leaf,
}

/// Before a node's id in its MQTT client id, so that no tool takes it by mistake.
const CLIENT_PREFIX: &str = "node-";

/// The MQTT client id that a node connects with.
pub fn client_id(node: ChildId) -> String {
    format!("{CLIENT_PREFIX}{node}")
}

/// The node that connects with this client id; `None` if it is no node's.
pub fn node_of_client(client_id: &str) -> Option<ChildId> {
    let node = client_id.strip_prefix(CLIENT_PREFIX)?.parse().ok()?;
    // One id, one client: upper case would be a second session of the same node.
    (self::client_id(node) == client_id).then_some(node)
}

/// Why a text is no topic of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Longer than [`TOPIC_BYTES_MAX`].
    #[error("a topic has at most {TOPIC_BYTES_MAX} bytes, got {0}")]
    Length(usize),
    /// Does not begin with `nodes/`.
    #[error("a topic begins with nodes/")]
    Prefix,
    /// The second level is no id in lower case.
    #[error("the second level of a topic is a node id of 24 lower-case hexadecimal digits")]
    Node,
    /// The rest is no leaf.
    #[error(
        "the last level of a topic is one of presence, report, telemetry, desired, stream/in, stream/out"
    )]
    Leaf,
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        if text.len() > TOPIC_BYTES_MAX {
            return Err(TopicError::Length(text.len()));
        }
        let rest = text.strip_prefix("nodes/").ok_or(TopicError::Prefix)?;
        let (node, leaf) = rest.split_once('/').ok_or(TopicError::Leaf)?;
        // One id, one topic: upper case would be a second name for the same node.
        if node.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(TopicError::Node);
        }
        let node = node.parse().map_err(|_| TopicError::Node)?;
        let leaf = Leaf::ALL.into_iter().find(|l| l.as_str() == leaf).ok_or(TopicError::Leaf)?;
        Ok(Self { node, leaf })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nodes/{}/{}", self.node, self.leaf.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_reads_what_it_writes() {
        for leaf in Leaf::ALL {
            let topic = Topic { node: ChildId([7; 12]), leaf };
            assert_eq!(topic.to_string().parse(), Ok(topic));
            assert!(topic.to_string().len() <= TOPIC_BYTES_MAX);
        }
    }

    #[test]
    fn a_node_is_known_by_one_client_id() {
        let node = ChildId([0xab; 12]);
        assert_eq!(node_of_client(&client_id(node)), Some(node));
        for other in ["", "node-", "abababababababababababab", "node-ABABABABABABABABABABABAB"] {
            assert_eq!(node_of_client(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_of_the_grammar_is_refused() {
        let id = "070707070707070707070707";
        for (bad, error) in [
            (String::new(), TopicError::Prefix),
            ("nodes".into(), TopicError::Prefix),
            ("$SYS/x".into(), TopicError::Prefix),
            (format!("nodes/{id}"), TopicError::Leaf),
            (format!("nodes/{id}/"), TopicError::Leaf),
            (format!("nodes/{id}/desired/x"), TopicError::Leaf),
            (format!("nodes/{id}/#"), TopicError::Leaf),
            ("nodes/+/desired".into(), TopicError::Node),
            ("nodes/0707/desired".into(), TopicError::Node),
            ("nodes/AB0707070707070707070707/desired".into(), TopicError::Node),
            ("x".repeat(129), TopicError::Length(129)),
        ] {
            assert_eq!(bad.parse::<Topic>(), Err(error), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_back_the_same_or_refused(text in "(nodes/)?[0-9a-f]{0,26}/?.{0,20}") {
            if let Ok(topic) = text.parse::<Topic>() {
                proptest::prop_assert_eq!(topic.to_string(), text);
            }
        }
    }
}
