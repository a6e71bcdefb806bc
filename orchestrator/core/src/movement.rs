//! Moves an instance to another child while both are well: at an operator's wish to empty a
//! child, or where it sits better.
//!
//! ```text
//!  StartFirst:  placed on A ─► placed on B, leaving A ─► B says it runs ─► placed on B
//!                                     └─ B refuses, is lost, or takes too long ─► placed on A
//!  StopFirst:   placed on A ─► stopping on A ─► A says it is gone ─► placed on B
//! ```
//!
//! Why apart: a move is the only time that an instance is desired on two children. Both hold
//! its resources then; who is told what follows from the record, so that a crash at any point
//! leaves no copy behind.
//!
//! Invariants: what leaves a child runs there until it runs at the other, or stays; how many
//! moves a child has at once is bounded; a move ends, one way or the other.

use crate::Now;
use crate::child::Child;
use crate::decisions::Verdict;
use crate::instance::Instance;
use crate::records::Key;
use crate::tier::Tier;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{InstanceStatus, MovePolicy};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Moves of one child at once: a board that is emptied shall not have all its images fetched
/// elsewhere at the same time.
pub const MOVES_MAX: usize = 8;

/// A move that takes longer is given up: half an hour is enough for a large image on a slow
/// line, and others wait for their turn.
const MOVE_MS: u64 = 1_800_000;

/// What could not be moved away is looked at again after so long.
const DRAIN_INTERVAL_MS: u64 = 30_000;

/// Moves for one wish to rebalance: an operator sees what comes of them and asks again.
pub const REBALANCE_MAX: usize = 64;

/// Instances of a child looked at in one turn: each looks at all children.
const LOOKS_MAX: usize = 64;

/// The copy that an instance has where it comes from, while it is moved.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leaving {
    pub(crate) from: ChildId,
    /// As [`Instance::told`], for that child.
    pub(crate) told: u64,
    /// The last that was heard of that copy.
    pub(crate) status: InstanceStatus,
}

/// What came of the wish to move an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// It is on its way.
    Begun,
    /// It is over, lost, about to go, or on its way already.
    Busy,
    /// Its service does not allow it.
    Never,
    /// There is no other place.
    Nowhere,
}

/// Moves under way and children to be emptied.
#[derive(Debug, Default)]
pub(crate) struct Movements {
    /// When a move is given up.
    due: BTreeMap<InstanceId, u64>,
    /// When a child that is emptied is looked at again, and behind which instance.
    drains: BTreeMap<ChildId, (u64, Option<InstanceId>)>,
    /// What would sit better elsewhere is moved.
    rebalance: Option<Rebalance>,
}

/// An operator's wish to move what would sit better elsewhere, as far as it has come.
#[derive(Debug)]
struct Rebalance {
    at_ms: u64,
    after: Option<InstanceId>,
    left: usize,
}

impl Movements {
    /// When there is something to do.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        let moves = self.due.values().copied();
        let drains = self.drains.values().map(|(at, _)| *at);
        let rebalance = self.rebalance.as_ref().map(|wish| wish.at_ms);
        moves.chain(drains).chain(rebalance).min()
    }

    /// What would sit better elsewhere is moved, from now on until all was looked at.
    pub(crate) fn note_rebalance(&mut self, now: Now) {
        let wish = Rebalance { at_ms: now.mono_ms, after: None, left: REBALANCE_MAX };
        self.rebalance = Some(wish);
    }

    /// A move goes on, or has gone on before a restart.
    pub(crate) fn note_move(&mut self, id: InstanceId, now: Now) {
        self.due.insert(id, now.mono_ms.saturating_add(MOVE_MS));
    }

    #[cfg(test)]
    pub(crate) fn is_moving(&self, id: InstanceId) -> bool {
        self.due.contains_key(&id)
    }

    /// The child is emptied from now on, or goes on being emptied.
    pub(crate) fn note_drain(&mut self, id: ChildId, now: Now) {
        self.drains.insert(id, (now.mono_ms, None));
    }
}

