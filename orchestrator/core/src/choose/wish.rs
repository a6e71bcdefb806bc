//! What an instance asks of a child, made ready once for all children that are looked at.
//!
//! Why made ready: selectors are read, services are looked up and bounds are widened once,
//! and not ten thousand times. Instances that ask for none of it pay for none of it.

use super::near::{self, Near};
use crate::child::Child;
use crate::instance::Instance;
use crate::loss::patience_s;
use crate::offer::{Ability, Offer, Traits, values};
use crate::tier::Tier;
use marram_placement::near::Excess;
use marram_placement::{Amounts, Candidate, Policy, policy};
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::reference::{refers_to, service_name};
use marram_protocol::selector::{Labels, Selector};
use marram_protocol::v1::{ChildKind, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};

/// Abilities whose judgement is remembered; children with rarer ones are judged one by one.
pub(super) const JUDGED_MAX: usize = 16;

/// Why a child is no candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misfit<'a> {
    /// It has not told what it runs, and may hold this very instance.
    Silent,
    Cordoned,
    /// It is where a place is looked for against.
    There,
    Refused,
    /// It will leave, and the instance would wait for it for ever.
    Guest,
    /// No child at all will do.
    Hopeless(&'a str),
    Cluster,
    Node,
    Labels,
    Addon(&'a str),
    Virtualization,
    Architecture,
    Port(u16),
    Amounts,
    Far(&'a str, Excess),
    With(&'a str),
    Apart(&'a str),
}

/// What an instance asks of a child.
pub(super) struct Wish<'a> {
    pub(super) instance: &'a Instance,
    pub(super) demand: Amounts,
    pub(super) policy: &'static dyn Policy,
    hopeless: Option<String>,
    /// Only these lead to a cluster that is chosen; no such condition if this tier is in one.
    clusters: Option<BTreeSet<ChildId>>,
    nodes: Option<Vec<Selector>>,
    labels: Option<Labels>,
    /// Services that have to be there, and the children that have an instance of them.
    with: Vec<(&'a str, BTreeSet<ChildId>)>,
    /// Nodes that hold an instance that must not be beside this one.
    apart: BTreeMap<ChildId, &'a str>,
    near: Vec<Near<'a>>,
    /// Instances of the same service, by child, if they count.
    siblings: BTreeMap<ChildId, u32>,
    /// The same by failure domain; empty if they need not be spread.
    domains: BTreeMap<&'a str, u32>,
}

/// What was found out of children that are alike.
#[derive(Default)]
pub(super) struct Judged<'a> {
    abilities: Vec<(&'a Ability, bool)>,
    /// Each at a place that follows from where it is in memory: of two at one place the last
    /// is remembered.
    traits: Vec<Option<(&'a Traits, Likeness)>>,
}

/// What children with the same traits have in common.
#[derive(Clone, Copy)]
struct Likeness {
    labelled: bool,
    /// As [`Candidate::crowd`], of nodes.
    crowd: u32,
}

/// Traits remembered at once: as many as racks at a large site.
const TRAITS_MAX: usize = 256;

impl Tier {
    pub(super) fn wish<'a>(&'a self, instance: &'a Instance) -> Wish<'a> {
        let spec = &instance.workload.spec;
        let placement = &spec.placement;
        let mut hopeless = None;
        if !placement.unsupported.is_empty() {
            hopeless = Some(format!("cannot judge: {}", placement.unsupported.join(", ")));
        }
        let labels = match placement.labels.as_str() {
            "" => None,
            text => text.parse().map_err(|error| hopeless = Some(format!("{error}"))).ok(),
        };
        let wanted =
            if placement.policy.is_empty() { Some(self.policy) } else { policy(&placement.policy) };
        if wanted.is_none() {
            hopeless = Some(format!("there is no policy {:?} here", placement.policy));
        }
        let policy = wanted.unwrap_or(self.policy);
        let siblings = match policy.counts_siblings() || !placement.spread.is_empty() {
            true => self.siblings(instance.workload.instance),
            false => BTreeMap::new(),
        };
        Wish {
            instance,
            demand: spec.resources.amounts(),
            policy,
            hopeless,
            clusters: selectors(&placement.clusters)
                .filter(|all| !self.is_within(all))
                .map(|all| self.lead_to(&all)),
            nodes: selectors(&placement.nodes),
            labels,
            with: placement
                .with
                .iter()
                .map(|with| (with.as_str(), self.with(instance, with)))
                .collect(),
            apart: self.apart(instance),
            near: near::read(self, instance),
            domains: self.domains(&placement.spread, &siblings),
            siblings,
        }
    }

    /// Whether this tier or one above it is chosen, and all below with it.
    fn is_within(&self, selectors: &[Selector]) -> bool {
        let chosen = |name: &str, labels: &[String]| {
            selectors.iter().any(|selector| selector.matches(name, labels))
        };
        chosen(&self.identity.name, &self.identity.labels)
            || self.path().iter().any(|above| chosen(&above.name, &above.labels))
    }

    /// Children that are such a cluster, or have one below.
    fn lead_to(&self, selectors: &[Selector]) -> BTreeSet<ChildId> {
        let chosen = |name: &str, labels: &[String]| {
            selectors.iter().any(|selector| selector.matches(name, labels))
        };
        let leads = |child: &&Child| {
            chosen(&child.name, &child.site.labels)
                || child.told.connected().any(|card| chosen(&card.name, &card.labels))
        };
        self.clusters().filter(leads).map(|child| child.id).collect()
    }

    /// All other instances of a service that hold a place, with their child.
    fn placed_of(&self, service: ServiceId) -> impl Iterator<Item = (&Instance, ChildId)> {
        let first = InstanceId { service, number: 0 };
        let last = InstanceId { service, number: u32::MAX };
        let all = self.instances.range(first..=last);
        all.filter(|(_, i)| i.holds()).filter_map(|(_, i)| Some((i, i.placed?)))
    }

    /// Instances of the services that a reference means, other than `except`.
    pub(super) fn referred<'a>(
        &'a self,
        reference: &'a str,
        except: InstanceId,
    ) -> impl Iterator<Item = (&'a Instance, ChildId)> {
        let services: Vec<ServiceId> = match reference.parse() {
            Ok(id) => vec![id],
            Err(_) => self.services().filter(|(_, name)| *name == reference).map(|s| s.0).collect(),
        };
        let placed = services.into_iter().flat_map(|service| self.placed_of(service));
        placed.filter(move |(instance, _)| instance.workload.instance != except)
    }

    /// Each service of which there is an instance, with its full name.
    fn services(&self) -> impl Iterator<Item = (ServiceId, &str)> {
        let mut next = self.instances.iter().next();
        std::iter::from_fn(move || {
            let (id, instance) = next?;
            let last = InstanceId { number: u32::MAX, ..*id };
            let behind = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
            next = self.instances.range(behind).next();
            Some((id.service, service_name(&instance.workload)))
        })
    }

    fn siblings(&self, id: InstanceId) -> BTreeMap<ChildId, u32> {
        let mut siblings = BTreeMap::new();
        for (other, child) in self.placed_of(id.service) {
            if other.workload.instance != id {
                *siblings.entry(child).or_default() += 1;
            }
        }
        siblings
    }

    fn domains<'a>(
        &'a self,
        key: &'a str,
        siblings: &BTreeMap<ChildId, u32>,
    ) -> BTreeMap<&'a str, u32> {
        let mut domains = BTreeMap::new();
        if key.is_empty() {
            return domains;
        }
        for (child, count) in siblings {
            let Some(summary) = self.children.get(child).and_then(Child::summary) else { continue };
            let domain = values(&summary.labels, key).next().unwrap_or_default();
            *domains.entry(domain).or_default() += count;
        }
        domains
    }

    /// Children where an instance may be that has to be with another service. Two services
    /// that ask for each other would wait for each other: the first goes anywhere.
    fn with(&self, instance: &Instance, reference: &str) -> BTreeSet<ChildId> {
        let id = instance.workload.instance;
        let there: BTreeSet<ChildId> = self.referred(reference, id).map(|(_, c)| c).collect();
        if !there.is_empty() {
            return there;
        }
        let asks = |other: &Instance| {
            let with = &other.workload.spec.placement.with;
            with.iter().any(|reference| refers_to(reference, &instance.workload))
        };
        let others = self.instances.values().filter(|i| refers_to(reference, &i.workload));
        let mut mutual = others.filter(|other| asks(other));
        if mutual.next().is_some() { self.children.keys().copied().collect() } else { there }
    }

    /// Nodes where an instance must not be: it does not want to be beside one there, or one
    /// there does not want to be beside it.
    fn apart<'a>(&'a self, instance: &'a Instance) -> BTreeMap<ChildId, &'a str> {
        let id = instance.workload.instance;
        let mut apart = BTreeMap::new();
        for reference in &instance.workload.spec.placement.apart_from {
            apart
                .extend(self.referred(reference, id).map(|(_, child)| (child, reference.as_str())));
        }
        for other in self.shy.to(&instance.workload).filter_map(|id| self.instances.get(&id)) {
            if let Some(child) = other.placed.filter(|_| other.holds()) {
                apart.insert(child, service_name(&other.workload));
            }
        }
        apart
    }
}

/// `None` asks for nothing. What cannot be read chooses nothing.
fn selectors(texts: &[String]) -> Option<Vec<Selector>> {
    (!texts.is_empty()).then(|| texts.iter().filter_map(|text| text.parse().ok()).collect())
}

impl<'a> Wish<'a> {
    /// Why a child is no candidate, what says most first; else what it has to offer.
    pub(super) fn judge(
        &'a self,
        child: &'a Child,
        judged: &mut Judged<'a>,
    ) -> Result<Candidate, Misfit<'a>> {
        let offer = self.capable(child, judged)?;
        let mut candidate = self.candidate(offer, child, judged);
        if !marram_placement::fits(&self.demand, &candidate) {
            return Err(Misfit::Amounts);
        }
        candidate.strain = self.neighbourly(child, offer)?;
        Ok(candidate)
    }

    /// Whether a child would be a candidate if it had the room.
    pub(super) fn suits(&'a self, child: &'a Child, judged: &mut Judged<'a>) -> bool {
        let offer = self.capable(child, judged);
        offer.is_ok_and(|offer| self.neighbourly(child, offer).is_ok())
    }

    /// What the child is by itself.
    fn capable(
        &'a self,
        child: &'a Child,
        judged: &mut Judged<'a>,
    ) -> Result<&'a Offer, Misfit<'a>> {
        let Some(offer) = &child.offer else {
            let known = child.link.as_ref().is_some_and(|link| link.complete);
            return Err(if known { Misfit::Cordoned } else { Misfit::Silent });
        };
        if self.instance.is_at(child.id) {
            return Err(Misfit::There);
        }
        if self.instance.tried.contains_key(&child.id) {
            return Err(Misfit::Refused);
        }
        if let Some(why) = &self.hopeless {
            return Err(Misfit::Hopeless(why));
        }
        let patience = patience_s(&self.instance.workload.spec.patience, child.kind);
        if patience.is_none() && child.guest {
            return Err(Misfit::Guest);
        }
        self.named(child)?;
        self.labelled(child, offer, judged)?;
        self.able(child, offer, judged)?;
        match self.taken_port(child) {
            Some(port) => Err(Misfit::Port(port)),
            None => Ok(offer),
        }
    }

    /// What the child has to do with others: how far it is, in thousandths of the bounds.
    fn neighbourly(&'a self, child: &'a Child, offer: &Offer) -> Result<u32, Misfit<'a>> {
        let mut most = 0;
        for near in &self.near {
            let strain = near.strain(child, offer).map_err(|why| Misfit::Far(near.what, why))?;
            most = most.max(strain);
        }
        if let Some((whom, _)) = self.with.iter().find(|(_, there)| !there.contains(&child.id)) {
            return Err(Misfit::With(whom));
        }
        match self.apart.get(&child.id).filter(|_| child.kind == ChildKind::Node) {
            Some(whom) => Err(Misfit::Apart(whom)),
            None => Ok(most),
        }
    }

    fn named(&self, child: &Child) -> Result<(), Misfit<'a>> {
        if self.clusters.as_ref().is_some_and(|lead| !lead.contains(&child.id)) {
            return Err(Misfit::Cluster);
        }
        let (Some(nodes), ChildKind::Node) = (&self.nodes, child.kind) else { return Ok(()) };
        let labels = child.summary().map_or(&[][..], |summary| &summary.labels);
        let chosen = nodes.iter().any(|selector| selector.matches(&child.name, labels));
        if chosen { Ok(()) } else { Err(Misfit::Node) }
    }

    fn labelled(
        &self,
        child: &Child,
        offer: &'a Offer,
        judged: &mut Judged<'a>,
    ) -> Result<(), Misfit<'a>> {
        if let Some(wanted) = &self.labels {
            let has = match child.kind {
                ChildKind::Node => self.likeness(offer, judged).labelled,
                ChildKind::Cluster => offer.cut || wanted.may_match_one_of(&offer.traits.labels),
            };
            if !has {
                return Err(Misfit::Labels);
            }
        }
        let mut addons = self.instance.workload.spec.placement.addons.iter();
        let lacks = |addon: &&String| !offer.cut && !offer.traits.addons.contains(addon);
        match addons.find(lacks) {
            Some(addon) => Err(Misfit::Addon(addon)),
            None => Ok(()),
        }
    }

    fn able(
        &self,
        child: &Child,
        offer: &'a Offer,
        judged: &mut Judged<'a>,
    ) -> Result<(), Misfit<'a>> {
        let ability: &'a Ability = &offer.ability;
        let spec = &self.instance.workload.spec;
        let known = judged.abilities.iter().find(|(known, _)| std::ptr::eq(*known, ability));
        let able = match known {
            Some((_, able)) => *able,
            None => {
                let able = inability(ability, spec).is_none();
                if judged.abilities.len() < JUDGED_MAX {
                    judged.abilities.push((ability, able));
                }
                able
            }
        };
        // What a cut list does not name may be there.
        if able || (child.kind == ChildKind::Cluster && offer.cut) {
            return Ok(());
        }
        inability(ability, spec).map_or(Ok(()), Err)
    }

    /// A host port of the instance that something else on the node holds.
    fn taken_port(&self, child: &Child) -> Option<u16> {
        if child.kind != ChildKind::Node {
            return None;
        }
        let mut ports = self.instance.workload.spec.ports.iter();
        ports.find(|p| child.has_port(p.transport, p.host)).map(|p| p.host)
    }

    fn candidate(&self, offer: &'a Offer, child: &Child, judged: &mut Judged<'a>) -> Candidate {
        let (free, slot) = offer.free(child.taken_for(self.instance.workload.instance));
        let siblings = self.siblings.get(&child.id).copied().unwrap_or_default();
        Candidate {
            capacity: offer.capacity.amounts(),
            free: free.amounts(),
            slot: slot.amounts(),
            siblings,
            crowd: self.crowd(child, offer, siblings, judged),
            strain: 0,
        }
    }

    /// What the child that has the instance would have to offer if it had it not; `None` while
    /// it takes nothing.
    pub(super) fn standing(
        &'a self,
        child: &'a Child,
        judged: &mut Judged<'a>,
    ) -> Option<Candidate> {
        let offer = child.offer.as_ref()?;
        let mut candidate = self.candidate(offer, child, judged);
        for (kind, demand) in self.demand.iter().enumerate() {
            candidate.free[kind] = candidate.free[kind].saturating_add(*demand);
            candidate.slot[kind] = candidate.slot[kind].saturating_add(*demand);
        }
        candidate.strain = self.neighbourly(child, offer).unwrap_or(u32::MAX);
        Some(candidate)
    }

    /// Instances for each failure domain there, in thousandths: a node is in one, a cluster
    /// has as many as its labels have values.
    fn crowd(
        &self,
        child: &Child,
        offer: &'a Offer,
        siblings: u32,
        judged: &mut Judged<'a>,
    ) -> u32 {
        let key = &self.instance.workload.spec.placement.spread;
        if key.is_empty() {
            return 0;
        }
        match child.kind {
            ChildKind::Node => self.likeness(offer, judged).crowd,
            ChildKind::Cluster => {
                let values = values(&offer.traits.labels, key).count();
                let domains = u32::try_from(values).unwrap_or(u32::MAX).max(1);
                siblings.saturating_mul(1000) / domains
            }
        }
    }

    fn likeness(&self, offer: &'a Offer, judged: &mut Judged<'a>) -> Likeness {
        let traits: &'a Traits = &offer.traits;
        judged.traits.resize(TRAITS_MAX, None);
        let at = std::ptr::from_ref(traits).addr() / align_of::<Traits>() % TRAITS_MAX;
        if let Some((_, known)) = judged.traits[at].filter(|(k, _)| std::ptr::eq(*k, traits)) {
            return known;
        }
        let domain = values(&traits.labels, &self.instance.workload.spec.placement.spread).next();
        let siblings = self.domains.get(domain.unwrap_or_default()).copied().unwrap_or_default();
        let likeness = Likeness {
            labelled: self.labels.as_ref().is_none_or(|wanted| wanted.matches(&traits.labels)),
            crowd: siblings.saturating_mul(1000),
        };
        judged.traits[at] = Some((traits, likeness));
        likeness
    }
}

fn inability(ability: &Ability, spec: &ServiceSpec) -> Option<Misfit<'static>> {
    let serves = |name: &str| ability.virtualizations.iter().any(|v| v == name);
    if !serves(&spec.virtualization) || !spec.runtime.as_deref().is_none_or(serves) {
        return Some(Misfit::Virtualization);
    }
    let wanted = &spec.architectures;
    let runs = wanted.is_empty() || ability.architectures.iter().any(|a| wanted.contains(a));
    (!runs).then_some(Misfit::Architecture)
}
