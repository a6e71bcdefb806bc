//! From which state an instance may go to which, as the drawing in `protocol::state` has it.
//!
//! What is told leaves out what passed in between, and after a break everything is told anew;
//! so these are ways, not steps. Clearing away what is over may fail, and is told as such. A
//! backend that lies brings anything about, so what its node says is not judged.

use super::World;
use marram_protocol::id::InstanceId;
use marram_protocol::state::InstanceState::{self, *};
use marram_protocol::v1::InstanceStatus;

/// What a node may tell of an instance after what it has told before, in one life.
const ON_A_NODE: &[(InstanceState, &[InstanceState])] = &[
    (NodeScheduled, &[Creating, Failed, Refused, Undeployed, Unknown]),
    (Creating, &[Created, Running, Failed, Refused, Undeployed, NodeScheduled, Unknown]),
    (Created, &[Running, Failed, Undeployed, NodeScheduled, Creating, Refused, Unknown]),
    (Running, &[Failed, Completed, Dead, Undeployed, NodeScheduled, Creating, Unknown]),
    (Failed, &[Creating, Created, Running, Dead, Refused, Undeployed, NodeScheduled, Unknown]),
    (
        Unknown,
        &[Running, Created, Failed, Completed, Dead, Undeployed, NodeScheduled, Creating, Refused],
    ),
    (Refused, &[NodeScheduled, Creating, Undeployed, Failed]),
    (Completed, &[NodeScheduled, Creating, Undeployed, Failed]),
    (Dead, &[NodeScheduled, Creating, Undeployed, Failed]),
    (Undeployed, &[NodeScheduled, Creating, Refused]),
];

/// What watchers of a tier may see of an instance after what they have seen before.
const AT_A_TIER: &[(InstanceState, &[InstanceState])] = &[
    (Requested, &[ClusterScheduled, NodeScheduled, Unplaceable, Refused, Unknown]),
    (Completed, &[ClusterScheduled, NodeScheduled, Unknown]),
    (Dead, &[ClusterScheduled, NodeScheduled, Unknown]),
];

impl World {
    pub(super) fn check_node_state(&mut self, node: usize, status: &InstanceStatus) {
        let own = &mut self.nodes[node];
        if own.backend.has_lied {
            return;
        }
        let before = match status.state {
            Undeployed => own.told.remove(&status.instance),
            state => own.told.insert(status.instance, state),
        };
        let Some(before) = before.filter(|before| *before != status.state) else { return };
        let allowed = ON_A_NODE.iter().find(|(from, _)| *from == before);
        let is_allowed = allowed.is_some_and(|(_, to)| to.contains(&status.state));
        assert!(is_allowed, "{}: {before:?} to {status:?}", own.name);
    }

    /// A tier says that an instance is other than before.
    pub(super) fn check_change(&mut self, tier: usize, instance: InstanceId) {
        let own = &mut self.tiers[tier];
        let status = own.core.as_ref().and_then(|core| core.status(instance));
        let Some(status) = status else {
            own.told.remove(&instance);
            return;
        };
        let state = status.state;
        let Some(before) = own.told.insert(instance, state).filter(|b| *b != state) else { return };
        if let Some((_, to)) = AT_A_TIER.iter().find(|(from, _)| *from == before) {
            assert!(to.contains(&state), "{}: {instance} from {before:?} to {status:?}", own.name);
        }
        let name = own.name.clone();
        self.note(|_| format!("{name}: {instance} is {} {}", state.name(), status.detail));
    }
}