impl Tier {
    /// Goes on with what is moved away, and gives up what takes too long.
    pub(crate) fn move_due(&mut self, now: Now) {
        let is_due = |(id, at): (&InstanceId, &u64)| (*at <= now.mono_ms).then_some(*id);
        for id in self.movements.due.iter().filter_map(is_due).collect::<Vec<_>>() {
            self.movements.due.remove(&id);
            let why = format!("a move took longer than {} min", MOVE_MS / 60_000);
            if !self.abort_move(id, &why, now) {
                self.go_on_here(id, &why);
            }
        }
        let drains = self.movements.drains.iter();
        let due = drains.filter(|(_, (at, _))| *at <= now.mono_ms).map(|(id, _)| *id);
        for id in due.collect::<Vec<_>>() {
            self.drain(id, now);
        }
        self.rebalance(now);
    }

    /// Looks at some more instances, and moves those that would sit better elsewhere.
    fn rebalance(&mut self, now: Now) {
        let Some(mut wish) = self.movements.rebalance.take() else { return };
        let behind = wish.after.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.instances.range((behind, Bound::Unbounded)).take(LOOKS_MAX);
        let next: Vec<InstanceId> = next.map(|(id, _)| *id).collect();
        for id in &next {
            if wish.left == 0 {
                return;
            }
            let has_turn = |child: &Child| {
                child.silent_since_ms.is_none() && self.moves_from(child) < MOVES_MAX
            };
            let from = self.instances.get(id).and_then(|instance| instance.placed);
            if !from.and_then(|from| self.children.get(&from)).is_some_and(has_turn) {
                continue;
            }
            if self.begin_move(*id, Self::better_place, now) == Start::Begun {
                wish.left -= 1;
            }
        }
        if next.len() == LOOKS_MAX {
            wish.after = next.last().copied();
            self.movements.rebalance = Some(wish);
        }
    }

    /// Begins as many moves away from the child as it may have.
    fn drain(&mut self, id: ChildId, now: Now) {
        let Some((_, after)) = self.movements.drains.remove(&id) else { return };
        let Some(child) = self.children.get(&id).filter(|child| child.draining) else { return };
        // Nothing is moved from one that is silent: whether it is lost is a matter of patience.
        if child.is_empty() || child.silent_since_ms.is_some() {
            return self.look_later(id, now);
        }
        let mut last = after;
        let behind = |i: &&InstanceId| after.is_none_or(|after| **i > after);
        let rest: Vec<InstanceId> = child.placed.iter().filter(behind).copied().collect();
        let mut free = MOVES_MAX.saturating_sub(self.moves_from(child));
        for (looks, instance) in rest.into_iter().enumerate() {
            if free == 0 {
                break;
            }
            if looks >= LOOKS_MAX {
                self.movements.drains.insert(id, (now.mono_ms, last));
                return;
            }
            last = Some(instance);
            match self.begin_move(instance, Self::any_place, now) {
                Start::Begun => free -= 1,
                Start::Busy => {}
                Start::Never => self.stays(instance, "its service is never moved"),
                Start::Nowhere => {
                    let why = self.why_nowhere(instance);
                    self.stays(instance, &why);
                }
            }
        }
        self.look_later(id, now);
    }

    fn look_later(&mut self, id: ChildId, now: Now) {
        let at = now.mono_ms.saturating_add(DRAIN_INTERVAL_MS);
        self.movements.drains.insert(id, (at, None));
    }

    fn moves_from(&self, child: &Child) -> usize {
        let stops = |i: &&InstanceId| self.instances.get(i).is_some_and(|i| i.stopping);
        child.leaving.len() + child.placed.iter().filter(stops).count()
    }

    /// Moves an instance if that can be done.
    fn begin_move(
        &mut self,
        id: InstanceId,
        to: impl Fn(&Self, InstanceId) -> Option<ChildId>,
        now: Now,
    ) -> Start {
        let Some(instance) = self.instances.get_mut(&id) else { return Start::Busy };
        let is_over = instance.status.state.is_over();
        let is_busy = instance.removing || instance.stopping || instance.leaving.is_some();
        if is_over || is_busy || instance.lost.is_some() {
            return Start::Busy;
        }
        let spec = &instance.workload.spec;
        let policy = match (spec.movement, spec.patience.parent_s) {
            (MovePolicy::Never, _) => return Start::Never,
            // It must never run twice.
            (MovePolicy::StartFirst, Some(_)) => MovePolicy::StopFirst,
            (policy, _) => policy,
        };
        instance.tried.clear();
        let Some(to) = to(self, id) else { return Start::Nowhere };
        let from = self.instances.get(&id).and_then(|i| i.placed);
        let from = from.map(|from| self.name_of(from)).unwrap_or_default();
        let why = format!("moved from {from} to {}", self.name_of(to));
        self.decide(id, Verdict::Other(why), now);
        match policy {
            MovePolicy::StopFirst => self.stop_first(id, now),
            MovePolicy::StartFirst | MovePolicy::Never => self.start_first(id, to, now),
        }
        Start::Begun
    }

