//! Speaks with children: welcomes them, tells them what is desired, hears how it goes.

use crate::child::{Child, Link};
use crate::instance::Instance;
use crate::records::Key;
use crate::tier::{Tier, workload_bytes};
use crate::{CHILDREN_MAX, Effect, Now};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{
    Down, Generation, Hello, InstanceStatus, ManifestEntry, Scope, Summary, Telemetry, Up, Workload,
};

/// Workloads in one message go up to here; one more of the largest still fits.
const BATCH_BYTES_MAX: usize = 96 * 1024;

/// Longest name of a child.
const NAME_BYTES_MAX: usize = 64;

impl Tier {
    /// A child speaks.
    pub(crate) fn hear_child(&mut self, id: ChildId, message: Up, now: Now) {
        match message {
            Up::Hello(hello) => self.hello(id, hello, now),
            Up::Presence { online: false, incarnation } => {
                self.child_gone(id, Some(incarnation), now);
            }
            Up::Observed { generation, scope, statuses } => {
                // Of another epoch, it was seen under nothing that this tier has said.
                let known = generation.epoch == self.epoch;
                let held = if known { generation.number } else { 0 };
                self.observed(id, held, scope, statuses, now);
            }
            Up::Resync(_) => self.send_manifest(id),
            Up::Fetch { generation, instances } => self.fetch(id, generation, &instances),
            Up::Summary(summary) => self.summary(id, summary),
            Up::Telemetry(telemetry) => self.telemetry(id, telemetry, now),
            // Presence is told by the hello that follows; streams are the shell's.
            Up::Presence { online: true, .. }
            | Up::StreamData { .. }
            | Up::StreamEnd { .. }
            | Up::StreamCredit { .. } => {}
        }
    }

    /// Whether this tier knows what it desires. A cluster with an empty disk does not, and
    /// must not tell its nodes to stop everything before its parent has spoken.
    fn is_established(&self) -> bool {
        self.desired.as_ref().is_none_or(|d| d.generation() != Generation::default())
    }

    fn hello(&mut self, id: ChildId, hello: Hello, now: Now) {
        let unknown = !self.children.contains_key(&id);
        if unknown && self.children.len() >= CHILDREN_MAX {
            let reason = format!("{CHILDREN_MAX} children are the most that a tier takes");
            self.notes.sends.push(Effect::ToChild(id, Down::Rejected { reason }));
            return;
        }
        if unknown {
            let name = self.free_name(&hello.name);
            self.children.insert(id, Child::new(id, name, hello.kind));
            self.notes.dirty.insert(Key::Child(id));
        }
        let held = hello.generation;
        let Some(child) = self.children.get_mut(&id) else { return };
        child.link = Some(Link::new(hello));
        child.seen_unix_ms = now.unix_ms;
        self.reporting.summary_stale = true;
        self.forget_refusals(id);
        if self.is_established() {
            self.welcome(id, held, now);
        }
    }

    fn welcome(&mut self, id: ChildId, held: Generation, now: Now) {
        let epoch = self.epoch;
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(link) = &mut child.link else { return };
        link.welcomed = true;
        let welcome = Down::Welcome { epoch, unix_ms: now.unix_ms };
        let current = Generation { epoch, number: child.number };
        self.notes.sends.push(Effect::ToChild(id, welcome));
        if held != current {
            self.send_manifest(id);
        }
    }

    /// The parent has spoken for the first time: children that wait hear what is desired.
    pub(crate) fn welcome_all(&mut self, now: Now) {
        let waiting =
            self.children.values().filter(|c| c.link.as_ref().is_some_and(|link| !link.welcomed));
        for id in waiting.map(|c| c.id).collect::<Vec<_>>() {
            self.welcome(id, Generation::default(), now);
        }
    }

