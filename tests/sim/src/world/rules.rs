//! What must hold always, and what must come true in peace.

use super::{ROOT, World};
use marram_protocol::id::InstanceId;
use marram_protocol::state::InstanceState;
use marram_protocol::v1::Resources;
use std::collections::{BTreeMap, BTreeSet};

/// Within this virtual time of peace everything that is desired runs.
const CONVERGE_MS: u64 = 1_800_000;

impl World {
    /// What must hold after every step.
    pub fn check(&self) {
        let mut places: BTreeMap<InstanceId, u32> = BTreeMap::new();
        for machine in self.machines.values() {
            let used = machine.used_mib();
            assert!(used <= machine.memory_mib, "node {:?} is overbooked: {used}", machine.id);
            machine.running().for_each(|id| *places.entry(id).or_default() += 1);
        }
        for (instance, count) in places {
            assert!(count <= 1, "{instance} runs {count} times");
        }
        for tier in self.tiers.values().filter_map(|o| o.tier.as_ref()) {
            for child in tier.children().values() {
                let held = tier
                    .instances()
                    .values()
                    .filter(|i| i.placed() == Some(child.id()) && !i.last_status().state.is_over())
                    .fold(Resources::default(), |sum, i| sum.plus(i.workload().spec.resources));
                assert_eq!(held, child.reserved(), "books of {}", child.name());
            }
        }
    }

    /// Peace: everything comes up, nothing fails any more, and what is desired must run.
    pub fn heal(&mut self) {
        self.peace = true;
        self.note(|| "peace".into());
        self.boot_all();
        let deadline = self.now_ms + CONVERGE_MS;
        while !self.is_converged() {
            assert!(self.now_ms < deadline, "not converged: {}", self.difference());
            self.advance();
            self.check();
        }
    }

    fn is_converged(&self) -> bool {
        let Some(root) = &self.tiers[&ROOT].tier else { return false };
        let running: BTreeSet<InstanceId> =
            self.machines.values().flat_map(|machine| machine.running()).collect();
        let told = |id: &InstanceId| {
            root.status(*id).is_some_and(|status| status.state == InstanceState::Running)
        };
        running == self.wanted
            && root.instances().keys().eq(self.wanted.iter())
            && self.wanted.iter().all(told)
    }

    fn difference(&self) -> String {
        let root = self.tiers[&ROOT].tier.as_ref();
        let status = |id: &InstanceId| root.and_then(|r| r.status(*id));
        let wanted: Vec<_> = self.wanted.iter().map(|id| (id, status(id))).collect();
        let known = root.map(|r| r.instances().keys().copied().collect::<Vec<_>>());
        format!("wanted {wanted:#?}, known at the root {known:?}")
    }
}
