//! What becomes of instances whose child is silent, and what when it speaks again.
//!
//! ```text
//!  child silent ──► patience of the instance ──► a place elsewhere? ──► there (taken over)
//!       │                                               └─ none ──► stays, lost; tried again
//!       └──► child returns: what was taken over stops there, as its list lacks it; what does
//!            not run elsewhere yet is taken back; what was lost is found
//! ```
//!
//! Why apart: silence is about time, and about nothing that anybody says. Silence counts from
//! the moment a child's link went down, or from this tier's own start.
//!
//! Invariants:
//! - an instance keeps its place until another child has taken it: if the silent child returns
//!   first, nothing stops there;
//! - a tier that was not running itself (a restart, a sleep, a jump of its clock) gives its
//!   children the time to reconnect before it takes anything from them;
//! - what was taken over is not in the silent child's desired state any more, so that whatever
//!   happens in between, the copy there ends when it is told that state.

use crate::Now;
use crate::child::Child;
use crate::decisions::Verdict;
use crate::instance::Instance;
use crate::records::Key;
use crate::tier::Tier;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{ChildKind, Generation, InstanceStatus, Patience};
use std::collections::BTreeSet;

/// After its own start or sleep a tier takes nothing over for so long, however short a
/// service's patience: the pause of a child that connects again is as long at most. A tier that
/// is called so much later than it asked for has slept.
pub const GRACE_MS: u64 = 60_000;

/// While a child is silent that something is placed on, the owner is woken so often: a call
/// that comes later than [`GRACE_MS`] then means sleep and nothing else.
const BEAT_MS: u64 = 20_000;

/// Instances taken over at once: each looks at every child, and other inputs wait meanwhile.
const TAKEOVERS_MAX: usize = 64;

/// A silent child that holds nothing is forgotten after thirty days: a board that was thrown
/// away leaves the lists, one in a drawer for the holidays does not.
pub const FORGET_MS: u64 = 30 * 24 * 3_600_000;

/// What is due for silent children.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// When the patience of something placed there is over.
    due: BTreeSet<(u64, ChildId)>,
    /// When one that holds nothing is forgotten.
    forget: BTreeSet<(u64, ChildId)>,
    /// When the owner has called last.
    called_ms: u64,
    /// Nothing is taken over before.
    grace_ms: u64,
}

impl Losses {
    /// The tier starts now.
    pub(crate) fn start(&mut self, now: Now) {
        self.called_ms = now.mono_ms;
        self.grace_ms = now.mono_ms.saturating_add(GRACE_MS);
    }

    /// When the tier wants to be called.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        let lost = self.due.first().map(|(at, _)| {
            let beat = self.called_ms.saturating_add(BEAT_MS);
            beat.min(*at)
        });
        let forgotten = self.forget.first().map(|(at, _)| *at);
        [lost, forgotten].into_iter().flatten().min()
    }

    fn unwatch(&mut self, child: &mut Child) {
        if let Some(at) = child.loss_due_ms.take() {
            self.due.remove(&(at, child.id));
        }
        if let Some(at) = child.forget_due_ms.take() {
            self.forget.remove(&(at, child.id));
        }
    }

    /// Something is due for the child at this time, if nothing is due before.
    fn watch(&mut self, child: &mut Child, at: u64) {
        if child.loss_due_ms.is_none_or(|known| at < known) {
            if let Some(known) = child.loss_due_ms.replace(at) {
                self.due.remove(&(known, child.id));
            }
            self.due.insert((at, child.id));
        }
    }

    /// When the instance on the silent child is to be given up; `None` if it waits.
    fn deadline_ms(&self, child: &Child, instance: &Instance) -> Option<u64> {
        let since = child.silent_since_ms?;
        let patience = patience_s(&instance.workload.spec.patience, child.kind);
        let seconds = match instance.removing {
            true => patience.or(patience_s(&Patience::default(), child.kind))?,
            false if instance.lost.is_some() || instance.status.state.is_over() => return None,
            false => patience?,
        };
        let at = since.saturating_add(u64::from(seconds).saturating_mul(1_000));
        Some(at.max(self.grace_ms))
    }
}

