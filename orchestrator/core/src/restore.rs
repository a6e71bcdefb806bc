//! A tier from what it has persisted: who its children are, what is desired and where it was
//! placed. How things are is heard again from the children.
//!
//! Invariant: it decides as one that was never restarted would, once its children have told.

use crate::child::Child;
use crate::instance::Instance;
use crate::movement::Leaving;
use crate::records::{self, ChildRecord, InstanceRecord, Key, Record};
use crate::tier::{Tier, scheduled};
use crate::{Identity, Now, RecordError};
use marram_protocol::desired::Desired;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::Generation;

/// Detail of what was handed back in an earlier life.
const HANDED_BACK: &str = "found no place here before the last start";

impl Tier {
    /// A tier from what it has persisted; `new_epoch` is used if that is nothing.
    pub fn restore(
        identity: Identity,
        is_root: bool,
        new_epoch: u64,
        records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
        now: Now,
    ) -> Result<Self, RecordError> {
        let mut tier = Self::new(identity, is_root, new_epoch);
        tier.losses.start(now);
        let mut generation = Generation::default();
        for (key, value) in records {
            match records::decode(&key, &value)? {
                (_, Record::Epoch(epoch)) => {
                    tier.epoch = epoch;
                    tier.effects.clear();
                }
                (_, Record::Parent(held)) => generation = held,
                (_, Record::Kin(kin)) => tier.above.kin = *kin,
                (_, Record::Tier(record)) => {
                    (tier.cordoned, tier.first_number) = (record.cordoned, record.first_number);
                    tier.released = record.released;
                }
                (Key::Child(id), Record::Child(record)) => tier.restore_child(id, record, now),
                (Key::Instance(id), Record::Instance(record)) => {
                    tier.restore_instance(id, *record, now);
                }
                (
                    Key::Epoch
                    | Key::Tier
                    | Key::Parent
                    | Key::Kin
                    | Key::Child(_)
                    | Key::Instance(_),
                    _,
                ) => return Err(RecordError::Key(key)),
            }
        }
        tier.link_restored(generation, now);
        Ok(tier)
    }

    fn restore_child(&mut self, id: ChildId, record: ChildRecord, now: Now) {
        let mut child = Child::new(id, record.name, record.kind);
        child.number = record.number;
        child.cordoned = record.cordoned;
        child.draining = record.draining;
        child.guest = record.guest;
        child.silent_since_ms = Some(now.mono_ms);
        child.site = record.site;
        if child.draining {
            self.movements.note_drain(id, now);
        }
        self.children.insert(id, child);
    }

    fn restore_instance(&mut self, id: InstanceId, record: InstanceRecord, now: Now) {
        let mut instance = Instance::new(record.workload, now);
        instance.placed = record.placed;
        instance.removing = record.removing;
        instance.handed_back = record.handed_back;
        instance.decisions = record.decisions;
        instance.stopping = record.stopping;
        instance.claimed = record.claimed;
        instance.leaving =
            record.leaving.map(|from| Leaving { from, told: 0, status: instance.status.clone() });
        if record.stopping || (record.leaving.is_some() && !record.claimed) {
            self.movements.note_move(id, now);
        }
        match (record.placed, record.handed_back) {
            (Some(_), _) => {}
            (None, false) => instance.retry_at_ms = Some(now.mono_ms),
            (None, true) => instance.set_state(InstanceState::Refused, HANDED_BACK, now),
        }
        self.instances.insert(id, instance);
    }

    /// Records come in any order; what refers to others is put together at the end.
    fn link_restored(&mut self, generation: Generation, now: Now) {
        let ids: Vec<InstanceId> = self.instances.keys().copied().collect();
        for id in ids {
            let Some(instance) = self.instances.get_mut(&id) else { continue };
            let from = instance.leaving().and_then(|child| self.children.get_mut(&child));
            if let (Some(child), Some(leaving)) = (from, &mut instance.leaving) {
                leaving.status.state = scheduled(child.kind);
                leaving.told = child.number;
                child.hold_leaving(instance);
            } else {
                instance.leaving = None;
            }
            let child = instance.placed.and_then(|child| self.children.get_mut(&child));
            match child {
                Some(child) => {
                    instance.status.state = scheduled(child.kind);
                    instance.told = child.number;
                    child.hold(instance);
                }
                None if instance.placed.is_some() => {
                    // Not reached with records of one tier: with a child that is forgotten all
                    // that was placed there gets another record in the same write.
                    instance.placed = None;
                    instance.retry_at_ms = Some(now.mono_ms);
                }
                None => {}
            }
            self.note_ties(id);
        }
        self.children.keys().copied().collect::<Vec<_>>().into_iter().for_each(|c| self.watch(c));
        if let Some(desired) = &mut self.desired {
            let wanted = self.instances.values().filter(|i| !i.removing);
            *desired = Desired::restore(generation, wanted.map(|i| i.workload.clone()).collect());
        }
    }
}
