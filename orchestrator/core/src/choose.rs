//! Finds a child for an instance, and says why none was found.

mod better;
mod near;
mod room;
mod why;
mod wish;

use crate::Now;
use crate::child::Child;
use crate::decisions::Verdict;
use crate::instance::{Instance, TRIED_MAX};
use crate::records::Key;
use crate::tier::{Tier, scheduled};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::ChildKind;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use wish::Judged;

/// First and longest wait before an instance without a place is tried again, doubling.
/// Whatever could change that is heard of at once; this is for what is not.
const RETRY_FIRST_MS: u64 = 5_000;
const RETRY_MAX_MS: u64 = 300_000;

/// Explanations that are written anew whenever a child changes: the first so many that wait.
/// The others' are as old as their last retry.
const EXPLAINED_MAX: usize = 100;

/// Retries at once: each looks at every child, and other inputs wait meanwhile.
const RETRIES_MAX: usize = 64;

/// A child that was chosen, and among how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    child: ChildId,
    candidates: usize,
    of: usize,
    policy: &'static str,
}

impl Tier {
    /// Looks for places, on children that can do more than before, for all that wait for one.
    /// On other children nothing has changed since they were looked at.
    pub(crate) fn place_waiting(&mut self, children: &BTreeSet<ChildId>, now: Now) {
        let waiting = self.by_importance(Instance::seeks);
        for (index, id) in waiting.into_iter().enumerate() {
            let Some(instance) = self.instances.get(&id) else { continue };
            let changed = children.iter().filter_map(|child| self.children.get(child));
            match self.weigh(instance, changed) {
                Some(choice) => self.place_chosen(id, choice, now),
                None if index < EXPLAINED_MAX => {
                    let why = self.why_nowhere(id);
                    if instance_is_lost(self, id) {
                        self.stay_lost(id, &why);
                    } else if self.instances.get(&id).is_some_and(|i| i.status.detail != why) {
                        self.set_state(id, InstanceState::Unplaceable, &why, now);
                    }
                }
                None => {}
            }
        }
    }