/// How long a service waits for a child of this kind.
pub(crate) fn patience_s(patience: &Patience, kind: ChildKind) -> Option<u32> {
    match kind {
        ChildKind::Node => patience.node_s,
        ChildKind::Cluster => patience.cluster_s,
    }
}

impl Tier {
    /// The owner calls. One that should have called long ago was not running, and neither were
    /// this tier's ears: silences begin anew.
    pub(crate) fn tick(&mut self, now: Now) {
        let slept = now.mono_ms.saturating_sub(self.losses.called_ms) > GRACE_MS;
        self.losses.called_ms = self.losses.called_ms.max(now.mono_ms);
        if !slept || self.losses.due.is_empty() {
            return;
        }
        self.losses.start(now);
        let silent = self.children.values_mut().filter(|child| child.silent_since_ms.is_some());
        let silent: Vec<ChildId> = silent
            .map(|child| {
                child.silent_since_ms = Some(now.mono_ms);
                child.id
            })
            .collect();
        silent.into_iter().for_each(|child| self.watch(child));
    }

    /// Nothing is heard of the child from now on, or since before.
    pub(crate) fn fall_silent(&mut self, id: ChildId, now: Now) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.silent_since_ms.get_or_insert(now.mono_ms);
        self.watch(id);
    }

    /// Finds out anew when something is due for the child.
    pub(crate) fn watch(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        self.losses.unwatch(child);
        let Some(since) = child.silent_since_ms else { return };
        if child.is_forgettable() {
            let at = since.saturating_add(FORGET_MS);
            child.forget_due_ms = Some(at);
            self.losses.forget.insert((at, id));
        }
        let placed = child.placed.iter().filter_map(|i| self.instances.get(i));
        let deadlines = placed.filter_map(|instance| self.losses.deadline_ms(child, instance));
        if let Some(at) = deadlines.min() {
            self.losses.watch(child, at);
        }
    }

    /// The instance is other than before: something may be due sooner.
    pub(crate) fn watch_instance(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(&id) else { return };
        let Some(child) = instance.placed.and_then(|c| self.children.get_mut(&c)) else { return };
        if let Some(at) = self.losses.deadline_ms(child, instance) {
            self.losses.watch(child, at);
        }
    }

    /// The child does not count as silent, or is no more.
    pub(crate) fn unwatch(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.silent_since_ms = None;
        self.losses.unwatch(child);
    }

    /// Gives up what has been waited for long enough.
    pub(crate) fn lose_due(&mut self, now: Now) {
        let mut left = TAKEOVERS_MAX;
        while left > 0
            && let Some((_, id)) = self.losses.due.first().filter(|(at, _)| *at <= now.mono_ms)
        {
            left -= self.lose_on(*id, left, now);
        }
        while let Some((_, id)) = self.losses.forget.first().filter(|(at, _)| *at <= now.mono_ms) {
            let id = *id;
            match self.children.get(&id).is_some_and(Child::is_forgettable) {
                true => self.forget(id, now),
                false => self.watch(id),
            }
        }
    }

    /// Gives up so many instances of a silent child at most; how many.
    fn lose_on(&mut self, id: ChildId, most: usize, now: Now) -> usize {
        let Some(child) = self.children.get(&id) else { return 0 };
        let is_due = |id: &&InstanceId| {
            let instance = self.instances.get(id);
            let at = instance.and_then(|instance| self.losses.deadline_ms(child, instance));
            at.is_some_and(|at| at <= now.mono_ms)
        };
        let due: Vec<InstanceId> = child.placed.iter().filter(is_due).take(most).copied().collect();
        let why = format!("removed; {} is silent and stops it when it returns", child.name);
        for instance in &due {
            match self.instances.get(instance) {
                Some(i) if i.removing && i.leaving.is_none() => {
                    self.gone_since(*instance, &why, now);
                }
                Some(i) if i.removing => self.ended_on(*instance, id, now),
                _ => self.lose(*instance, now),
            }
        }
        self.watch(id);
        due.len()
    }

    /// The instance is lost where it is: a place elsewhere is looked for, now and whenever one
    /// may have come up.
    pub(crate) fn lose(&mut self, id: InstanceId, now: Now) {
        // Where it comes from it still is, or is lost as well.
        if self.abort_move(id, "where it was moved to it was lost", now) {
            return;
        }
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.lost = Some(String::new());
        instance.tried.clear();
        let from = instance.placed.map(|from| self.name_of(from)).unwrap_or_default();
        self.decide(id, Verdict::Other(format!("lost with {from}")), now);
        self.notes.changed.insert(id);
        self.place(id, now);
    }

    /// Nobody else takes the lost instance: it stays where it is until somebody does.
    pub(crate) fn stay_lost(&mut self, id: InstanceId, why: &str) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let why = InstanceStatus::detail(why);
        if instance.lost.as_ref() != Some(&why) {
            instance.lost = Some(why);
            self.notes.changed.insert(id);
        }
    }

    /// The instance gets another place: what it leaves behind on a lost child is taken from
    /// that child's desired state. Says so, for people.
    pub(crate) fn leave_lost(&mut self, id: InstanceId) -> String {
        let Some(instance) = self.instances.get(&id) else { return String::new() };
        let Some(from) = instance.placed.filter(|_| instance.lost.is_some()) else {
            return String::new();
        };
        self.forget_move(id);
        self.account(id, |instance| {
            instance.placed = None;
            instance.stopping = false;
            instance.lost = None;
            instance.lost_with = Some(from);
        });
        self.notes.retold.entry(from).or_default().insert(id);
        let Some(child) = self.children.get_mut(&from) else { return String::new() };
        // One that is connected, and only has lost it itself, hears at once that it is over.
        if child.silent_since_ms.is_some() {
            child.surplus.insert(id);
        }
        format!("taken over, {} has lost it or is silent", child.name)
    }

    /// Whoever took the instance over does not take it after all: it belongs to the silent
    /// child again, until somebody else does.
    pub(crate) fn fall_back(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(&id) else { return };
        let Some(from) = instance.lost_with else { return };
        let Some(child) = self.children.get_mut(&from) else { return };
        if child.silent_since_ms.is_none() || !child.surplus.remove(&id) {
            return;
        }
        self.account(id, |instance| {
            instance.placed = Some(from);
            instance.lost = Some(String::new());
            instance.lost_with = None;
        });
        self.notes.retold.entry(from).or_default().insert(id);
    }

    /// A child has said something of an instance placed there, which may be that it has lost
    /// it itself and knows no other place.
    pub(crate) fn judge_lost(&mut self, by: ChildId, id: InstanceId, now: Now) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        // Before the child has told everything it may be gone again at any time.
        let told = self.children.get(&by).is_some_and(|child| child.silent_since_ms.is_none());
        match (instance.status.state == InstanceState::Lost, instance.lost.is_some()) {
            (true, false) if !instance.removing => self.lose(id, now),
            (false, true) if told => instance.found(),
            _ => {}
        }
    }

    /// Whether a greeting is answered only when the child has told everything: what was taken
    /// over from it, or was there when it was forgotten, may stay if it runs nowhere else yet.
    pub(crate) fn awaits_surplus(&self, id: ChildId) -> bool {
        let Some(child) = self.children.get(&id) else { return false };
        let forgotten = |held: Generation| {
            held.epoch == self.epoch && held.number > 0 && held.number < child.first_number
        };
        !child.surplus.is_empty() || child.link.as_ref().is_some_and(|link| forgotten(link.held))
    }

    /// The number under which a child has seen what it tells. Of another epoch, or from before
    /// it was forgotten, it was seen under nothing that this tier remembers to have said.
    pub(crate) fn known_number(&self, by: ChildId, seen: Generation) -> Option<u64> {
        let first = self.children.get(&by).map_or(0, |child| child.first_number);
        (seen.epoch == self.epoch && seen.number >= first).then_some(seen.number)
    }

    /// A child that was silent runs what was taken over from it. If it runs nowhere else yet, it
    /// is taken back: fewer changes.
    pub(crate) fn take_back(&mut self, by: ChildId, status: &InstanceStatus, now: Now) -> bool {
        let id = status.instance;
        let Some(child) = self.children.get(&by) else { return false };
        let Some(instance) = self.instances.get(&id) else { return false };
        let fits = child.surplus.contains(&id)
            && instance.lost_with == Some(by)
            && !instance.removing
            && !instance.handed_back
            && status.state == InstanceState::Running
            && status.revision == instance.workload.revision;
        if !fits {
            return false;
        }
        let from = instance.placed;
        self.account(id, |instance| {
            instance.placed = Some(by);
            instance.found();
            instance.lost_with = None;
            instance.status = status.clone();
        });
        let back = format!("back on {}, which has it still", self.name_of(by));
        self.decide(id, Verdict::Other(back), now);
        self.notes.wake.extend(from);
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
        for child in from.into_iter().chain([by]) {
            self.notes.retold.entry(child).or_default().insert(id);
        }
        true
    }

    /// All that runs on the child is known again.
    pub(crate) fn returned(&mut self, id: ChildId, now: Now) {
        self.unwatch(id);
        self.prefer_old_on(id, now);
        let Some(child) = self.children.get_mut(&id) else { return };
        let surplus = std::mem::take(&mut child.surplus);
        for instance in &child.placed {
            let instance = self.instances.get_mut(instance);
            let lost =
                instance.filter(|i| i.lost.is_some() && i.status.state != InstanceState::Lost);
            lost.into_iter().for_each(Instance::found);
        }
        for instance in surplus {
            let instance = self.instances.get_mut(&instance);
            let left = instance.filter(|i| i.lost_with == Some(id));
            left.into_iter().for_each(|instance| instance.lost_with = None);
        }
        let waits = child.link.as_ref().filter(|link| !link.welcomed).map(|link| link.held);
        if let Some(held) = waits.filter(|_| self.is_established()) {
            self.notes.welcomes.insert(id, held);
        }
    }

    /// What is said of an instance whose child is silent.
    pub(crate) fn silent_status(
        child: &Child,
        instance: &Instance,
        mut status: InstanceStatus,
    ) -> InstanceStatus {
        let last = status.state.name();
        let how = if child.is_connected() { "has not told yet" } else { "is not connected" };
        let patience = patience_s(&instance.workload.spec.patience, child.kind);
        let detail = match (&instance.lost, patience) {
            (Some(why), _) => {
                format!("{} {how}, last heard: {last}; no other place: {why}", child.name)
            }
            (None, None) => format!(
                "{} {how}, last heard: {last}; the service waits for it (on_loss: wait)",
                child.name
            ),
            (None, Some(_)) => format!("{} {how}, last heard: {last}", child.name),
        };
        status.detail = InstanceStatus::detail(&detail);
        status.state = match instance.lost {
            Some(_) => InstanceState::Lost,
            None => InstanceState::Unknown,
        };
        status
    }

    /// The child will not come back: what was placed there is looked a place for, and nothing
    /// is remembered of it but that its generations are used up.
    pub(crate) fn forget(&mut self, id: ChildId, now: Now) {
        self.unwatch(id);
        let Some(child) = self.children.get(&id) else { return };
        let (name, placed) = (child.name.clone(), child.placed.clone());
        let leaving = child.leaving.clone();
        let after = child.number.saturating_add(1);
        for instance in placed {
            if self.instances.get(&instance).is_some_and(Instance::is_removing) {
                self.ended_on(instance, id, now);
                continue;
            }
            let why = format!("{name} was forgotten");
            if self.abort_move(instance, &why, now) {
                continue;
            }
            self.forget_move(instance);
            self.account(instance, |instance| {
                instance.placed = None;
                instance.stopping = false;
                instance.found();
                instance.tried.clear();
                instance.retry_at_ms = Some(now.mono_ms);
                instance.set_state(InstanceState::Requested, &why, now);
            });
            self.notes.dirty.insert(Key::Instance(instance));
            self.notes.changed.insert(instance);
        }
        leaving.into_iter().for_each(|instance| self.finish_move(instance, now));
        self.end_drain(id);
        self.children.remove(&id);
        // New children begin behind the generations of all that were forgotten: one that comes
        // back is behind as well, and hears what is desired now.
        self.first_number = self.first_number.max(after);
        self.notes.retold.remove(&id);
        self.notes.dirty.extend([Key::Child(id), Key::Tier]);
        self.reporting.summary_stale = true;
        (self.deck.stale, self.notes.kin_stale) = (true, true);
    }
}

#[cfg(test)]
mod tests;