    /// Two boards may be called the same; their ids differ, and so shall their names here.
    fn free_name(&self, wanted: &str) -> String {
        let mut end = wanted.len().min(NAME_BYTES_MAX);
        while !wanted.is_char_boundary(end) {
            end -= 1;
        }
        let wanted = if end == 0 { "unnamed" } else { &wanted[..end] };
        let taken = |name: &str| self.children.values().any(|c| c.name == name);
        let numbered = (2..).map(|n: usize| format!("{wanted}-{n}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
        names.find(|name| !taken(name)).unwrap_or_default()
    }

    pub(crate) fn child_gone(&mut self, id: ChildId, incarnation: Option<u64>, now: Now) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let current = child.link.as_ref().map(|link| link.incarnation);
        if current.is_none() || incarnation.is_some_and(|i| Some(i) != current) {
            return;
        }
        child.link = None;
        child.strays.clear();
        child.seen_unix_ms = now.unix_ms;
        self.notes.changed.extend(&child.placed);
        self.reporting.summary_stale = true;
    }

    fn summary(&mut self, id: ChildId, summary: Summary) {
        let Some(link) = self.children.get_mut(&id).and_then(|c| c.link.as_mut()) else { return };
        let known = std::mem::replace(&mut link.summary, summary);
        let summary = &link.summary;
        if known == *summary {
            return;
        }
        self.reporting.summary_stale = true;
        // Amounts that come and go are no reason to ask again one that has refused: its own
        // attempt would change them, and so on for ever.
        let amounts_only =
            Summary { reserved: summary.reserved, largest_free: summary.largest_free, ..known };
        if amounts_only == *summary {
            self.notes.wake = true;
        } else {
            self.forget_refusals(id);
        }
    }

    /// The child can do something else than when it refused: it may be asked again.
    fn forget_refusals(&mut self, id: ChildId) {
        for instance in self.instances.values_mut().filter(|i| i.retry_at_ms.is_some()) {
            instance.tried.remove(&id);
        }
        self.notes.wake = true;
    }

    fn telemetry(&mut self, id: ChildId, telemetry: Telemetry, now: Now) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(link) = &mut child.link else { return };
        child.seen_unix_ms = now.unix_ms;
        for usage in &telemetry.workloads {
            if child.placed.contains(&usage.instance) {
                self.reporting.note_usage(*usage);
            }
        }
        link.telemetry = Some(telemetry);
        self.reporting.telemetry_stale = true;
    }

    fn observed(
        &mut self,
        id: ChildId,
        held: u64,
        scope: Scope,
        statuses: Vec<InstanceStatus>,
        now: Now,
    ) {
        let Some(link) = self.children.get_mut(&id).and_then(|c| c.link.as_mut()) else { return };
        if let Scope::Snapshot { first, .. } = scope {
            if first {
                link.snapshot.clear();
            }
            link.snapshot.extend(statuses.iter().map(|s| s.instance));
        }
        for status in statuses {
            self.one_observed(id, held, status, now);
        }
        if let Scope::Snapshot { last: true, .. } = scope {
            self.snapshot_complete(id, held, now);
        }
    }

    fn one_observed(&mut self, by: ChildId, held: u64, status: InstanceStatus, now: Now) {
        let id = status.instance;
        let Some(instance) = self.instances.get(&id).filter(|i| i.placed == Some(by)) else {
            return self.stray(by, &status, now);
        };
        if held < instance.told {
            return;
        }
        match status.state {
            InstanceState::Undeployed => {
                // If it is wanted again by now, the child has been told and will start it.
                if instance.removing {
                    self.gone(id, now);
                }
            }
            InstanceState::Refused if instance.removing => self.gone(id, now),
            InstanceState::Refused if status.revision == instance.workload.revision => {
                self.refused(id, by, status.detail, now);
            }
            _ => {
                let was_over = instance.status.state.is_over();
                self.notes.wake |= !was_over && status.state.is_over();
                self.account(id, |instance| instance.status = status);
                self.notes.changed.insert(id);
            }
        }
    }

