//! What operators do to the root, and what they may count on afterwards.
//!
//! A wish counts once the root has acknowledged it, which it does when everything that follows
//! from it is performed. One that a crash cut short may have come true or not; the operator
//! looks, and goes on from there.

use super::{ROOT, World};
use crate::network::Actor;
use crate::program::Happening;
use marram_orchestrator_core::Input;
use marram_protocol::id::{InstanceId, ServiceId};
use marram_protocol::v1::{Patience, Resources, ServiceSpec, Workload};
use std::collections::{BTreeMap, BTreeSet};

/// Least and most memory of an instance. Two of them at most fill a node, so as many as there
/// are nodes fit in whatever order they come.
const MEMORY_MIB: (u64, u64) = (50, 350);

/// Operators, and what they know.
#[derive(Debug, Default)]
pub(super) struct Operator {
    pub(super) instances_max: usize,
    next_number: u32,
    /// Acknowledged, and not to be removed.
    pub(super) wanted: BTreeSet<InstanceId>,
    /// Asked for, not yet acknowledged.
    pending: Vec<Wish>,
    /// The root crashed over these.
    doubtful: Vec<Wish>,
    /// Patience of everything that was ever asked for.
    pub(super) patience: BTreeMap<InstanceId, Patience>,
}

#[derive(Debug, Clone, Copy)]
enum Wish {
    Deploy(InstanceId),
    Remove(InstanceId),
}

impl Operator {
    /// Whether an instance may be there by somebody's wish.
    pub(super) fn is_wished(&self, instance: &InstanceId) -> bool {
        let is_it = |wish: &Wish| match wish {
            Wish::Deploy(id) | Wish::Remove(id) => id == instance,
        };
        let mut open = self.pending.iter().chain(&self.doubtful);
        self.wanted.contains(instance) || open.any(is_it)
    }

    /// A tier has crashed.
    pub(super) fn crashed(&mut self, tier: usize) {
        if tier == ROOT {
            self.doubtful.append(&mut self.pending);
        }
    }

    /// The root has nothing left to do.
    pub(super) fn acknowledged(&mut self) {
        for wish in std::mem::take(&mut self.pending) {
            if let Wish::Deploy(instance) = wish {
                self.wanted.insert(instance);
            }
        }
    }
}

impl World {
    /// The next wish.
    pub(super) fn operate(&mut self) {
        if !self.answers(Actor::Tier(ROOT)) {
            return;
        }
        let wanted = self.operator.wanted.len() + self.operator.pending.len();
        let full = wanted + self.operator.doubtful.len() >= self.operator.instances_max;
        if self.operator.wanted.is_empty() || (!full && self.random.chance(65)) {
            self.deploy_one();
        } else if !self.operator.wanted.is_empty() {
            let index = self.random.index(self.operator.wanted.len());
            let instance = self.operator.wanted.iter().nth(index).copied();
            self.remove(instance.expect("the index is below the length"));
        }
    }

    fn deploy_one(&mut self) {
        let instance =
            InstanceId { service: ServiceId([9; 12]), number: self.operator.next_number };
        self.operator.next_number += 1;
        let memory_mib = self.random.between(MEMORY_MIB.0, MEMORY_MIB.1);
        let memory_mib = u32::try_from(memory_mib).unwrap_or(0);
        let patience = self.draw_patience();
        self.operator.patience.insert(instance, patience);
        self.note(|_| format!("operator: deploy {instance}, {memory_mib} MiB, {patience:?}"));
        self.operator.pending.push(Wish::Deploy(instance));
        let spec = ServiceSpec {
            virtualization: "container".into(),
            image: "docker.io/library/nginx:latest".into(),
            resources: Resources { memory_mib, ..Resources::default() },
            patience,
            ..ServiceSpec::default()
        };
        let name = format!("sim.sim.sim.{}", instance.number);
        let workload = Workload { instance, revision: 1, name, spec };
        self.give(Actor::Tier(ROOT), Happening::Core(Box::new(Input::Deploy(workload))));
    }

    fn draw_patience(&mut self) -> Patience {
        let seconds = |random: &mut crate::Random, wait: u64| {
            (!random.chance(wait)).then(|| u32::try_from(random.between(5, 120)).unwrap_or(5))
        };
        let node_s = seconds(&mut self.random, 20);
        Patience { node_s, cluster_s: seconds(&mut self.random, 20), parent_s: None }
    }

    /// An operator wants an instance gone.
    pub(super) fn remove(&mut self, instance: InstanceId) {
        self.note(|_| format!("operator: remove {instance}"));
        self.operator.wanted.remove(&instance);
        self.operator.pending.push(Wish::Remove(instance));
        self.give(Actor::Tier(ROOT), Happening::Core(Box::new(Input::Remove(instance))));
    }

    /// Wants so many instances at once: for worlds in which only time and size matter.
    pub fn deploy(&mut self, count: usize) {
        self.operator.instances_max = self.operator.instances_max.max(count);
        for _ in 0..count {
            self.deploy_one();
        }
    }

    /// The root has started: what became of what it crashed over is seen, and nothing that it
    /// has acknowledged may be missing.
    pub(super) fn settled_by_restart(&mut self, tier: usize) {
        self.note_placements(tier);
        if tier != ROOT {
            return;
        }
        let core = self.tiers[ROOT].core.as_ref().expect("it has just started");
        let has = |id: &InstanceId| core.instances().get(id).is_some_and(|i| !i.is_removing());
        for wish in std::mem::take(&mut self.operator.doubtful) {
            match wish {
                Wish::Deploy(id) | Wish::Remove(id) if has(&id) => {
                    self.operator.wanted.insert(id);
                }
                Wish::Deploy(_) | Wish::Remove(_) => {}
            }
        }
        let lost: Vec<_> = self.operator.wanted.iter().filter(|id| !has(id)).collect();
        assert!(lost.is_empty(), "acknowledged and forgotten: {lost:?}");
    }
}
