//! What a tier knows of one child.

use crate::cards::Told;
use crate::claim::Adoption;
use crate::instance::Instance;
use crate::kin::Site;
use crate::offer::{Abilities, Offer};
use crate::peers::bounded_echoes;
use marram_protocol::CLUSTER_INSTANCES_MAX;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::port::Transport;
use marram_protocol::v1::{
    ChildKind, ECHOES_MAX, Generation, Hello, InstanceStatus, Kin, RESOURCE_KINDS, Resources,
    SUMMARY_LIST_MAX, ServiceSpec, Summary, Telemetry,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Facts kept of a child: a page for people.
const FACTS_MAX: usize = 32;

/// Bytes of each fact and its name; longer ones are left out.
const FACT_BYTES_MAX: usize = 256;

/// Bytes of a name, a version, a place or an entry of a summary's lists: a line for people,
/// and ten thousand children say theirs.
pub(crate) const WORD_BYTES_MAX: usize = 64;

/// Instances that a child may name beyond those placed there: as many as it can hold.
const STRAYS_MAX: usize = CLUSTER_INSTANCES_MAX;

/// A child, connected or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// While it can be given work.
    pub(crate) offer: Option<Offer>,
    pub(crate) id: ChildId,
    pub(crate) name: String,
    pub(crate) kind: ChildKind,
    /// Counts changes of its desired state, within the tier's epoch.
    pub(crate) number: u64,
    /// Apart, so that placement, which looks at every child, finds them close together.
    pub(crate) link: Option<Box<Link>>,
    /// That it began with, if this tier has not been restarted since.
    pub(crate) first_number: u64,
    /// When it was last connected, by the wall clock.
    pub(crate) seen_unix_ms: u64,
    reserved: Reserved,
    /// Priorities of what holds something there, ascending, and how many have each.
    priorities: Vec<(i32, u32)>,
    /// Kept free for one that makes others go.
    promised: BTreeMap<InstanceId, Resources>,
    /// All instances placed there, over or not.
    pub(crate) placed: BTreeSet<InstanceId>,
    /// Placed elsewhere, and to end here once they run there.
    pub(crate) leaving: BTreeSet<InstanceId>,
    /// Host ports held there, and by how many.
    ports: BTreeMap<(Transport, u16), u32>,
    /// Alive there and not placed there by this tier: known from an earlier life.
    pub(crate) strays: BTreeSet<InstanceId>,
    /// Takes nothing new, by an operator's wish.
    pub(crate) cordoned: bool,
    /// What is placed there is moved away, by an operator's wish.
    pub(crate) draining: bool,
    /// It would rather have another parent, and goes there when it can.
    pub(crate) guest: bool,
    /// Since when what runs there is not known; `None` while it is.
    pub(crate) silent_since_ms: Option<u64>,
    /// When something placed there is given up, at the earliest.
    pub(crate) loss_due_ms: Option<u64>,
    /// When it is forgotten.
    pub(crate) forget_due_ms: Option<u64>,
    /// Taken over from it while it was silent.
    pub(crate) surplus: BTreeSet<InstanceId>,
    /// What a cluster has said of its place.
    pub(crate) site: Site,
    /// Clusters below it.
    pub(crate) told: Told,
    /// Its last greeting, among all that arrived.
    pub(crate) arrival: u64,
}

/// Sums that never saturate: what was added can be taken away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Reserved([u64; RESOURCE_KINDS]);

impl Reserved {
    fn apply(&mut self, amounts: Resources, change: impl Fn(u64, u64) -> u64) {
        for (held, amount) in self.0.iter_mut().zip(amounts.amounts()) {
            *held = change(*held, amount.into());
        }
    }
}

/// What is known of a child while it is connected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Link {
    pub(crate) incarnation: u64,
    /// The desired state that it came with.
    pub(crate) held: Generation,
    pub(crate) version: String,
    pub(crate) summary: Summary,
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) telemetry: Option<Telemetry>,
    /// Instances named by the snapshot that is coming in.
    pub(crate) snapshot: BTreeSet<InstanceId>,
    /// It was welcomed, and hears of changes as they are made.
    pub(crate) welcomed: bool,
    /// The whole of what runs there is known.
    pub(crate) complete: bool,
    /// The tree that it is of, by its greeting.
    pub(crate) tree: u64,
    /// Until it is welcomed, or its claims are settled.
    pub(crate) adoption: Option<Adoption>,
    /// What it was told of the tree above it, once it was greeted.
    pub(crate) kin: Option<Arc<Kin>>,
}

impl Link {
    /// The child's claims are being settled.
    pub(crate) fn is_adopting(&self) -> bool {
        self.adoption.as_ref().is_some_and(Adoption::has_begun)
    }

