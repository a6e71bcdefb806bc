//! Who may connect to the embedded endpoint, and which topics are whose.
//!
//! Nodes are known by their client id until they have keys. Everybody else is an operator's
//! tool: it may look at presence, telemetry and counters, and write nothing. What nodes are
//! told to run is not shown to it, since environments hold secrets.

use marram_broker::{Authorizer, ConnectRequest, Identity, Refused};
use marram_protocol::id::ChildId;
use marram_protocol::topic::{Direction, Leaf, Topic, node_of_client};

/// Name of everybody who is no node; no id looks like it.
const TOOL: &str = "tool";

/// What a tool may subscribe to, beside presence and telemetry of one node or all.
const COUNTERS: &str = "$SYS/";

/// The rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnTopics;

fn node(identity: &Identity) -> Option<ChildId> {
    identity.name().parse().ok()
}

impl Authorizer for OwnTopics {
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<Identity, Refused> {
        Ok(match node_of_client(request.client_id) {
            Some(node) => Identity::new(node.to_string()),
            None => Identity::new(TOOL),
        })
    }

    fn publish(&self, identity: &Identity, topic: &str) -> bool {
        let topic = topic.parse::<Topic>();
        topic.is_ok_and(|t| Some(t.node) == node(identity) && t.leaf.direction() == Direction::Up)
    }

    fn subscribe(&self, identity: &Identity, filter: &str) -> bool {
        let topic = filter.parse::<Topic>();
        match node(identity) {
            Some(node) => {
                topic.is_ok_and(|t| t.node == node && t.leaf.direction() == Direction::Down)
            }
            None => {
                let open = [Leaf::Presence, Leaf::Telemetry];
                filter.starts_with(COUNTERS)
                    || open.iter().any(|leaf| filter == leaf.of_all_nodes())
                    || topic.is_ok_and(|t| open.contains(&t.leaf))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_broker::PeerIdentity;

    const ME: &str = "070707070707070707070707";
    const OTHER: &str = "080808080808080808080808";

    fn connect(client_id: &str) -> Identity {
        let peer = PeerIdentity::Anonymous;
        let request = ConnectRequest {
            client_id,
            username: None,
            password: None,
            peer: &peer,
            address: None,
        };
        OwnTopics.connect(&request).unwrap()
    }

    #[test]
    fn a_node_has_its_own_topics_and_no_other() {
        let me = connect(&format!("node-{ME}"));
        for leaf in ["presence", "report", "telemetry", "stream/out"] {
            assert!(OwnTopics.publish(&me, &format!("nodes/{ME}/{leaf}")), "{leaf}");
            assert!(!OwnTopics.publish(&me, &format!("nodes/{OTHER}/{leaf}")), "{leaf}");
            assert!(!OwnTopics.subscribe(&me, &format!("nodes/{ME}/{leaf}")), "{leaf}");
        }
        for leaf in ["desired", "stream/in"] {
            assert!(OwnTopics.subscribe(&me, &format!("nodes/{ME}/{leaf}")), "{leaf}");
            assert!(!OwnTopics.subscribe(&me, &format!("nodes/{OTHER}/{leaf}")), "{leaf}");
            assert!(!OwnTopics.publish(&me, &format!("nodes/{ME}/{leaf}")), "{leaf}");
        }
        for filter in ["#", "nodes/#", "nodes/+/desired", "+/+/desired", "$SYS/x", ""] {
            assert!(!OwnTopics.subscribe(&me, filter), "{filter}");
            assert!(!OwnTopics.publish(&me, filter), "{filter}");
        }
    }

    #[test]
    fn a_tool_looks_and_writes_nothing() {
        for name in ["mosquitto_sub", "", ME, "node-", "tool", "node-0707"] {
            let tool = connect(name);
            for filter in
                ["$SYS/#", "nodes/+/presence", "nodes/+/telemetry", &format!("nodes/{ME}/presence")]
            {
                assert!(OwnTopics.subscribe(&tool, filter), "{filter}");
            }
            for filter in ["#", "nodes/#", "nodes/+/desired", "nodes/+/report", "nodes/+/+"] {
                assert!(!OwnTopics.subscribe(&tool, filter), "{filter}");
            }
            assert!(!OwnTopics.subscribe(&tool, &format!("nodes/{ME}/desired")));
            assert!(!OwnTopics.publish(&tool, &format!("nodes/{ME}/presence")));
            assert!(!OwnTopics.publish(&tool, "$SYS/x"));
        }
    }
}
