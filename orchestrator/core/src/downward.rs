//! Speaks with children: welcomes them, tells them what is desired, hears how it goes.

use crate::child::{Child, Link, bounded, bounded_status, clip};
use crate::instance::Instance;
use crate::kin::Site;
use crate::records::Key;
use crate::tier::{Tier, workload_bytes};
use crate::{CHILDREN_MAX, Effect, Now};
use marram_protocol::desired::FETCH_MAX;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{
    ChildKind, Down, Generation, Hello, InstanceStatus, ManifestEntry, Scope, Summary, Telemetry,
    Up, Workload,
};
use std::collections::BTreeSet;

/// Workloads in one message go up to here; one more of the largest still fits.
const BATCH_BYTES_MAX: usize = 96 * 1024;

/// Removals in one message beside that: 17 bytes each, a quarter of the message limit.
const REMOVES_MAX: usize = 4_000;

impl Tier {
    /// A child speaks.
    pub(crate) fn hear_child(&mut self, id: ChildId, message: Up, now: Now) {
        match message {
            Up::Hello(hello) => self.hello(id, hello, now),
            Up::Presence { online: false, incarnation } => {
                self.child_gone(id, Some(incarnation), now);
            }
            Up::Observed { generation, scope, statuses } => {
                let held = self.known_number(id, generation);
                self.observed(id, held, scope, statuses, now);
            }
            Up::Resync(_) => self.send_manifest(id),
            Up::Fetch { generation, instances } => self.fetch(id, generation, &instances),
            Up::Summary(summary) => self.summary(id, summary),
            Up::Telemetry(telemetry) => self.telemetry(id, telemetry, now),
            Up::Operated { operation, end } => self.operated(id, operation, end),
            Up::Missed { entries, dropped } => self.hear_missed(entries, dropped),
            Up::Claim(claims) => self.hear_claims(id, claims),
            Up::Clusters { scope, cards, gone } => self.hear_cards(id, scope, cards, &gone),
            // Presence is told by the hello that follows; streams are the shell's.
            Up::Presence { online: true, .. }
            | Up::StreamData { .. }
            | Up::StreamEnd { .. }
            | Up::StreamCredit { .. } => {}
        }
    }

    /// Whether this tier knows what it desires. A cluster with an empty disk does not, and
    /// must not tell its nodes to stop everything before its parent has spoken.
    pub(crate) fn is_established(&self) -> bool {
        self.desired.as_ref().is_none_or(|d| d.generation() != Generation::default())
    }

    fn hello(&mut self, id: ChildId, hello: Hello, now: Now) {
        let unknown = !self.children.contains_key(&id);
        if unknown && self.children.len() >= CHILDREN_MAX {
            let reason = format!("{CHILDREN_MAX} children are the most that a tier takes");
            return self.reject(id, reason, now);
        }
        if let Some(reason) = self.unfit_child(id, &hello) {
            return self.reject(id, reason, now);
        }
        if self.is_turned_away(id, &hello, now) {
            return;
        }
        self.drop_claims(id, now);
        if unknown {
            let name = self.free_name(&hello.name);
            let mut child = Child::new(id, name, hello.kind);
            child.first_number = self.first_number;
            child.number = child.first_number;
            self.children.insert(id, child);
            self.notes.dirty.insert(Key::Child(id));
        }
        self.drop_unheard_grants(id, hello.generation, now);
        let (held, site) = (hello.generation, Site::of(&hello));
        let arrival = self.deck.arrival();
        let Some(child) = self.children.get_mut(&id) else { return };
        child.arrival = arrival;
        if child.site != site {
            child.site = site;
            self.notes.dirty.insert(Key::Child(id));
            self.notes.kin_stale = true;
        }
        self.deck.stale |= child.kind == ChildKind::Cluster;
        let home = hello.preferred.unwrap_or(self.identity.id);
        let guest = home != self.identity.id;
        if child.guest != guest {
            child.guest = guest;
            self.notes.dirty.insert(Key::Child(id));
        }
        child.link = Some(Box::new(Link::new(hello)));
        child.note_offer(&mut self.abilities);
        child.seen_unix_ms = now.unix_ms;
        self.reporting.summary_stale = true;
        // Work is given to it once it has told what it runs.
        self.forget_refusals(id);
        self.note_echoes(id, true);
        self.fall_silent(id, now);
        if self.is_established() && !self.awaits_surplus(id) {
            self.notes.welcomes.insert(id, held);
        }
    }

