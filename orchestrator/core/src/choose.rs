//! Finds a child for an instance, and says why none was found.

use crate::Now;
use crate::child::{Ability, Child, Offer};
use crate::instance::{Instance, REASONS_MAX, TRIED_MAX};
use crate::records::Key;
use crate::tier::{Tier, scheduled};
use marram_placement::{Amounts, Candidate};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{ChildKind, Resources, ServiceSpec};
use std::collections::BTreeSet;

/// First and longest wait before an instance without a place is tried again, doubling.
/// Whatever could change that is heard of at once; this is for what is not.
const RETRY_FIRST_MS: u64 = 5_000;
const RETRY_MAX_MS: u64 = 300_000;

/// Explanations that are written anew whenever a child changes: the first so many that wait.
/// The others' are as old as their last retry.
const EXPLAINED_MAX: usize = 100;

/// Retries at once: each looks at every child, and other inputs wait meanwhile.
const RETRIES_MAX: usize = 64;

/// Why a child is no candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misfit {
    Silent,
    Cordoned,
    /// It is where a place is looked for against.
    There,
    Refused,
    Name,
    Virtualization,
    Architecture,
    Port(u16),
    Amounts,
    Constraint,
}

impl Tier {
    /// Looks for places, on children that can do more than before, for all that wait for one.
    /// On other children nothing has changed since they were looked at.
    pub(crate) fn place_waiting(&mut self, children: &BTreeSet<ChildId>, now: Now) {
        let seeks = |(id, i): (&InstanceId, &Instance)| i.seeks().then_some(*id);
        let waiting: Vec<InstanceId> = self.instances.iter().filter_map(seeks).collect();
        for (index, id) in waiting.into_iter().enumerate() {
            let Some(instance) = self.instances.get(&id) else { continue };
            let changed = children.iter().filter_map(|child| self.children.get(child));
            match self.choose(id, instance, changed) {
                Some(child) => self.place_on(id, child, now),
                None if index < EXPLAINED_MAX => {
                    let why = self.explain(id);
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
        let due = self.instances.iter().filter(|(_, i)| is_due(i)).map(|(id, _)| *id);
        for id in due.take(RETRIES_MAX).collect::<Vec<_>>() {
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.tried.clear();
            }
            self.place(id, now);
        }
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
        match self.choose(id, instance, self.children.values()) {
            Some(child) => self.place_on(id, child, now),
            None => self.unplaceable(id, now),
        }
    }

    pub(crate) fn place_on(&mut self, id: InstanceId, child: ChildId, now: Now) {
        let kind = self.children.get(&child).map_or(ChildKind::Node, |c| c.kind);
        let why = self.leave_lost(id);
        self.account(id, |instance| {
            instance.placed = Some(child);
            instance.handed_back = false;
            instance.stays = None;
            instance.retry_at_ms = None;
            instance.set_state(scheduled(kind), &why, now);
        });
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
        self.notes.retold.entry(child).or_default().insert(id);
    }

    /// A child cannot run it: the next one.
    pub(crate) fn refused(&mut self, id: InstanceId, by: ChildId, reason: &str, now: Now) {
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

    pub(crate) fn choose<'a>(
        &self,
        id: InstanceId,
        instance: &Instance,
        among: impl Iterator<Item = &'a Child>,
    ) -> Option<ChildId> {
        if instance.tried.len() >= TRIED_MAX {
            return None;
        }
        let demand = amounts(instance.workload.spec.resources);
        let mut sieve = Sieve::new(instance);
        let (mut fitting, mut has_it) = (Vec::new(), None);
        let candidates = among.filter_map(|child| {
            // What runs there already, from before this tier lost its books, stays there: it
            // has its room.
            if child.strays.contains(&id) && !instance.tried.contains_key(&child.id) {
                has_it.get_or_insert(child.id);
            }
            let candidate = sieve.pass(child, &demand)?;
            fitting.push(child.id);
            Some(candidate)
        });
        let index = marram_placement::plan(self.policy, &demand, candidates);
        has_it.or_else(|| fitting.get(index?).copied())
    }

    /// A root waits and tries again; a cluster hands the instance back to its parent, and
    /// waits only while there is no parent to hand it to.
    fn unplaceable(&mut self, id: InstanceId, now: Now) {
        let is_lost = instance_is_lost(self, id);
        let handed_back = self.reporting.is_up() && !is_lost;
        let state = if handed_back { InstanceState::Refused } else { InstanceState::Unplaceable };
        let why = self.explain(id);
        if self.abort_move(id, &why) {
            return;
        }
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

    /// Why no child takes the instance, child by child.
    pub(crate) fn explain(&self, id: InstanceId) -> String {
        let Some(instance) = self.instances.get(&id) else { return String::new() };
        if self.children.is_empty() {
            return "there is no child to run it on".into();
        }
        if instance.tried.len() >= TRIED_MAX {
            let reason = instance.tried.values().find(|reason| !reason.is_empty());
            let reason = reason.map_or("", String::as_str);
            return format!("{TRIED_MAX} children have refused it, the first: {reason}");
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
            Some(Misfit::Cordoned) => "cordoned".into(),
            Some(Misfit::There) => "it is there".into(),
            Some(Misfit::Silent) if child.is_connected() => "has not told what it runs".into(),
            Some(Misfit::Silent) => "not connected".into(),
            Some(Misfit::Refused) => {
                let said = instance.tried.get(&child.id).filter(|said| !said.is_empty());
                said.cloned().unwrap_or_else(|| "has refused it".into())
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

/// Sorts out children that an instance cannot be given to, the cheapest questions first: it
/// is asked of all of them.
struct Sieve<'a> {
    instance: &'a Instance,
    /// Most children can run the same.
    judged: Vec<(&'a Ability, bool)>,
}

/// Abilities whose judgement is remembered; children with rarer ones are judged one by one.
const JUDGED_MAX: usize = 16;

impl<'a> Sieve<'a> {
    fn new(instance: &'a Instance) -> Self {
        Self { instance, judged: Vec::new() }
    }

    /// Agrees with [`misfit`].
    fn pass<'b: 'a>(&mut self, child: &'b Child, demand: &Amounts) -> Option<Candidate> {
        let offer = child.offer.as_ref()?;
        let candidate = candidate(offer, child);
        let passes = marram_placement::fits(demand, &candidate)
            && !self.instance.is_at(child.id)
            && self.is_able(&offer.ability)
            && !self.instance.tried.contains_key(&child.id)
            && is_allowed(child, self.instance)
            && taken_port(child, self.instance).is_none();
        passes.then_some(candidate)
    }

    fn is_able<'b: 'a>(&mut self, ability: &'b Ability) -> bool {
        if let Some((_, able)) = self.judged.iter().find(|(known, _)| std::ptr::eq(*known, ability))
        {
            return *able;
        }
        let able = inability(ability, &self.instance.workload.spec).is_none();
        if self.judged.len() < JUDGED_MAX {
            self.judged.push((ability, able));
        }
        able
    }
}

/// Whether it has a place, and looks for another since that one is lost.
fn instance_is_lost(tier: &Tier, id: InstanceId) -> bool {
    tier.instances.get(&id).is_some_and(|instance| instance.lost.is_some())
}

/// Why a child is no candidate, what says most first; `None` if it is one.
fn misfit(child: &Child, instance: &Instance) -> Option<Misfit> {
    let spec = &instance.workload.spec;
    // Before it has told what runs there, it may hold this very instance.
    let Some(offer) = &child.offer else {
        let known = child.link.as_ref().is_some_and(|link| link.complete);
        return Some(if known { Misfit::Cordoned } else { Misfit::Silent });
    };
    if instance.is_at(child.id) {
        return Some(Misfit::There);
    }
    if instance.tried.contains_key(&child.id) {
        return Some(Misfit::Refused);
    }
    if !spec.placement.unsupported.is_empty() {
        return Some(Misfit::Constraint);
    }
    if !is_allowed(child, instance) {
        return Some(Misfit::Name);
    }
    if let Some(inability) = inability(&offer.ability, spec) {
        return Some(inability);
    }
    if let Some(port) = taken_port(child, instance) {
        return Some(Misfit::Port(port));
    }
    let fits = marram_placement::fits(&amounts(spec.resources), &candidate(offer, child));
    (!fits).then_some(Misfit::Amounts)
}

/// Whether the constraints allow the child.
fn is_allowed(child: &Child, instance: &Instance) -> bool {
    let placement = &instance.workload.spec.placement;
    let names = match child.kind {
        ChildKind::Node => &placement.nodes,
        ChildKind::Cluster => &placement.clusters,
    };
    placement.unsupported.is_empty() && (names.is_empty() || names.contains(&child.name))
}

fn inability(ability: &Ability, spec: &ServiceSpec) -> Option<Misfit> {
    let serves = |name: &str| ability.virtualizations.iter().any(|v| v == name);
    if !serves(&spec.virtualization) || !spec.runtime.as_deref().is_none_or(serves) {
        return Some(Misfit::Virtualization);
    }
    let wanted = &spec.architectures;
    let runs = wanted.is_empty() || ability.architectures.iter().any(|a| wanted.contains(a));
    (!runs).then_some(Misfit::Architecture)
}

/// A host port of the instance that something else on the node holds.
fn taken_port(child: &Child, instance: &Instance) -> Option<u16> {
    if child.kind != ChildKind::Node {
        return None;
    }
    let mut ports = instance.workload.spec.ports.iter();
    ports.find(|p| child.has_port(p.transport, p.host)).map(|p| p.host)
}

fn wanted_virtualization(spec: &ServiceSpec) -> &str {
    spec.runtime.as_deref().unwrap_or(&spec.virtualization)
}

fn candidate(offer: &Offer, child: &Child) -> Candidate {
    let (free, slot) = offer.free(child.reserved());
    let (free, slot) = (amounts(free), amounts(slot));
    Candidate { capacity: amounts(offer.capacity), free, slot, ..Candidate::default() }
}

fn amounts(resources: Resources) -> Amounts {
    resources.amounts()
}

fn short_of(child: &Child, wanted: Resources) -> String {
    let (free, slot) = child.free();
    let wanted = amounts(wanted);
    let units = [
        "MiB of memory",
        "millicores",
        "GPUs",
        "MiB of disk",
        "MiB of GPU memory",
        "kbit/s towards it",
        "kbit/s from it",
    ];
    let lacks = units.iter().enumerate().filter_map(|(kind, unit)| {
        let most = amounts(free)[kind].min(amounts(slot)[kind]);
        (wanted[kind] > most).then(|| format!("{} {unit} wanted, {most} free", wanted[kind]))
    });
    let text = lacks.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "could take it".into() } else { text }
}

#[cfg(test)]
mod tests;
