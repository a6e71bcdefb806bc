//! What operators do to clusters and nodes: cordon, drain, and so on, at the root or at the
//! cluster itself.
//!
//! Each operation is answered once. One that was answered with "done" is durable where it was
//! done; of one whose answer never came nobody knows.

use super::{ROOT, World};
use crate::network::Actor;
use crate::program::Happening;
use marram_orchestrator_core::Input;
use marram_protocol::id::ChildId;
use marram_protocol::v1::{OperationEnd, OperationId, Verb};
use std::collections::{BTreeMap, BTreeSet};

/// All that can be wanted.
const VERBS: [Verb; 5] = [Verb::Cordon, Verb::Uncordon, Verb::Drain, Verb::Forget, Verb::Rebalance];

/// Operations, and what they have brought about.
#[derive(Debug, Default)]
pub(super) struct Operations {
    last: u64,
    /// Asked for at a tier, not answered yet.
    open: BTreeMap<u64, Asked>,
    /// Children that are cordoned or not, as far as is sure.
    cordoned: BTreeMap<(usize, ChildId), bool>,
    /// Children of which nothing is sure any more.
    unsure: BTreeSet<(usize, ChildId)>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: usize,
    cluster: usize,
    child: ChildId,
    verb: Verb,
}

impl World {
    /// An operator wants something of a child of some tier.
    pub(super) fn operate_on_some_child(&mut self) {
        let actors = self.actors();
        let actor = self.random.pick(&actors);
        let verb = self.random.pick(&VERBS);
        if let Some(cluster) = self.parent_of(actor) {
            let at = if self.random.chance(70) { ROOT } else { cluster };
            self.ask_operation(at, cluster, actor, verb);
        }
    }

    fn ask_operation(&mut self, at: usize, cluster: usize, child: Actor, verb: Verb) {
        if !self.answers(Actor::Tier(at)) {
            return;
        }
        self.note(|w| {
            let (name, tier) = (w.name(child), &w.tiers[at].name);
            format!("operator: {verb:?} {name}, asked for at {tier}")
        });
        let operations = &mut self.operator.operations;
        operations.last += 1;
        let number = operations.last;
        let id = match child {
            Actor::Tier(tier) => self.tiers[tier].id,
            Actor::Node(node) => self.nodes[node].id,
        };
        let asked = Asked { at, cluster, child: id, verb };
        let is_other = operations.open.values().any(|other| other.child == id);
        operations.open.insert(number, asked);
        operations.cordoned.remove(&(cluster, id));
        if is_other {
            // Which of two is done last is not known.
            operations.unsure.insert((cluster, id));
        }
        let input = Input::Operate {
            operation: OperationId(number),
            cluster: self.tiers[cluster].id,
            child: Some(id.to_string()),
            verb,
        };
        self.give(Actor::Tier(at), Happening::Core(Box::new(input)));
    }

    /// A tier has answered.
    pub(super) fn operated(&mut self, operation: OperationId, end: &OperationEnd) {
        self.note(|_| format!("operation {} ends: {end:?}", operation.0));
        let operations = &mut self.operator.operations;
        let asked = operations.open.remove(&operation.0);
        let asked = asked.expect("an operation is answered once");
        let key = (asked.cluster, asked.child);
        match (end, asked.verb) {
            (OperationEnd::Unreachable(_), _) => drop(operations.unsure.insert(key)),
            (OperationEnd::Done, Verb::Cordon | Verb::Drain) => {
                operations.cordoned.insert(key, true);
            }
            (OperationEnd::Done, Verb::Forget) => self.note_forgotten(key.0, key.1),
            (OperationEnd::Done, Verb::Uncordon) => drop(operations.cordoned.insert(key, false)),
            _ => {}
        }
    }

    /// A tier has crashed: what was asked of it is never answered.
    pub(super) fn operations_crashed(&mut self, tier: usize) {
        let operations = &mut self.operator.operations;
        let lost = operations.open.extract_if(.., |_, asked| asked.at == tier);
        for (_, asked) in lost {
            operations.unsure.insert((asked.cluster, asked.child));
        }
    }

    /// A tier has started: what it has said to be done is done.
    pub(super) fn check_operations(&self, tier: usize) {
        let core = self.tiers[tier].core.as_ref().expect("it has just started");
        let operations = &self.operator.operations;
        for ((cluster, child), cordoned) in &operations.cordoned {
            if *cluster == tier && !operations.unsure.contains(&(*cluster, *child)) {
                let known = core.children().get(child).is_some_and(|c| c.is_cordoned());
                let name = &self.tiers[tier].name;
                assert_eq!(known, *cordoned, "{name} forgets that {child} is cordoned or not");
            }
        }
    }

    /// Asks for an end of all that operators wanted of children. False once there is none.
    pub(super) fn uncordon_all(&mut self) -> bool {
        if !self.operator.operations.open.is_empty() {
            return true;
        }
        let mut found = Vec::new();
        for (cluster, tier) in self.tiers.iter().enumerate() {
            let children = tier.core.iter().flat_map(|core| core.children().values());
            let cordoned = children.filter(|child| child.is_cordoned() || child.is_draining());
            found.extend(cordoned.filter_map(|c| Some((cluster, *self.by_id.get(&c.id())?))));
        }
        for (cluster, child) in &found {
            self.ask_operation(ROOT, *cluster, *child, Verb::Uncordon);
        }
        !found.is_empty()
    }
}