    /// A child that cannot be taken is no child of this connection.
    pub(crate) fn reject(&mut self, id: ChildId, reason: String, now: Now) {
        self.child_gone(id, None, now);
        self.notes.sends.push(Effect::ToChild(id, Down::Rejected { reason }));
    }

    /// Answers greetings, last of all that follows from an input: the list that is sent then
    /// holds it all.
    pub(crate) fn welcome_children(&mut self, now: Now) {
        let epoch = self.epoch;
        for (id, held) in std::mem::take(&mut self.notes.welcomes) {
            let Some(child) = self.children.get_mut(&id) else { continue };
            let Some(link) = &mut child.link else { continue };
            link.welcomed = true;
            link.adoption = None;
            let welcome = Down::Welcome { epoch, unix_ms: now.unix_ms };
            let current = Generation { epoch, number: child.number };
            self.notes.sends.push(Effect::ToChild(id, welcome));
            self.tell_kin(id);
            if held != current {
                self.send_manifest(id);
            }
        }
    }

    /// The parent has spoken for the first time: children that wait hear what is desired.
    pub(crate) fn welcome_all(&mut self) {
        let waits = |child: &Child| match &child.link {
            Some(link) if !link.welcomed && !link.is_adopting() => Some(link.held),
            _ => None,
        };
        let waiting = self.children.values().filter_map(|child| Some((child.id, waits(child)?)));
        self.notes.welcomes.extend(waiting);
        self.judge_all_claims();
    }

    /// Two boards may be called the same; their ids differ, and so shall their names here.
    fn free_name(&self, wanted: &str) -> String {
        let wanted = clip(wanted);
        let wanted = if wanted.is_empty() { "unnamed" } else { &wanted };
        // The numbers behind it that are taken; 1 stands for the name alone.
        let number = |child: &Child| match child.name.strip_prefix(wanted)? {
            "" => Some(1),
            rest => rest.strip_prefix('-')?.parse::<usize>().ok(),
        };
        let taken: BTreeSet<usize> = self.children.values().filter_map(number).collect();
        match (1..).find(|number| !taken.contains(number)) {
            Some(1) | None => wanted.to_owned(),
            Some(number) => format!("{wanted}-{number}"),
        }
    }