    pub(crate) fn new(hello: Hello) -> Self {
        let facts = hello
            .facts
            .into_iter()
            .filter(|(key, value)| key.len() <= FACT_BYTES_MAX && value.len() <= FACT_BYTES_MAX)
            .take(FACTS_MAX)
            .collect();
        Self {
            incarnation: hello.incarnation,
            held: hello.generation,
            version: clip(&hello.version),
            summary: bounded(hello.summary),
            facts,
            telemetry: None,
            snapshot: BTreeSet::new(),
            welcomed: false,
            complete: false,
            tree: hello.tree,
            adoption: Some(Adoption::default()),
            kin: None,
        }
    }
}

impl Child {
    pub(crate) fn new(id: ChildId, name: String, kind: ChildKind) -> Self {
        Self {
            offer: None,
            id,
            name,
            kind,
            number: 0,
            first_number: 0,
            link: None,
            seen_unix_ms: 0,
            reserved: Reserved::default(),
            priorities: Vec::new(),
            promised: BTreeMap::new(),
            placed: BTreeSet::new(),
            leaving: BTreeSet::new(),
            ports: BTreeMap::new(),
            strays: BTreeSet::new(),
            cordoned: false,
            draining: false,
            guest: false,
            silent_since_ms: None,
            loss_due_ms: None,
            forget_due_ms: None,
            surplus: BTreeSet::new(),
            site: Site::default(),
            told: Told::default(),
            arrival: 0,
        }
    }

    /// Notes what the child offers now, for placement.
    pub(crate) fn note_offer(&mut self, abilities: &mut Abilities) {
        let link = self.link.as_ref().filter(|link| link.complete && !link.is_adopting());
        let link = link.filter(|link| !self.cordoned && !link.summary.cordoned);
        self.offer =
            link.map(|link| Offer::new(&link.summary, self.slot(&link.summary), abilities));
    }

    /// What is free in all, and at most in one place.
    pub(crate) fn free(&self) -> (Resources, Resources) {
        let Some(link) = &self.link else { return Default::default() };
        let free = link.summary.capacity.minus(self.reserved());
        (free, free.min(self.slot(&link.summary)))
    }

    fn slot(&self, summary: &Summary) -> Resources {
        match self.kind {
            ChildKind::Node => summary.capacity,
            // What was placed since the summary came is not in it, so a full cluster may be
            // asked once in vain; it refuses, and the next one is tried.
            ChildKind::Cluster => summary.largest_free,
        }
    }

    /// Its id.
    pub fn id(&self) -> ChildId {
        self.id
    }

