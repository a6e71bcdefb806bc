//! Finds a child for an instance, and says why none was found.

use crate::Now;
use crate::child::Child;
use crate::instance::Instance;
use crate::records::Key;
use crate::tier::{Tier, scheduled};
use marram_placement::{Amounts, Candidate};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::port::Transport;
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{ChildKind, Resources, ServiceSpec};

/// First and longest wait before an instance without a place is tried again, doubling.
/// Whatever could change that is heard of at once; this is for what is not.
const RETRY_FIRST_MS: u64 = 5_000;
const RETRY_MAX_MS: u64 = 300_000;

/// Children named in an explanation; the rest are counted.
const REASONS_MAX: usize = 6;

/// Why a child is no candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misfit {
    Silent,
    Refused,
    Name,
    Virtualization,
    Architecture,
    Port(u16),
    Amounts,
    Constraint,
}

impl Tier {
    /// Looks for places for everything that waits for one.
    pub(crate) fn place_waiting(&mut self, now: Now) {
        let waiting: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(_, i)| i.placed.is_none() && i.retry_at_ms.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.place(id, now);
        }
    }

    /// Chooses a child and tells it, or says why not.
    pub(crate) fn place(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.instances.get(&id) else { return };
        if instance.placed.is_some() || instance.removing {
            return;
        }
        let Some(child) = self.choose(id, instance) else { return self.unplaceable(id, now) };
        let kind = self.children.get(&child).map_or(ChildKind::Node, |c| c.kind);
        self.account(id, |instance| {
            instance.placed = Some(child);
            instance.retry_at_ms = None;
            instance.retries = 0;
            instance.set_state(scheduled(kind), "", now);
        });
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
        self.notes.retold.entry(child).or_default().insert(id);
    }

    /// A child cannot run it: the next one.
    pub(crate) fn refused(&mut self, id: InstanceId, by: ChildId, reason: String, now: Now) {
        self.account(id, |instance| {
            instance.placed = None;
            instance.tried.insert(by, reason);
        });
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.retold.entry(by).or_default().insert(id);
        self.place(id, now);
    }

    fn choose(&self, id: InstanceId, instance: &Instance) -> Option<ChildId> {
        // What runs there already, from before this tier lost its books, stays there: it
        // has its room.
        if let Some(child) = self.children.values().find(|c| c.strays.contains(&id)) {
            return Some(child.id);
        }
        let fitting: Vec<&Child> =
            self.children.values().filter(|c| misfit(c, instance).is_none()).collect();
        let demand = amounts(instance.workload.spec.resources);
        let candidates = fitting.iter().map(|child| candidate(child));
        let index = marram_placement::plan(self.policy, &demand, candidates)?;
        fitting.get(index).map(|child| child.id)
    }

    /// A root waits and tries again; a cluster hands the instance back to its parent, and
    /// waits only while there is no parent to hand it to.
    fn unplaceable(&mut self, id: InstanceId, now: Now) {
        let handed_back = self.reporting.is_up();
        let state = if handed_back { InstanceState::Refused } else { InstanceState::Unplaceable };
        let why = self.explain(id);
        self.account(id, |instance| {
            let wait =
                RETRY_FIRST_MS.saturating_mul(1 << instance.retries.min(6)).min(RETRY_MAX_MS);
            instance.retries = instance.retries.saturating_add(1);
            instance.retry_at_ms = (!handed_back).then_some(now.mono_ms + wait);
            instance.set_state(state, &why, now);
        });
        self.notes.changed.insert(id);
    }

    /// Why no child takes the instance, child by child.
    fn explain(&self, id: InstanceId) -> String {
        let Some(instance) = self.instances.get(&id) else { return String::new() };
        if self.children.is_empty() {
            return "there is no child to run it on".into();
        }
        let mut reasons: Vec<String> = self
            .children
            .values()
            .take(REASONS_MAX)
            .map(|child| format!("{}: {}", child.name, self.reason(child, instance)))
            .collect();
        if self.children.len() > REASONS_MAX {
            reasons.push(format!("and {} more", self.children.len() - REASONS_MAX));
        }
        reasons.join("; ")
    }

    fn reason(&self, child: &Child, instance: &Instance) -> String {
        let spec = &instance.workload.spec;
        match misfit(child, instance) {
            Some(Misfit::Silent) => "not connected".into(),
            Some(Misfit::Refused) => {
                instance.tried.get(&child.id).cloned().unwrap_or_else(|| "refused".into())
            }
            Some(Misfit::Name) => "not among the names that the constraints allow".into(),
            Some(Misfit::Virtualization) => {
                format!("has no {:?}", wanted_virtualization(spec))
            }
            Some(Misfit::Architecture) => format!("is not {}", spec.architectures.join(" or ")),
            Some(Misfit::Port(port)) => format!("host port {port} is taken"),
            Some(Misfit::Constraint) => {
                let kinds = spec.placement.unsupported.join(", ");
                format!("constraints of type {kinds} are not supported yet")
            }
            Some(Misfit::Amounts) | None => short_of(child, spec.resources),
        }
    }
}

