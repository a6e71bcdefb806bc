//! What operators do to the root, and what they may count on afterwards.
//!
//! A wish counts once the root has acknowledged it, which it does when everything that follows
//! from it is performed. One that a crash cut short may have come true or not; the operator
//! looks, and goes on from there.

use super::operations::Operations;
use super::wishes::Where;
use super::{ROOT, World};
use crate::network::Actor;
use crate::program::Happening;
use marram_orchestrator_core::Input;
use marram_protocol::id::{InstanceId, ServiceId};
use marram_protocol::v1::Workload;
use std::collections::{BTreeMap, BTreeSet};

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
    /// Where everything that was ever asked for may be.
    pub(super) places: BTreeMap<InstanceId, Where>,
    /// What must never run twice.
    pub(super) fenced: BTreeSet<InstanceId>,
    /// What is stopped before it is moved.
    pub(super) stop_first: BTreeSet<InstanceId>,
    pub(super) operations: Operations,
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

    /// Whether an instance may not be everywhere: there may be no room for it where it may.
    pub(super) fn is_bound(&self, instance: &InstanceId) -> bool {
        self.places.get(instance).is_some_and(|place| *place != Where::Anywhere)
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
        let doubtful = self.operator.pending.len() + self.operator.doubtful.len();
        let wanted = self.operator.wanted.len() + doubtful;
        let full = wanted >= self.operator.instances_max;
        if self.params.operations > 0 && self.random.chance(25) {
            self.operate_on_some_child();
        } else if self.random.chance(10) {
            self.scale(self.operator.instances_max.saturating_sub(wanted));
        } else if self.operator.wanted.is_empty() || (!full && self.random.chance(65)) {
            self.deploy_one();
        } else if !self.operator.wanted.is_empty() {
            let index = self.random.index(self.operator.wanted.len());
            let instance = self.operator.wanted.iter().nth(index).copied();
            self.remove(instance.expect("the index is below the length"));
        }
    }

    fn next_workload(&mut self) -> Workload {
        let number = self.operator.next_number;
        self.operator.next_number += 1;
        let instance = InstanceId { service: ServiceId([9; 12]), number };
        self.operator.pending.push(Wish::Deploy(instance));
        self.draw_workload(instance)
    }

    fn deploy_one(&mut self) {
        let workload = self.next_workload();
        self.give(Actor::Tier(ROOT), Happening::Core(Box::new(Input::Deploy(workload))));
    }

    /// Some more and some less at once.
    fn scale(&mut self, room: usize) {
        let more = self.random.index(room.min(4) + 1);
        let upserts: Vec<Workload> = (0..more).map(|_| self.next_workload()).collect();
        let less = self.random.index(self.operator.wanted.len().min(3) + 1);
        let removes: Vec<InstanceId> = self.operator.wanted.iter().take(less).copied().collect();
        self.note(|_| format!("operator: {more} more, and without {removes:?}"));
        for instance in &removes {
            self.operator.wanted.remove(instance);
            self.operator.pending.push(Wish::Remove(*instance));
        }
        let input = Input::Apply { upserts, removes };
        self.give(Actor::Tier(ROOT), Happening::Core(Box::new(input)));
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
        self.check_operations(tier);
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