    /// A child tells of an instance that was not placed there: perhaps by an earlier life
    /// of this tier, whose books are lost.
    fn stray(&mut self, by: ChildId, status: &InstanceStatus, now: Now) {
        let id = status.instance;
        let Some(child) = self.children.get_mut(&by) else { return };
        if status.state.is_over() {
            child.strays.remove(&id);
            return;
        }
        child.strays.insert(id);
        if self.instances.get(&id).is_some_and(|i| i.placed.is_none()) {
            self.place(id, now);
        }
    }

    fn snapshot_complete(&mut self, id: ChildId, held: u64, now: Now) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(link) = &mut child.link else { return };
        link.complete = true;
        let named = std::mem::take(&mut link.snapshot);
        child.strays.retain(|stray| named.contains(stray));
        let placed: Vec<InstanceId> = child.placed.iter().copied().collect();
        self.notes.changed.extend(&placed);
        self.notes.wake = true;
        // What was to be removed and is not there was never there or is gone.
        for instance in placed.into_iter().filter(|i| !named.contains(i)) {
            if self.instances.get(&instance).is_some_and(|i| i.removing && i.told <= held) {
                self.gone(instance, now);
            }
        }
    }

    fn desired_of(&self, id: ChildId) -> impl Iterator<Item = &Instance> {
        let placed = self.children.get(&id).into_iter().flat_map(|c| &c.placed);
        placed.filter_map(|i| self.instances.get(i)).filter(|i| !i.removing)
    }

    fn send_manifest(&mut self, id: ChildId) {
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
        let asked = |i: &&Instance| instances.contains(&i.workload.instance);
        let workloads: Vec<Workload> =
            self.desired_of(id).filter(asked).map(|i| i.workload.clone()).collect();
        for workloads in batches(workloads) {
            self.notes.sends.push(Effect::ToChild(id, Down::Specs { generation, workloads }));
        }
    }

    /// One change for each child whose desired state is other than before.
    pub(crate) fn retell_children(&mut self) {
        for (id, instances) in std::mem::take(&mut self.notes.retold) {
            let wanted = |i: &InstanceId| {
                self.instances.get(i).filter(|i| i.placed == Some(id) && !i.removing)
            };
            let removes = instances.iter().filter(|i| wanted(i).is_none()).copied().collect();
            let upserts = instances.iter().filter_map(wanted).map(|i| i.workload.clone());
            let mut removes: Vec<InstanceId> = removes;
            let mut upserts = batches(upserts.collect());
            if upserts.is_empty() {
                upserts.push(Vec::new());
            }
            let Some(child) = self.children.get_mut(&id) else { continue };
            for upserts in upserts {
                let base = Generation { epoch: self.epoch, number: child.number };
                child.number += 1;
                let generation = Generation { number: child.number, ..base };
                let removes = std::mem::take(&mut removes);
                if child.link.as_ref().is_some_and(|link| link.welcomed) {
                    let change = Down::Change { base, generation, upserts, removes };
                    self.notes.sends.push(Effect::ToChild(id, change));
                }
            }
            let number = child.number;
            for instance in instances {
                if let Some(instance) = self.instances.get_mut(&instance)
                    && instance.placed == Some(id)
                {
                    instance.told = number;
                }
            }
            self.notes.dirty.insert(Key::Child(id));
        }
    }
}

impl Child {
    /// Books an instance on the child.
    pub(crate) fn hold(&mut self, instance: &Instance) {
        self.placed.insert(instance.workload.instance);
        if instance.holds() {
            let spec = &instance.workload.spec;
            self.reserved = self.reserved.plus(spec.resources);
            self.ports.extend(spec.ports.iter().map(|p| (p.transport, p.host)));
        }
    }

    /// Undoes [`Child::hold`].
    pub(crate) fn release(&mut self, instance: &Instance) {
        self.placed.remove(&instance.workload.instance);
        if instance.holds() {
            let spec = &instance.workload.spec;
            self.reserved = self.reserved.minus(spec.resources);
            for port in &spec.ports {
                self.ports.remove(&(port.transport, port.host));
            }
        }
    }
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
