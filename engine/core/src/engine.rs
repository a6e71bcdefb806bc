//! The state of a node and the way inputs take through it.
//!
//! Handlers change slots and note what follows; `settle` then gives out effects in the one
//! order that is safe: persist, act, report.

use crate::fence::Fence;
use crate::ledger::Ledger;
use crate::slot::{Admission, Follow, Slot, SlotView};
use crate::telemetry::Filter;
use crate::{BackendFacts, Effect, Identity, Input, LedgerError, Now, admit};
use marram_backend_api::Observed;
use marram_protocol::desired::{Desired, Step};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{
    ChildKind, Down, Generation, Hello, InstanceStatus, Kin, Scope, Summary, Up,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Statuses in one message: with the longest details it stays under the message limit.
const STATUSES_MAX: usize = 200;

/// How long an instance waits for another to leave before it is refused: longer than a
/// usual grace period, shorter than an operator's patience.
const LEAVING_PATIENCE_MS: u64 = 60_000;

/// How long one that never ran waits after a start for a backend that is not up yet.
const START_PATIENCE_MS: u64 = 300_000;

/// A node, as a state machine.
#[derive(Debug, Clone)]
pub struct Engine {
    identity: Identity,
    desired: Desired,
    /// The tree that the cluster is part of, as it told last; 0 if none ever did.
    tree: u64,
    slots: BTreeMap<InstanceId, Slot>,
    backends: BTreeMap<String, BackendFacts>,
    /// Found on the host, and not known whether desired: nobody has told yet.
    strays: BTreeMap<InstanceId, String>,
    host: Option<(Summary, Vec<(String, String)>)>,
    link_up: bool,
    draining: bool,
    drained_told: bool,
    writes: u64,
    filter: Filter,
    fence: Fence,
    effects: VecDeque<Effect>,
    notes: Notes,
}

/// What follows from an input, not yet in order.
#[derive(Debug, Clone, Default)]
struct Notes {
    persist: bool,
    report: BTreeSet<InstanceId>,
    farewells: Vec<InstanceStatus>,
    sends: Vec<Up>,
    /// The cluster is to be told everything.
    snapshot: bool,
    /// Something may be taken now that could not be before.
    readmit: bool,
}

impl Engine {
    /// An engine that goes on from its ledger, or starts with none.
    pub fn restore(
        identity: Identity,
        ledger: Option<&[u8]>,
        now: Now,
    ) -> Result<Self, LedgerError> {
        let ledger = ledger.map(Ledger::decode).transpose()?.unwrap_or_default();
        let wanted = ledger.entries.iter().filter_map(|e| e.desired.clone()).collect();
        let restored = |entry: crate::ledger::Entry| (entry.instance, Slot::restored(entry, now));
        let slots = ledger.entries.into_iter().map(restored).collect();
        Ok(Self {
            identity,
            desired: Desired::restore(ledger.generation, wanted),
            tree: ledger.tree,
            slots,
            backends: BTreeMap::new(),
            strays: BTreeMap::new(),
            host: None,
            link_up: false,
            draining: false,
            drained_told: false,
            writes: ledger.writes,
            filter: Filter::default(),
            fence: Fence::new(now),
            effects: VecDeque::new(),
            notes: Notes::default(),
        })
    }

    /// Takes an input.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Host { summary, facts } => self.host(summary, facts),
            Input::Backend { facts, found } => self.backend(facts, found, now),
            Input::LinkUp { preferred } => self.link_up(preferred),
            Input::LinkDown => {
                self.link_up = false;
                self.fence.assurance.lose();
            }
            Input::Parent(message) => self.parent(message, now),
            Input::Done(id, outcome) => self.each(id, |slot| slot.done(outcome, now)),
            Input::Exited(id, exit) => self.each(id, |slot| slot.exited(&exit, now)),
            Input::Progress(id, done, all) => self.each(id, |slot| slot.progress(done, all, now)),
            Input::Telemetry(sample) => {
                if self.link_up {
                    let passed = self.filter.pass(sample, now.mono_ms);
                    self.notes.sends.extend(passed.map(Up::Telemetry));
                }
            }
            Input::Drain => self.draining = true,
        }
        self.settle(now);
    }

    /// Does what is due. Called early it does nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        self.settle(now);
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Engine::handle_timeout`] has something to do, on the clock of `mono_ms`.
    pub fn poll_timeout(&self) -> Option<u64> {
        let prepares = self.host.is_some() && !self.draining;
        let slots = self.slots.values().filter_map(|slot| slot.due_ms(prepares));
        let fence = self.slots.values().filter_map(|slot| self.fence.due_ms(slot));
        slots.chain(fence).chain(self.fence.assurance.due_ms()).min()
    }

    /// All instances that the node knows.
    pub fn slots(&self) -> impl Iterator<Item = (InstanceId, SlotView<'_>)> {
        self.slots.iter().map(|(id, slot)| (*id, slot.view()))
    }

    /// One instance.
    pub fn slot(&self, id: InstanceId) -> Option<SlotView<'_>> {
        self.slots.get(&id).map(Slot::view)
    }

    /// The node's own id and name.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The tree that the node is part of; 0 if no cluster has ever told.
    pub fn tree(&self) -> u64 {
        self.tree
    }

    /// What is held of the cluster's desired state.
    pub fn generation(&self) -> Generation {
        self.desired.generation()
    }

    fn host(&mut self, summary: Summary, facts: Vec<(String, String)>) {
        self.notes.readmit = true;
        let known = self.host.replace((summary.clone(), facts));
        if self.link_up && known.is_none_or(|(known, _)| known != summary) {
            self.notes.sends.push(Up::Summary(summary));
        }
    }

    fn link_up(&mut self, preferred: Option<ChildId>) {
        self.link_up = true;
        self.fence.assurance.lose();
        self.filter.reset();
        let (summary, facts) = self.host.clone().unwrap_or_default();
        self.notes.sends.push(Up::Hello(Hello {
            child: self.identity.id,
            kind: ChildKind::Node,
            name: self.identity.name.clone(),
            version: self.identity.version.clone(),
            incarnation: self.identity.incarnation,
            generation: self.desired.generation(),
            summary,
            facts,
            tree: self.tree,
            preferred,
            address: String::new(),
            node_address: String::new(),
            labels: Vec::new(),
        }));
        self.notes.snapshot = true;
    }

    fn parent(&mut self, message: Down, now: Now) {
        if let Down::Welcome { epoch, .. } = message {
            return self.desired.welcome(epoch);
        }
        if let Down::Kin(kin) = message {
            return self.hear_kin(&kin, now);
        }
        if let Down::Manifest { generation, .. } = &message {
            self.fence.assurance.name(*generation);
        }
        let before = self.desired.generation();
        match self.desired.receive(message) {
            Step::Ignored => {}
            Step::Ask(question) => self.notes.sends.push(*question),
            // A cluster of this version never sends more; one that does is not followed.
            Step::TooMany(_) => {}
            Step::Applied { changed, whole } => {
                self.notes.persist |= !changed.is_empty() || before != self.desired.generation();
                self.applied(&changed, now);
                self.notes.snapshot |= whole;
                if whole {
                    self.fence.assurance.apply(self.desired.generation());
                }
            }
        }
    }

    /// Which tree it is, is told to every parent to come; the rest concerns who dials.
    fn hear_kin(&mut self, kin: &Kin, now: Now) {
        let matters =
            |slot: &Slot| slot.desired.as_ref().is_some_and(|w| w.spec.patience.parent_s.is_some());
        let matters = self.slots.values().any(matters);
        if self.fence.assurance.hear(kin.rooted, matters, now.mono_ms) {
            self.notes.sends.push(Up::Resync(self.desired.generation()));
        }
        if kin.tree != 0 && kin.tree != self.tree {
            self.tree = kin.tree;
            self.notes.persist = true;
        }
    }

    fn applied(&mut self, changed: &BTreeSet<InstanceId>, now: Now) {
        for id in changed {
            let workload = self.desired.workloads().get(id).cloned();
            match (self.slots.get_mut(id), workload) {
                (Some(slot), workload) => {
                    slot.desire(workload, now);
                    self.notes.report.insert(*id);
                }
                (None, Some(workload)) => {
                    self.slots.insert(*id, Slot::new(workload, now));
                    self.notes.report.insert(*id);
                }
                (None, None) => {
                    let undeployed = InstanceState::Undeployed;
                    self.notes.farewells.push(InstanceStatus::bare(*id, undeployed, now.unix_ms));
                }
            }
        }
        for (id, backend) in std::mem::take(&mut self.strays) {
            self.found_unheld(id, &backend, now);
        }
    }

    /// A backend has something that no slot holds: it is cleared away, once it is known
    /// what is desired, and made anew if it is.
    fn found_unheld(&mut self, id: InstanceId, backend: &str, now: Now) {
        if self.desired.generation() == Generation::default() {
            self.strays.insert(id, backend.to_owned());
            return;
        }
        match self.slots.get_mut(&id) {
            None => drop(self.slots.insert(id, Slot::stray(id, backend, now))),
            Some(slot) if slot.held.is_none() && !slot.busy => slot.found(backend, now),
            // Held by another backend: it will be seen again when that one has let go.
            Some(_) => {}
        }
    }

    fn backend(
        &mut self,
        facts: BackendFacts,
        found: Option<Vec<(InstanceId, Observed)>>,
        now: Now,
    ) {
        self.notes.readmit = true;
        let name = facts.name.clone();
        self.backends.insert(name.clone(), facts);
        let Some(found) = found else { return };
        for slot in self.slots.values_mut() {
            if slot.held.as_ref().is_some_and(|held| held.backend == name) {
                slot.listed(now);
            }
        }
        for (id, _) in found {
            let held = self.slots.get(&id).and_then(|slot| slot.held.as_ref());
            if held.is_none_or(|held| held.backend != name) {
                self.found_unheld(id, &name, now);
            }
        }
    }

    fn each(&mut self, id: InstanceId, change: impl FnOnce(&mut Slot) -> Follow) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let held = slot.held.is_some();
        let follow = change(slot);
        self.notes.readmit |= held && slot.held.is_none();
        self.notes.follow(id, follow);
    }

    /// Gives new instances a backend or refuses them, finds what is due, and puts it all
    /// in order.
    fn settle(&mut self, now: Now) {
        self.fence(now);
        self.admit_due(now);
        let mut acts = Vec::new();
        for (id, slot) in &mut self.slots {
            let Some(effect) = slot.next(now, self.draining) else { continue };
            if let Effect::Prepare { .. } = effect {
                slot.set_state(InstanceState::Creating, "", now);
                self.notes.report.insert(*id);
            }
            acts.push(effect);
        }
        self.bury(now);
        let notes = std::mem::take(&mut self.notes);
        if notes.persist {
            self.writes += 1;
            let bytes = self.ledger().encode();
            self.effects.push_back(Effect::Persist { generation: self.writes, bytes });
        }
        self.effects.extend(acts);
        self.tell(notes);
        if self.draining && !self.drained_told && self.slots.values().all(Slot::is_still) {
            self.drained_told = true;
            self.effects.push_back(Effect::Drained);
        }
    }

    /// Finds out what may not run for lack of a way to the root.
    fn fence(&mut self, now: Now) {
        self.fence.note(now);
        for (id, slot) in &mut self.slots {
            let fenced = self.fence.holds(slot, now);
            if slot.note_fence(fenced, now) {
                self.notes.report.insert(*id);
            }
        }
        if self.fence.assurance.ask_again(now.mono_ms) {
            self.notes.sends.push(Up::Resync(self.desired.generation()));
        }
    }

    fn admit_due(&mut self, now: Now) {
        let Some((host, _)) = self.host.as_ref().filter(|_| !self.draining) else { return };
        if std::mem::take(&mut self.notes.readmit) {
            self.slots.values_mut().for_each(|slot| slot.look_again(now));
        }
        let due = self.slots.iter().filter(|(_, slot)| slot.is_admission_due(now));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(admission) = self.judge(id, host, now) else { continue };
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            let follow = slot.admitted(admission, now);
            self.notes.follow(id, follow);
        }
    }

    fn judge(&self, id: InstanceId, host: &Summary, now: Now) -> Option<Admission> {
        let slot = self.slots.get(&id)?;
        let workload = slot.desired.as_ref()?;
        let claims = |leaving: bool| {
            let others = self.slots.iter().filter(move |(other, _)| **other != id);
            others.flat_map(move |(_, slot)| slot.claims(leaving))
        };
        let waited_ms = now.mono_ms.saturating_sub(slot.asked_ms);
        if let Err(why) = admit::room(workload, claims(false), host) {
            return Some(Admission::Refuse(why));
        }
        let backend = match admit::backend(workload, self.backends.values()) {
            Ok(backend) => backend.to_owned(),
            // It ran here before, or was to: what it needs will be up, as a daemon that
            // starts late.
            Err(why) if slot.has_run || (slot.restored && waited_ms < START_PATIENCE_MS) => {
                return Some(Admission::Wait(why));
            }
            Err(why) => return Some(Admission::Refuse(why)),
        };
        Some(match admit::room(workload, claims(true), host) {
            Ok(()) => Admission::Take(backend),
            Err(why) if waited_ms < LEAVING_PATIENCE_MS => Admission::Wait(why),
            Err(why) => Admission::Refuse(why),
        })
    }

    /// Removes slots of which nothing is left, with a last word to the cluster.
    fn bury(&mut self, now: Now) {
        let gone: Vec<InstanceId> =
            self.slots.iter().filter(|(_, s)| s.is_gone()).map(|(id, _)| *id).collect();
        for id in gone {
            let Some(mut slot) = self.slots.remove(&id) else { continue };
            slot.set_state(InstanceState::Undeployed, "removed", now);
            self.notes.report.remove(&id);
            self.notes.farewells.push(slot.status);
            self.notes.persist = true;
        }
    }

    fn tell(&mut self, mut notes: Notes) {
        if !self.link_up {
            return;
        }
        self.effects.extend(notes.sends.into_iter().map(Effect::Send));
        if notes.snapshot {
            self.tell_all();
            notes.report.clear();
        }
        let mut statuses: Vec<InstanceStatus> =
            notes.report.iter().filter_map(|id| Some(self.slots.get(id)?.status.clone())).collect();
        statuses.append(&mut notes.farewells);
        for statuses in statuses.chunks(STATUSES_MAX) {
            let statuses = statuses.to_vec();
            self.effects.push_back(Effect::Send(Up::Observed {
                generation: self.desired.generation(),
                scope: Scope::Change,
                statuses,
            }));
        }
    }

    fn tell_all(&mut self) {
        let statuses: Vec<InstanceStatus> = self.slots.values().map(|s| s.status.clone()).collect();
        for observed in Up::snapshot(self.desired.generation(), &statuses, STATUSES_MAX) {
            self.effects.push_back(Effect::Send(observed));
        }
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            writes: self.writes,
            generation: self.desired.generation(),
            tree: self.tree,
            entries: self.slots.values().map(Slot::entry).collect(),
        }
    }
}

impl Notes {
    fn follow(&mut self, id: InstanceId, follow: Follow) {
        self.persist |= follow.persist;
        if follow.report {
            self.report.insert(id);
        }
    }
}

#[cfg(test)]
mod tests;