    pub(crate) fn child_gone(&mut self, id: ChildId, incarnation: Option<u64>, now: Now) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let current = child.link.as_ref().map(|link| link.incarnation);
        if current.is_none() || incarnation.is_some_and(|i| Some(i) != current) {
            return;
        }
        child.link = None;
        child.offer = None;
        child.strays.clear();
        child.seen_unix_ms = now.unix_ms;
        self.notes.changed.extend(&child.placed);
        self.reporting.summary_stale = true;
        self.deck.stale |= child.kind == ChildKind::Cluster;
        self.drop_claims(id, now);
        self.prefer_old_on(id, now);
        self.forget_echoes(id);
        self.fall_silent(id, now);
        self.fail_operations(id);
    }

    fn summary(&mut self, id: ChildId, summary: Summary) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(link) = &mut child.link else { return };
        let summary = bounded(summary);
        let known = std::mem::replace(&mut link.summary, summary.clone());
        if known == summary {
            return;
        }
        child.note_offer(&mut self.abilities);
        self.reporting.summary_stale = true;
        self.deck.stale |= child.kind == ChildKind::Cluster;
        self.note_echoes(id, false);
        // Amounts that come and go are no reason to ask again one that has refused: its own
        // attempt would change them, and so on for ever.
        let amounts_only =
            Summary { reserved: summary.reserved, largest_free: summary.largest_free, ..known };
        self.notes.wake.insert(id);
        if amounts_only != summary {
            self.forget_refusals(id);
        }
    }

    /// The child can do something else than when it refused: it may be asked again.
    fn forget_refusals(&mut self, id: ChildId) {
        for instance in self.instances.values_mut().filter(|i| i.retry_at_ms.is_some()) {
            instance.tried.remove(&id);
        }
    }

    fn telemetry(&mut self, id: ChildId, mut telemetry: Telemetry, now: Now) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(link) = &mut child.link else { return };
        child.seen_unix_ms = now.unix_ms;
        for usage in std::mem::take(&mut telemetry.workloads) {
            if child.placed.contains(&usage.instance) {
                self.reporting.note_usage(usage);
            }
        }
        link.telemetry = Some(telemetry);
        self.reporting.telemetry_stale = true;
    }

    fn observed(
        &mut self,
        id: ChildId,
        held: Option<u64>,
        scope: Scope,
        statuses: Vec<InstanceStatus>,
        now: Now,
    ) {
        let Some(link) = self.children.get_mut(&id).and_then(|c| c.link.as_mut()) else { return };
        if let Scope::Snapshot { first: true, .. } = scope {
            link.snapshot.clear();
        }
        self.note_adopted(id, scope, &statuses);
        for status in statuses {
            let instance = status.instance;
            self.one_observed(id, held, bounded_status(status), now);
            // Only what is in the books is noted, so the child cannot name without end.
            if let Scope::Snapshot { .. } = scope
                && let Some(child) = self.children.get_mut(&id)
                && (child.placed.contains(&instance) || child.strays.contains(&instance))
                && let Some(link) = &mut child.link
            {
                link.snapshot.insert(instance);
            }
        }
        if let Scope::Snapshot { last: true, .. } = scope {
            self.snapshot_complete(id, held.unwrap_or_default(), now);
        }
    }

    fn one_observed(&mut self, by: ChildId, held: Option<u64>, status: InstanceStatus, now: Now) {
        let id = status.instance;
        let Some(instance) = self.instances.get(&id).filter(|i| i.placed == Some(by)) else {
            if self.instances.get(&id).is_some_and(|i| i.leaving() == Some(by)) {
                return self.leaving_observed(by, held.unwrap_or_default(), status, now);
            }
            if !self.take_back(by, &status, now) {
                self.stray(by, held.is_none(), &status);
            }
            return;
        };
        if held.unwrap_or_default() < instance.told {
            return;
        }
        match status.state {
            InstanceState::Undeployed => {
                // If it is wanted again by now, the child has been told and will start it.
                if instance.removing || instance.stopping {
                    self.ended_on(id, by, now);
                }
            }
            InstanceState::Refused if instance.removing || instance.stopping => {
                self.ended_on(id, by, now);
            }
            InstanceState::Refused if status.revision == instance.workload.revision => {
                self.refused(id, by, &status.detail, now);
            }
            // Of another revision than the one that was asked for since.
            InstanceState::Refused => {}
            state => {
                if !instance.status.state.is_over() && state.is_over() {
                    self.notes.wake.insert(by);
                }
                self.account(id, |instance| {
                    if took_hold(state) {
                        instance.retries = 0;
                        instance.lost_with = None;
                    }
                    instance.status = status;
                });
                self.notes.changed.insert(id);
                self.judge_lost(by, id, now);
                self.prefer_old(id, now);
                let done = matches!(state, InstanceState::Running | InstanceState::Completed);
                if self.note_confirmed(id) || done {
                    self.finish_move(id, now);
                } else if state == InstanceState::Dead {
                    self.abort_move(id, "it is given up where it was moved to", now);
                }
            }
        }
    }

    /// A child tells of an instance that is not placed there. What it does by the word of an
    /// earlier life of this tier, whose books are lost, may stay there; what it does by this
    /// tier's word is on its way out.
    fn stray(&mut self, by: ChildId, of_earlier_life: bool, status: &InstanceStatus) {
        let id = status.instance;
        let Some(child) = self.children.get_mut(&by) else { return };
        if status.state.is_over() || !of_earlier_life {
            child.strays.remove(&id);
            return;
        }
        child.note_stray(id);
        if self.instances.get(&id).is_some_and(Instance::seeks) {
            self.notes.wake.insert(by);
        }
    }

    fn snapshot_complete(&mut self, id: ChildId, held: u64, now: Now) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(link) = &mut child.link else { return };
        link.complete = true;
        let named = std::mem::take(&mut link.snapshot);
        child.note_offer(&mut self.abilities);
        child.strays.retain(|stray| named.contains(stray));
        let placed: Vec<InstanceId> = child.placed.union(&child.leaving).copied().collect();
        self.notes.changed.extend(&placed);
        self.notes.wake.insert(id);
        // What was to be removed and is not there was never there or is gone.
        for instance in placed.into_iter().filter(|i| !named.contains(i)) {
            let ended = |i: &Instance| (i.removing || i.stopping) && i.told_to(id) <= held;
            if self.instances.get(&instance).is_some_and(ended) {
                self.ended_on(instance, id, now);
            }
        }
        self.returned(id, now);
    }

    fn desired_of(&self, id: ChildId) -> impl Iterator<Item = &Instance> {
        let here = self.children.get(&id).into_iter().flat_map(|c| c.placed.union(&c.leaving));
        here.filter_map(|i| self.instances.get(i)).filter(move |i| i.is_desired_on(id))
    }

    pub(crate) fn send_manifest(&mut self, id: ChildId) {
        let Some(child) = self.children.get(&id) else { return };
        if !child.link.as_ref().is_some_and(|link| link.welcomed) {
            return;
        }
        let generation = Generation { epoch: self.epoch, number: child.number };
        let entry = |i: &Instance| ManifestEntry {
            instance: i.workload.instance,
            digest: i.workload.digest(),
        };
        let entries = self.desired_of(id).map(entry).collect();
        self.notes.sends.push(Effect::ToChild(id, Down::Manifest { generation, entries }));
    }

    fn fetch(&mut self, id: ChildId, generation: Generation, instances: &[InstanceId]) {
        let Some(child) = self.children.get(&id) else { return };
        if (Generation { epoch: self.epoch, number: child.number }) != generation {
            return self.send_manifest(id);
        }
        // Each once, and no more than a child of this version asks for at a time.
        let asked: BTreeSet<&InstanceId> = instances.iter().take(FETCH_MAX).collect();
        let asked = asked.into_iter().filter_map(|i| self.instances.get(i));
        let workloads: Vec<Workload> =
            asked.filter(|i| i.is_desired_on(id)).map(|i| i.workload.clone()).collect();
        for workloads in batches(workloads) {
            self.notes.sends.push(Effect::ToChild(id, Down::Specs { generation, workloads }));
        }
    }

    /// One change for each child whose desired state is other than before.
    pub(crate) fn retell_children(&mut self) {
        for (id, instances) in std::mem::take(&mut self.notes.retold) {
            let wanted = |i: &InstanceId| self.instances.get(i).filter(|i| i.is_desired_on(id));
            let removes = instances.iter().filter(|i| wanted(i).is_none()).copied().collect();
            let upserts = instances.iter().filter_map(wanted).map(|i| i.workload.clone());
            let removes: Vec<InstanceId> = removes;
            let mut upserts = batches(upserts.collect()).into_iter();
            let mut removes = removes.chunks(REMOVES_MAX);
            let Some(child) = self.children.get_mut(&id) else { continue };
            loop {
                let (upserts, removes) = match (upserts.next(), removes.next()) {
                    (None, None) => break,
                    (upserts, removes) => {
                        (upserts.unwrap_or_default(), removes.unwrap_or_default())
                    }
                };
                let base = Generation { epoch: self.epoch, number: child.number };
                child.number += 1;
                let generation = Generation { number: child.number, ..base };
                let removes = removes.to_vec();
                if child.link.as_ref().is_some_and(|link| link.welcomed) {
                    let change = Down::Change { base, generation, upserts, removes };
                    self.notes.sends.push(Effect::ToChild(id, change));
                }
            }
            let number = child.number;
            for instance in instances {
                if let Some(instance) = self.instances.get_mut(&instance) {
                    instance.note_told(id, number);
                }
            }
            self.notes.dirty.insert(Key::Child(id));
        }
    }
}

/// Whether a child has not only been told of an instance but has got on with it: from here on
/// a refusal is a new one.
fn took_hold(state: InstanceState) -> bool {
    use InstanceState::{Completed, Created, Running};
    matches!(state, Created | Running | Completed)
}

/// Parts a list so that each part fits one message.
fn batches(workloads: Vec<Workload>) -> Vec<Vec<Workload>> {
    let mut batches: Vec<Vec<Workload>> = Vec::new();
    let mut room = 0;
    for workload in workloads {
        let size = workload_bytes(&workload);
        match batches.last_mut() {
            Some(batch) if size <= room => {
                batch.push(workload);
                room -= size;
            }
            _ => {
                batches.push(vec![workload]);
                room = BATCH_BYTES_MAX.saturating_sub(size);
            }
        }
    }
    batches
}