fn misfit(child: &Child, instance: &Instance) -> Option<Misfit> {
    let spec = &instance.workload.spec;
    // Before it has told what runs there, it may hold this very instance.
    let Some(link) = child.link.as_ref().filter(|link| link.complete) else {
        return Some(Misfit::Silent);
    };
    let summary = &link.summary;
    if instance.tried.contains_key(&child.id) {
        return Some(Misfit::Refused);
    }
    if !spec.placement.unsupported.is_empty() {
        return Some(Misfit::Constraint);
    }
    let names = match child.kind {
        ChildKind::Node => &spec.placement.nodes,
        ChildKind::Cluster => &spec.placement.clusters,
    };
    if !names.is_empty() && !names.contains(&child.name) {
        return Some(Misfit::Name);
    }
    let serves = |name: &str| summary.virtualizations.iter().any(|v| v == name);
    if !serves(&spec.virtualization) || !spec.runtime.as_deref().is_none_or(serves) {
        return Some(Misfit::Virtualization);
    }
    let architectures = &spec.architectures;
    if !architectures.is_empty() && !summary.architectures.iter().any(|a| architectures.contains(a))
    {
        return Some(Misfit::Architecture);
    }
    if let Some(port) = taken_port(child, instance) {
        return Some(Misfit::Port(port));
    }
    let fits = marram_placement::fits(&amounts(spec.resources), &candidate(child));
    (!fits).then_some(Misfit::Amounts)
}

/// A host port of the instance that something else on the node holds.
fn taken_port(child: &Child, instance: &Instance) -> Option<u16> {
    if child.kind != ChildKind::Node {
        return None;
    }
    let key = |transport: Transport, host: u16| (transport, host);
    let mut ports = instance.workload.spec.ports.iter();
    ports.find(|p| child.ports.contains(&key(p.transport, p.host))).map(|p| p.host)
}

fn wanted_virtualization(spec: &ServiceSpec) -> &str {
    spec.runtime.as_deref().unwrap_or(&spec.virtualization)
}

fn candidate(child: &Child) -> Candidate {
    let capacity = child.link.as_ref().map(|l| l.summary.capacity).unwrap_or_default();
    let (free, slot) = child.free();
    Candidate { capacity: amounts(capacity), free: amounts(free), slot: amounts(slot) }
}

fn amounts(resources: Resources) -> Amounts {
    let Resources { memory_mib, cpu_millicores, gpus, storage_mib } = resources;
    [memory_mib, cpu_millicores, gpus, storage_mib]
}

fn short_of(child: &Child, wanted: Resources) -> String {
    let (free, slot) = child.free();
    let wanted = amounts(wanted);
    let units = ["MiB of memory", "millicores", "GPUs", "MiB of disk"];
    let lacks = units.iter().enumerate().filter_map(|(kind, unit)| {
        let most = amounts(free)[kind].min(amounts(slot)[kind]);
        (wanted[kind] > most).then(|| format!("{} {unit} wanted, {most} free", wanted[kind]))
    });
    let text = lacks.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "could take it".into() } else { text }
}
