//! Grants: instances placed where a copy of them has come to, until that is confirmed.

use super::LEFT_AGAIN;
use super::judge::{Strength, is_scheduled, is_silent, strength};
use crate::Now;
use crate::child::Link;
use crate::instance::Instance;
use crate::movement::Leaving;
use crate::records::Key;
use crate::tier::{Tier, scheduled};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::Generation;
use std::collections::BTreeSet;

impl Tier {
    /// The parent is told that the instance cannot be run here.
    pub(super) fn hand_back(&mut self, id: InstanceId, why: &str, now: Now) {
        self.account(id, |instance| {
            instance.handed_back = true;
            instance.retry_at_ms = None;
            instance.set_state(InstanceState::Refused, why, now);
        });
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
    }

    pub(super) fn grant(&mut self, id: InstanceId, to: ChildId, moves: bool, now: Now) {
        let before = self.instances.get(&id).and_then(|instance| instance.placed);
        self.account(id, |instance| {
            instance.tried.remove(&to);
            instance.found();
            let from = instance.placed.take().filter(|_| moves);
            // One that has not confirmed it never had it.
            if instance.leaving.is_none() {
                let (told, status) = (instance.told, instance.status.clone());
                instance.leaving = from.map(|from| Leaving { from, told, status });
            }
        });
        self.place_on(id, to, now);
        self.account(id, |instance| instance.claimed = true);
        // Told again, it has to say again how it is: what is on its way from it is out of date.
        if let Some(before) = before {
            self.notes.retold.entry(before).or_default().insert(id);
        }
    }

    /// It is placed where it was claimed; what was heard of it before says nothing of now.
    pub(super) fn note_unconfirmed(&mut self, id: InstanceId, by: ChildId, now: Now) {
        let Some(child) = self.children.get(&by) else { return };
        // What one says that follows this tier is known already.
        let follows_other = |link: &Link| link.held.epoch != self.epoch;
        if !child.link.as_ref().is_some_and(|link| link.is_adopting() && follows_other(link)) {
            return;
        }
        let state = scheduled(child.kind);
        self.account(id, |instance| match &mut instance.leaving {
            Some(leaving) if leaving.from == by => leaving.status.state = state,
            _ => instance.set_state(state, "it has come back and follows another parent yet", now),
        });
        self.notes.changed.insert(id);
    }

    /// The child has said something of an instance. If that was claimed, it has confirmed that
    /// it has it, in whatever state: it says so under a list that came after the claim.
    pub(crate) fn note_confirmed(&mut self, id: InstanceId) -> bool {
        let Some(instance) = self.instances.get_mut(&id).filter(|i| i.claimed) else {
            return false;
        };
        let state = instance.status.state;
        if strength(state) < Strength::Held || is_scheduled(state) {
            return false;
        }
        instance.claimed = false;
        self.notes.dirty.insert(Key::Instance(id));
        true
    }

    /// A child greets again: what it was granted and has not heard of, it does not run by this
    /// tier's word.
    pub(crate) fn drop_unheard_grants(&mut self, by: ChildId, held: Generation, now: Now) {
        if held.epoch == self.epoch {
            self.ungrant_unheard(by, held, &BTreeSet::new(), now);
        }
    }

    /// Takes back what the child was granted and has not heard of, but for what it runs.
    pub(super) fn ungrant_unheard(
        &mut self,
        by: ChildId,
        held: Generation,
        runs: &BTreeSet<InstanceId>,
        now: Now,
    ) {
        let Some(child) = self.children.get(&by) else { return };
        let heard = |i: &Instance| held.epoch == self.epoch && i.told <= held.number;
        let granted = child.placed.iter().filter_map(|id| self.instances.get(id));
        let granted = granted.filter(|i| i.claimed && !heard(i)).map(|i| i.workload.instance);
        for id in granted.filter(|id| !runs.contains(id)).collect::<Vec<_>>() {
            self.ungrant(id, by, LEFT_AGAIN, now);
        }
    }

    /// The child does not have what it was granted. It is not started anywhere else: who runs
    /// it is somewhere, and claims it there.
    pub(crate) fn ungrant(&mut self, id: InstanceId, by: ChildId, why: &str, now: Now) {
        if self.instances.get(&id).is_some_and(Instance::is_removing) {
            // Whoever runs it claims it, and nobody wants it there any more.
            return self.ended_on(id, by, now);
        }
        let up = self.reporting.is_up();
        if self.abort_move(id, why, now) || !(up || self.is_root()) {
            return;
        }
        self.account(id, |instance| {
            instance.placed = None;
            instance.claimed = false;
        });
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.retold.entry(by).or_default().insert(id);
        match up {
            true => self.hand_back(id, why, now),
            false => self.place(id, now),
        }
    }

    /// Where an instance leaves it runs, and where it was moved to nobody hears of it: it stays.
    pub(crate) fn prefer_old(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.instances.get(&id) else { return };
        let Some(leaving) = instance.leaving.as_ref().filter(|_| instance.claimed) else { return };
        let heard = self.children.get(&leaving.from).filter(|c| c.silent_since_ms.is_none());
        let runs = heard.is_some() && leaving.status.state == InstanceState::Running;
        let holder = instance.placed.and_then(|child| self.children.get(&child));
        let lost = strength(instance.status.state) == Strength::Lost;
        if runs && (lost || holder.is_none_or(is_silent)) {
            self.abort_move(id, "nobody hears of it where it was moved to", now);
        }
    }

    /// What is known of a child is other than before, for all that is moved there or away.
    pub(crate) fn prefer_old_on(&mut self, id: ChildId, now: Now) {
        let Some(child) = self.children.get(&id) else { return };
        let is_moved = |id: &&InstanceId| self.instances.get(id).is_some_and(|i| i.claimed);
        let moved: Vec<InstanceId> =
            child.leaving.union(&child.placed).filter(is_moved).copied().collect();
        moved.into_iter().for_each(|instance| self.prefer_old(instance, now));
    }
}