    /// Its name, unique among its siblings.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn kind(&self) -> ChildKind {
        self.kind
    }

    /// Connected now.
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// When it was last heard of while connected; 0 if never in this life of the tier.
    pub fn seen_unix_ms(&self) -> u64 {
        self.seen_unix_ms
    }

    /// What it can do; `None` while it is not connected.
    pub fn summary(&self) -> Option<&Summary> {
        self.link.as_ref().map(|link| &link.summary)
    }

    /// What it uses, once it has told.
    pub fn telemetry(&self) -> Option<&Telemetry> {
        self.link.as_ref().and_then(|link| link.telemetry.as_ref())
    }

    /// Version of its program.
    pub fn version(&self) -> &str {
        self.link.as_ref().map_or("", |link| &link.version)
    }

    /// What it tells of itself.
    pub fn facts(&self) -> impl Iterator<Item = (&str, &str)> {
        let facts = self.link.iter().flat_map(|link| &link.facts);
        facts.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// One of its facts.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.link.as_ref()?.facts.get(key).map(String::as_str)
    }

    /// Held there for what is placed there.
    pub fn reserved(&self) -> Resources {
        let clamp = |amount: u64| u32::try_from(amount).unwrap_or(u32::MAX);
        Resources::of_amounts(self.reserved.0.map(clamp))
    }

    /// Books an instance on the child.
    pub(crate) fn hold(&mut self, instance: &Instance) {
        let id = instance.workload.instance;
        self.placed.insert(id);
        self.strays.remove(&id);
        if instance.holds() {
            self.reserve(&instance.workload.spec);
        }
    }

    /// Books an instance that leaves the child, until its copy there may end.
    pub(crate) fn hold_leaving(&mut self, instance: &Instance) {
        self.leaving.insert(instance.workload.instance);
        self.reserve(&instance.workload.spec);
    }

    fn reserve(&mut self, spec: &ServiceSpec) {
        self.reserved.apply(spec.resources, u64::saturating_add);
        self.count_priority(spec.placement.priority, true);
        for port in &spec.ports {
            *self.ports.entry((port.transport, port.host)).or_default() += 1;
        }
    }

    /// Undoes [`Child::hold`].
    pub(crate) fn release(&mut self, instance: &Instance) {
        self.placed.remove(&instance.workload.instance);
        if instance.holds() {
            self.unreserve(&instance.workload.spec);
        }
    }

    /// Undoes [`Child::hold_leaving`].
    pub(crate) fn release_leaving(&mut self, instance: &Instance) {
        self.leaving.remove(&instance.workload.instance);
        self.unreserve(&instance.workload.spec);
    }

    fn unreserve(&mut self, spec: &ServiceSpec) {
        self.reserved.apply(spec.resources, u64::saturating_sub);
        self.count_priority(spec.placement.priority, false);
        for port in &spec.ports {
            let key = (port.transport, port.host);
            match self.ports.get_mut(&key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.ports.remove(&key)),
            }
        }
    }

    fn count_priority(&mut self, priority: i32, more: bool) {
        match self.priorities.binary_search_by_key(&priority, |(known, _)| *known) {
            Ok(at) if more => self.priorities[at].1 += 1,
            Ok(at) if self.priorities[at].1 > 1 => self.priorities[at].1 -= 1,
            Ok(at) => drop(self.priorities.remove(at)),
            Err(at) if more => self.priorities.insert(at, (priority, 1)),
            Err(_) => {}
        }
    }

    /// Of all that holds something there.
    pub(crate) fn lowest_priority(&self) -> Option<i32> {
        self.priorities.first().map(|(lowest, _)| *lowest)
    }

    /// Whether something there may end soon.
    pub(crate) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty() || !self.promised.is_empty()
    }

    /// Keeps what others leave for this one.
    pub(crate) fn promise(&mut self, id: InstanceId, amounts: Resources) {
        self.promised.insert(id, amounts);
    }

    /// It has got a place, or needs none.
    pub(crate) fn break_promise(&mut self, id: InstanceId) {
        self.promised.remove(&id);
    }

    /// What is not to be had for this instance: held there, or kept free for others.
    pub(crate) fn taken_for(&self, id: InstanceId) -> Resources {
        if self.promised.is_empty() {
            return self.reserved();
        }
        let others = self.promised.iter().filter(|(other, _)| **other != id);
        others.fold(self.reserved(), |sum, (_, amounts)| sum.plus(*amounts))
    }

    /// Whether something placed there holds the host port.
    pub(crate) fn has_port(&self, transport: Transport, host: u16) -> bool {
        self.ports.contains_key(&(transport, host))
    }

    /// Notes one that is alive there and not placed there. More than the child can hold are
    /// not believed.
    pub(crate) fn note_stray(&mut self, id: InstanceId) {
        if self.strays.len() < STRAYS_MAX {
            self.strays.insert(id);
        }
    }

    /// Takes nothing new: an operator's wish, here or of the child's own.
    pub fn is_cordoned(&self) -> bool {
        self.cordoned || self.summary().is_some_and(|summary| summary.cordoned)
    }

    /// What is placed there is moved away.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether nothing of this tier is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.placed.is_empty() && self.leaving.is_empty()
    }

    /// Whether nothing is lost if it is forgotten.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.link.is_none() && self.is_empty() && !self.cordoned
    }

    /// Number of instances placed there.
    pub fn instances(&self) -> usize {
        self.placed.len()
    }
}

/// The beginning of a text, cut between characters, without what would disturb a terminal.
pub(crate) fn clip(text: &str) -> String {
    let mut end = text.len().min(WORD_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().filter(|c| !c.is_control()).collect()
}

/// A summary whose size does not depend on who sent it.
pub(crate) fn bounded(summary: Summary) -> Summary {
    let mut cut = summary.cut;
    let mut list = |words: Vec<String>| {
        let named = words.len();
        let words = words.into_iter().filter(|word| word.len() <= WORD_BYTES_MAX);
        let words: Vec<String> = words.take(SUMMARY_LIST_MAX).collect();
        cut |= words.len() < named;
        words
    };
    Summary {
        architectures: list(summary.architectures),
        virtualizations: list(summary.virtualizations),
        labels: list(summary.labels),
        addons: list(summary.addons),
        gpu_models: list(summary.gpu_models),
        cut,
        location: clip(&summary.location),
        echoes: bounded_echoes(&summary.echoes).take(ECHOES_MAX).collect(),
        ..summary
    }
}

/// A status whose size does not depend on who sent it: it travels on with others in one
/// message.
pub(crate) fn bounded_status(mut status: InstanceStatus) -> InstanceStatus {
    status.detail = InstanceStatus::detail(&status.detail);
    if let Some(node) = &mut status.node {
        node.name = clip(&node.name);
        node.address = clip(&node.address);
    }
    status
}