    /// Tries again what has waited long enough, whoever refused it before.
    pub(crate) fn retry_due(&mut self, now: Now) {
        let is_due = |i: &Instance| i.retry_at_ms.is_some_and(|at| at <= now.mono_ms);
        for id in self.by_importance(is_due).into_iter().take(RETRIES_MAX) {
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.tried.clear();
            }
            self.place(id, now);
        }
    }

    /// Those of which this is true, the most important first.
    fn by_importance(&self, is: impl Fn(&Instance) -> bool) -> Vec<InstanceId> {
        let all = self.instances.iter().filter(|(_, instance)| is(instance));
        let priority = |instance: &Instance| instance.workload.spec.placement.priority;
        let mut all: Vec<(Reverse<i32>, InstanceId)> =
            all.map(|(id, instance)| (Reverse(priority(instance)), *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// The parent is there: what found no place here is the parent's to decide.
    pub(crate) fn hand_back_waiting(&mut self, now: Now) {
        let waits = |(id, i): (&InstanceId, &Instance)| i.waits().then_some(*id);
        for id in self.instances.iter().filter_map(waits).collect::<Vec<_>>() {
            self.unplaceable(id, now);
        }
    }

    /// Chooses a child and tells it, or says why not.
    pub(crate) fn place(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.instances.get(&id) else { return };
        if (instance.placed.is_some() && instance.lost.is_none()) || instance.removing {
            return;
        }
        match self.weigh(instance, self.children.values()) {
            Some(choice) => self.place_chosen(id, choice, now),
            None => self.unplaceable(id, now),
        }
    }

    fn place_chosen(&mut self, id: InstanceId, choice: Choice, now: Now) {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let placed = Verdict::Placed {
            on: self.name_of(choice.child),
            candidates: count(choice.candidates),
            of: count(choice.of),
            policy: choice.policy.to_owned(),
        };
        self.decide(id, placed, now);
        self.place_on(id, choice.child, now);
    }

    /// A child's name; its id if it is known no more.
    pub(crate) fn name_of(&self, id: ChildId) -> String {
        self.children.get(&id).map_or_else(|| id.to_string(), |child| child.name.clone())
    }

    pub(crate) fn place_on(&mut self, id: InstanceId, child: ChildId, now: Now) {
        let kind = self.children.get(&child).map_or(ChildKind::Node, |c| c.kind);
        let why = self.leave_lost(id);
        if !why.is_empty() {
            self.decide(id, Verdict::Other(why.clone()), now);
        }
        self.break_promise(id);
        self.account(id, |instance| {
            instance.placed = Some(child);
            instance.claimed = false;
            instance.handed_back = false;
            instance.stays = None;
            instance.retry_at_ms = None;
            instance.set_state(scheduled(kind), &why, now);
        });
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
        self.notes.retold.entry(child).or_default().insert(id);
        self.wake_followers(id, child);
    }

    /// Others may wait to be where this one is now.
    fn wake_followers(&mut self, id: InstanceId, child: ChildId) {
        let Some(instance) = self.instances.get(&id) else { return };
        if self.followers.to(&instance.workload).next().is_some() {
            self.notes.wake.insert(child);
        }
    }

    /// A child cannot run it: the next one.
    pub(crate) fn refused(&mut self, id: InstanceId, by: ChildId, reason: &str, now: Now) {
        let refused = Verdict::Refused { by: self.name_of(by), reason: reason.to_owned() };
        self.decide(id, refused, now);
        if self.instances.get(&id).is_some_and(|i| i.claimed) {
            return self.ungrant(id, by, reason, now);
        }
        self.account(id, |instance| {
            instance.placed = None;
            instance.lost = None;
            instance.note_refusal(by, reason);
        });
        self.fall_back(id);
        self.notes.wake.insert(by);
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.retold.entry(by).or_default().insert(id);
        self.place(id, now);
    }

    /// The child that an instance would be given to.
    pub(crate) fn choose<'a>(
        &'a self,
        instance: &'a Instance,
        among: impl Iterator<Item = &'a Child>,
    ) -> Option<ChildId> {
        self.weigh(instance, among).map(|choice| choice.child)
    }

    fn weigh<'a>(
        &'a self,
        instance: &'a Instance,
        among: impl Iterator<Item = &'a Child>,
    ) -> Option<Choice> {
        if instance.tried.len() >= TRIED_MAX {
            return None;
        }
        let id = instance.workload.instance;
        let wish = self.wish(instance);
        let mut judged = Judged::default();
        let (mut best, mut has_it) = (None, None);
        let (mut candidates, mut of) = (0, 0);
        for child in among {
            of += 1;
            // What runs there already, from before this tier lost its books, stays there: it
            // has its room.
            if child.strays.contains(&id) && !instance.tried.contains_key(&child.id) {
                has_it.get_or_insert(child.id);
            }
            let Ok(candidate) = wish.judge(child, &mut judged) else { continue };
            candidates += 1;
            let rank = marram_placement::rank(wish.policy, &wish.demand, &candidate);
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, child.id));
            }
        }
        let child = has_it.or_else(|| best.map(|(_, child)| child))?;
        Some(Choice { child, candidates, of, policy: wish.policy.name() })
    }

    /// A root waits and tries again; a cluster hands the instance back to its parent, and
    /// waits only while there is no parent to hand it to.
    fn unplaceable(&mut self, id: InstanceId, now: Now) {
        let is_lost = instance_is_lost(self, id);
        let handed_back = self.reporting.is_up() && !is_lost;
        let why = self.why_nowhere(id);
        if self.abort_move(id, &why, now) {
            return;
        }
        let room = self.make_room(id, now);
        if room.is_none() && self.hand_to_cluster(id, now) {
            return;
        }
        let handed_back = handed_back && room.is_none();
        let state = if handed_back { InstanceState::Refused } else { InstanceState::Unplaceable };
        if room.is_none() {
            self.decide(id, Verdict::Nowhere { reason: why.clone(), handed_back }, now);
        }
        let why = room.unwrap_or(why);
        let known = self.instances.get(&id).is_some_and(|i| i.handed_back == handed_back);
        if !known {
            self.notes.dirty.insert(Key::Instance(id));
        }
        self.account(id, |instance| {
            instance.handed_back = handed_back;
            let wait =
                RETRY_FIRST_MS.saturating_mul(1 << instance.retries.min(6)).min(RETRY_MAX_MS);
            instance.retries = instance.retries.saturating_add(1);
            instance.retry_at_ms = (!handed_back).then_some(now.mono_ms.saturating_add(wait));
            if !is_lost {
                instance.set_state(state, &why, now);
            }
        });
        if is_lost {
            return self.stay_lost(id, &why);
        }
        self.notes.changed.insert(id);
    }
}

/// Whether it has a place, and looks for another since that one is lost.
fn instance_is_lost(tier: &Tier, id: InstanceId) -> bool {
    tier.instances.get(&id).is_some_and(|instance| instance.lost.is_some())
}

#[cfg(test)]
mod tests;