    fn any_place(&self, id: InstanceId) -> Option<ChildId> {
        self.choose(self.instances.get(&id)?, self.children.values())
    }

    fn start_first(&mut self, id: InstanceId, to: ChildId, now: Now) {
        self.account(id, |instance| {
            instance.stays = None;
            instance.leaving = instance.placed.take().map(|from| Leaving {
                from,
                told: instance.told,
                status: instance.status.clone(),
            });
        });
        self.movements.note_move(id, now);
        self.place_on(id, to, now);
    }

    fn stop_first(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.stays = None;
        instance.stopping = true;
        let from = instance.placed;
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
        if let Some(from) = from {
            self.notes.retold.entry(from).or_default().insert(id);
        }
        self.movements.note_move(id, now);
    }

    /// The instance ends where it is, since something more important needs its room.
    pub(crate) fn make_go(&mut self, id: InstanceId, now: Now) {
        self.stop_first(id, now);
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.yields = true;
            instance.tried.clear();
        }
    }

    /// The instance is not moved away, for this reason.
    fn stays(&mut self, id: InstanceId, why: &str) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let why = InstanceStatus::detail(why);
        if instance.stays.as_ref() != Some(&why) {
            instance.stays = Some(why);
            self.notes.changed.insert(id);
        }
    }

    /// It runs where it was moved to: the copy that it leaves behind may end.
    pub(crate) fn finish_move(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.instances.get(&id) else { return };
        let Some(from) = instance.leaving.as_ref().map(|leaving| leaving.from) else { return };
        self.account(id, |instance| {
            instance.leaving = None;
            instance.claimed = false;
        });
        self.moved(id, from);
        self.go_on_draining(from, now);
    }

    /// The move is over, and the other child is told so.
    fn moved(&mut self, id: InstanceId, other: ChildId) {
        self.movements.due.remove(&id);
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
        self.notes.wake.insert(other);
        self.notes.retold.entry(other).or_default().insert(id);
    }

    /// There is room for another move from the child.
    fn go_on_draining(&mut self, id: ChildId, now: Now) {
        if let Some((at, _)) = self.movements.drains.get_mut(&id) {
            *at = now.mono_ms;
        }
    }

    /// The instance is not moved after all and belongs where it came from. Whether there was
    /// a move to give up.
    pub(crate) fn abort_move(&mut self, id: InstanceId, why: &str, now: Now) -> bool {
        let Some(instance) = self.instances.get(&id) else { return false };
        let Some(Leaving { from, told, status }) = instance.leaving.clone() else {
            return false;
        };
        let to = instance.placed;
        self.account(id, |instance| {
            instance.placed = Some(from);
            instance.claimed = false;
            instance.leaving = None;
            instance.told = told;
            instance.status = status;
            instance.found();
        });
        if !why.is_empty() {
            self.decide(id, Verdict::Other(format!("not moved: {why}")), now);
        }
        if self.children.get(&from).is_some_and(|child| child.draining) && !why.is_empty() {
            self.stays(id, why);
        }
        self.moved(id, from);
        // What the old one is told has not changed; the new one hears that it is over.
        if let Some(to) = to {
            self.notes.wake.insert(to);
            self.notes.retold.entry(to).or_default().insert(id);
        }
        true
    }

    /// The child did not say that it has ended: it may as well go on there.
    fn go_on_here(&mut self, id: InstanceId, why: &str) {
        let Some(instance) = self.instances.get_mut(&id).filter(|i| i.stopping) else { return };
        instance.stopping = false;
        instance.yields = false;
        let from = instance.placed;
        self.stays(id, why);
        if let Some(from) = from {
            self.moved(id, from);
        }
    }

    /// Nothing of the instance is left on a child that was told to end it.
    pub(crate) fn ended_on(&mut self, id: InstanceId, by: ChildId, now: Now) {
        let Some(instance) = self.instances.get(&id) else { return };
        let from = instance.leaving.as_ref().map(|leaving| leaving.from);
        if instance.removing {
            match (instance.placed == Some(by), from) {
                (true, None) => self.gone(id, now),
                // The copy that it leaves behind is still to go.
                (true, Some(_)) => drop(self.abort_move(id, "", now)),
                (false, _) => self.finish_move(id, now),
            }
        } else if instance.stopping && instance.placed == Some(by) {
            self.stopped(id, by, now);
        }
    }

    /// It has ended where it was: another child starts it, or the same one if no other can.
    fn stopped(&mut self, id: InstanceId, from: ChildId, now: Now) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if std::mem::take(&mut instance.yields) {
            return self.yielded(id, from, now);
        }
        let Some(instance) = self.instances.get(&id) else { return };
        let to = self.choose(instance, self.children.values());
        let why = self.why_nowhere(id);
        self.account(id, |instance| {
            instance.placed = None;
            instance.stopping = false;
        });
        self.moved(id, from);
        self.go_on_draining(from, now);
        self.place_on(id, to.unwrap_or(from), now);
        if to.is_none() {
            self.stays(id, &why);
        }
    }

    /// It has ended for something more important: it may go anywhere but into that room.
    fn yielded(&mut self, id: InstanceId, from: ChildId, now: Now) {
        self.account(id, |instance| {
            instance.placed = None;
            instance.stopping = false;
        });
        self.moved(id, from);
        self.go_on_draining(from, now);
        self.place(id, now);
    }

    /// The child that an instance leaves tells of its copy.
    pub(crate) fn leaving_observed(
        &mut self,
        by: ChildId,
        held: u64,
        status: InstanceStatus,
        now: Now,
    ) {
        let id = status.instance;
        let Some(instance) = self.instances.get(&id) else { return };
        let Some(leaving) = instance.leaving.as_ref().filter(|leaving| leaving.from == by) else {
            return;
        };
        if held < leaving.told {
            return;
        }
        match status.state {
            InstanceState::Undeployed | InstanceState::Refused if instance.removing => {
                self.ended_on(id, by, now);
            }
            // It is desired there and will be started again, or is no longer by now.
            InstanceState::Undeployed => {}
            // The copy is of no use any more, and the new one is on its way.
            InstanceState::Refused => self.finish_move(id, now),
            state => {
                self.account(id, |instance| {
                    if let Some(leaving) = &mut instance.leaving {
                        leaving.status = status;
                    }
                });
                self.notes.changed.insert(id);
                self.prefer_old(id, now);
                // It has done what it should: once is enough.
                if state.is_over() && !self.instances.get(&id).is_some_and(Instance::is_removing) {
                    self.abort_move(id, "", now);
                }
            }
        }
    }

    /// The copy that is told of: while an instance is moved, the one that still runs.
    pub(crate) fn shown_copy(&self, instance: &Instance) -> (Option<ChildId>, InstanceStatus) {
        let Some(leaving) = &instance.leaving else {
            let mut status = instance.status.clone();
            if instance.stopping {
                status.detail = "stopped here to be moved".into();
            } else if let Some(why) = instance.stays.as_ref().filter(|_| status.detail.is_empty()) {
                status.detail = InstanceStatus::detail(&format!("not moved away: {why}"));
            }
            return (instance.placed, status);
        };
        let is_heard = |child: &&Child| child.silent_since_ms.is_none();
        let old = self.children.get(&leaving.from).filter(is_heard);
        let new = instance.placed.and_then(|child| self.children.get(&child));
        match (old, new) {
            (Some(old), Some(new)) if leaving.status.state == InstanceState::Running => {
                let mut status = leaving.status.clone();
                let state = instance.status.state.name();
                status.detail = format!("on its way to {}, there {state}", new.name);
                (Some(old.id), status)
            }
            _ => (instance.placed, instance.status.clone()),
        }
    }

    /// Ends the wish to empty a child. Moves that have begun go on.
    pub(crate) fn end_drain(&mut self, id: ChildId) {
        self.movements.drains.remove(&id);
        let Some(child) = self.children.get(&id) else { return };
        for id in &child.placed {
            if self.instances.get_mut(id).is_some_and(|i| i.stays.take().is_some()) {
                self.notes.changed.insert(*id);
            }
        }
    }

    /// The instance is no more, and neither is its move.
    pub(crate) fn forget_move(&mut self, id: InstanceId) {
        self.movements.due.remove(&id);
    }
}

#[cfg(test)]
mod tests;
