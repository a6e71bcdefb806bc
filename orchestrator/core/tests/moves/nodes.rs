//! The nodes of the world: they follow what they are told, and say so.

use super::*;

impl World {
    pub(super) fn greet(&mut self, child: ChildId, preferred: Option<ChildId>) {
        let capacity = Resources { memory_mib: 40, ..Resources::default() };
        let node = &self.nodes[&child];
        let hello = Up::Hello(Hello {
            child,
            kind: ChildKind::Node,
            name: char::from(child.0[0]).to_string(),
            version: "0".into(),
            incarnation: 1,
            generation: node.desired.generation(),
            summary: Summary {
                nodes: 1,
                capacity,
                largest_free: capacity,
                virtualizations: vec!["container".into()],
                ..Summary::default()
            },
            facts: Vec::new(),
            tree: node.tree,
            preferred,
            address: String::new(),
            node_address: String::new(),
            labels: Vec::new(),
        });
        let snapshot = self.snapshot(child);
        let link = self.links.get_mut(&child).unwrap();
        link.up.push_back(hello);
        link.up.extend(snapshot);
    }

    pub(super) fn snapshot(&self, child: ChildId) -> Vec<Up> {
        let desired = &self.nodes[&child].desired;
        let statuses: Vec<InstanceStatus> =
            desired.workloads().keys().map(|id| status(*id, InstanceState::Running)).collect();
        Up::snapshot(desired.generation(), &statuses, 100)
    }

    pub(super) fn node_hears(&mut self, child: ChildId, message: Down) {
        let node = self.nodes.get_mut(&child).unwrap();
        if let Down::Kin(kin) = &message {
            node.tree = kin.tree;
        }
        match node.desired.receive(message) {
            Step::Ignored => {}
            Step::Ask(question) => self.links.get_mut(&child).unwrap().up.push_back(*question),
            Step::TooMany(count) => panic!("{count} instances on one node"),
            Step::Applied { changed, whole } => {
                let wanted = node.desired.workloads().clone();
                let generation = node.desired.generation();
                let mut statuses = Vec::new();
                for id in changed {
                    let runs = wanted.contains_key(&id);
                    self.happens(child, id, runs);
                    let state =
                        if runs { InstanceState::Running } else { InstanceState::Undeployed };
                    statuses.push(status(id, state));
                }
                let told = match whole {
                    true => self.snapshot(child),
                    false => vec![Up::Observed { generation, scope: Scope::Change, statuses }],
                };
                self.links.get_mut(&child).unwrap().up.extend(told);
            }
        }
    }

    /// An instance starts or stops on a node.
    pub(super) fn happens(&mut self, node: ChildId, id: InstanceId, runs: bool) {
        let at = char::from(node.0[0]);
        self.note(format!("{} {} on {at}", id.number, if runs { "starts" } else { "stops" }));
        if runs {
            let before = self.started.insert(id, node);
            let removed = self.removed.contains(&id);
            assert!(before.is_none() || removed, "{} runs on {at} too", id.number);
        } else if self.started.get(&id) == Some(&node) {
            assert!(self.removed.contains(&id), "{} was stopped on {at}", id.number);
        }
    }
}

fn status(id: InstanceId, state: InstanceState) -> InstanceStatus {
    InstanceStatus { revision: 1, ..InstanceStatus::bare(id, state, 0) }
}
