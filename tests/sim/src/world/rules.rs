//! What must hold after every step. The list stands in docs/TESTING.md as well.
//!
//! - capacity: what runs on a node fits it;
//! - books: what a tier has reserved on a child is the sum of what it has placed there;
//! - one copy: no instance runs on two machines for longer than the takeover window while the
//!   ways from the root to both are whole;
//! - never two: an instance with `patience.parent_s` runs on two machines at no time, but where
//!   programs stand still, backends do not do as they are told, an operator says of a child
//!   that lives that it will not come back, or a cluster's broker is not its own;
//! - generations: what a child has told that it holds it never falls behind, a node holds just
//!   what its cluster named by the number that it holds, and a parent never gives two lists the
//!   same number, nor anything that was removed at the root;
//! - acknowledged: the root never forgets what it has acknowledged (see `operator`);
//! - starts: an engine starts only what is desired there, and what its cluster has named by the
//!   very number that the engine holds; so nothing of a deleted service once it has heard;
//! - places: nothing is made where its selector does not allow it;
//! - stops: nothing that is wanted is stopped, unless some tier gave it to somebody else;
//! - states: an instance goes from state to state as the table says (see `states`);
//! - memory: no core remembers more than its stated bounds.

use super::{ROOT, World};
use crate::backend::Mood;
use crate::disk::Write;
use crate::network::Actor;
use marram_engine_core::Effect;
use marram_orchestrator_core::CHILDREN_MAX;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{DETAIL_BYTES_MAX, Down, Resources, Up};
use marram_protocol::{CLUSTER_INSTANCES_MAX, NODE_INSTANCES_MAX};
use std::collections::{BTreeMap, BTreeSet};

/// The stated takeover window: once the ways to both copies are whole, one is gone within it.
/// A stop may fail a few times, and each time waits twice as long.
const WINDOW_MS: u64 = 60_000;

/// The same where children take other parents: a claim waits for a word that may be out of
/// date, at each tier that it passes.
const FAILOVER_WINDOW_MS: u64 = 240_000;

/// A broken way is noticed within a minute and a half; then the copy ends, perhaps not at the
/// first attempt.
const STEADY_MS: u64 = 150_000;

/// Children that one instance was offered to and that are remembered, as the core states.
const TRIED_MAX: usize = 256;

/// Books of so many instances are looked at after each step; larger ones less often.
const THOROUGH_MAX: usize = 64;

/// Instances with their digests.
type List = BTreeMap<InstanceId, u64>;

/// The newest that a child was told.
#[derive(Debug, Default)]
struct Told {
    number: u64,
    /// If all of it was told.
    list: Option<List>,
}

impl Told {
    fn names(&self, instance: InstanceId) -> bool {
        self.list.as_ref().is_none_or(|list| list.contains_key(&instance))
    }
}

/// What the rules remember of a world.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Machines on which each instance runs, where they are several.
    places: BTreeMap<InstanceId, BTreeSet<usize>>,
    /// Of these since when the ways to all of them are whole.
    doubles: BTreeMap<InstanceId, Option<u64>>,
    /// The newest that each has told to hold, by epoch.
    held: BTreeMap<(Actor, u64), u64>,
    /// By epoch and child.
    listed: BTreeMap<(u64, ChildId), Told>,
    /// Children to which each instance was given.
    given: BTreeMap<InstanceId, BTreeSet<(usize, ChildId)>>,
}

impl World {
    /// Everything that follows from an input was performed.
    pub(super) fn settled(&mut self, actor: Actor) {
        match actor {
            Actor::Node(node) => self.check_node(node),
            Actor::Tier(tier) => {
                if tier == ROOT {
                    self.operator.acknowledged();
                }
                let core = self.tiers[tier].core.as_ref().expect("it is on");
                let size = core.instances().len() + core.children().len();
                self.tiers[tier].unchecked += 1;
                if self.tiers[tier].unchecked > size / THOROUGH_MAX * size {
                    self.tiers[tier].unchecked = 0;
                    self.check_books(tier);
                }
            }
        }
    }

    fn check_node(&self, node: usize) {
        let own = &self.nodes[node];
        let used = own.backend.used_mib();
        // What a backend has said to be stopped may go on for a while.
        let is_late = self.queue.now_ms() < own.undisturbed_ms + WINDOW_MS;
        let doubtful = own.backend.mood != Mood::Well || (own.backend.has_lied && is_late);
        let fits = used <= own.memory_mib || own.backend.lied || doubtful;
        assert!(fits, "{} is overbooked: {used} MiB", own.name);
        let engine = own.engine.as_ref().expect("it is on");
        assert!(engine.slots().count() <= 2 * NODE_INSTANCES_MAX, "slots of {}", own.name);
        let held = engine.generation();
        let told = self.watch.listed.get(&(held.epoch, own.id));
        let list = told.filter(|told| told.number == held.number && self.is_single(node));
        if let Some(list) = list.and_then(|told| told.list.as_ref()) {
            let desired = engine.slots().filter(|(_, slot)| slot.desired.is_some());
            let same = desired.map(|(id, _)| id).eq(list.keys().copied());
            assert!(same, "{} holds something else than it was told by {held:?}", own.name);
        }
    }

    pub(super) fn check_books(&self, tier: usize) {
        let name = &self.tiers[tier].name;
        let Some(core) = &self.tiers[tier].core else { return };
        assert!(core.instances().len() <= CLUSTER_INSTANCES_MAX, "instances of {name}");
        assert!(core.children().len() <= CHILDREN_MAX, "children of {name}");
        let mut sums: BTreeMap<ChildId, Resources> = BTreeMap::new();
        for (id, instance) in core.instances() {
            assert!(instance.tried().len() <= TRIED_MAX, "{id} in {name}");
            assert!(instance.last_status().detail.len() <= DETAIL_BYTES_MAX, "{id} in {name}");
            let held = instance.placed().filter(|_| !instance.last_status().state.is_over());
            // While it is moved, it has its room on both.
            for child in held.into_iter().chain(instance.leaving()) {
                let sum = sums.entry(child).or_default();
                *sum = sum.plus(instance.workload().spec.resources);
            }
        }
        for (id, child) in core.children() {
            let sum = sums.get(id).copied().unwrap_or_default();
            assert_eq!(child.reserved(), sum, "books of {name} on {}", child.name());
        }
    }

    /// What runs on a machine may be other than before.
    pub(super) fn note_running(&mut self, node: usize) {
        let now: BTreeSet<InstanceId> = self.nodes[node].backend.running().collect();
        let before = std::mem::replace(&mut self.nodes[node].known_running, now.clone());
        for instance in before.symmetric_difference(&now) {
            let places = self.watch.places.entry(*instance).or_default();
            if now.contains(instance) {
                places.insert(node);
            } else {
                places.remove(&node);
            }
            match places.len() {
                0 => drop(self.watch.places.remove(instance)),
                1 => drop(self.watch.doubles.remove(instance)),
                _ => drop(self.watch.doubles.entry(*instance).or_default()),
            }
        }
    }

    /// No instance runs twice for long while something could be done about it.
    pub(super) fn check_doubles(&mut self) {
        if self.watch.doubles.is_empty() {
            return;
        }
        let now_ms = self.queue.now_ms();
        for instance in self.watch.doubles.keys().copied().collect::<Vec<_>>() {
            let places = &self.watch.places[&instance];
            let whole = places.iter().all(|node| self.is_reachable(*node));
            let since = self.watch.doubles.get_mut(&instance).expect("listed");
            *since = whole.then(|| since.unwrap_or(now_ms));
            let window_ms = if self.params.failover > 0 { FAILOVER_WINDOW_MS } else { WINDOW_MS };
            let long = since.is_some_and(|since| now_ms > since + window_ms);
            let is_fenced = self.operator.fenced.contains(&instance) && !self.is_given_up(instance);
            let steady = is_fenced && places.iter().all(|node| self.is_steady(*node));
            let names = || places.iter().map(|n| self.nodes[*n].name.as_str()).collect::<Vec<_>>();
            assert!(!steady, "{instance} runs on {:?}, which it never may", names());
            assert!(!long, "{instance} runs on {:?} for longer than {window_ms} ms", names());
        }
    }

    /// Whether nothing but broken ways can have kept a node from ending what it must, for long
    /// enough to have noticed them and to have done it.
    fn is_steady(&self, node: usize) -> bool {
        let own = &self.nodes[node];
        let is_well = own.backend.mood == Mood::Well && !own.backend.lied && !own.ledger.full;
        let mut since_ms = own.undisturbed_ms.max(own.program.since_ms);
        // A node hears nothing of a cluster that has lost its way to a broker elsewhere.
        let hears = !self.tiers[own.parent].broker.external;
        let mut steady =
            self.is_single(node) && is_well && hears && self.is_idle(Actor::Node(node));
        let mut at = Some(own.parent);
        for _ in 0..=self.tiers.len() {
            let Some(tier) = at else { break };
            let program = &self.tiers[tier].program;
            since_ms = since_ms.max(program.steady_since_ms);
            steady &= !program.frozen && program.slow_ms == 0;
            at = self.tiers[tier].parent;
        }
        steady && self.queue.now_ms() > since_ms + STEADY_MS
    }

    /// Whether nothing keeps the root's word from a node, nor the node from doing it.
    fn is_reachable(&self, node: usize) -> bool {
        let own = &self.nodes[node];
        let is_well = own.backend.mood == Mood::Well && !own.backend.lied && !own.ledger.full;
        let broker = &self.tiers[own.parent].broker;
        let carries = !broker.external || broker.bus;
        let hangs = own.undisturbed_ms > self.queue.now_ms();
        let idle = self.is_idle(Actor::Node(node)) && own.linked && !hangs;
        let mut whole = self.is_single(node) && is_well && carries && idle;
        let mut at = (Actor::Node(node), own.connection);
        // Longer ways go round in a circle.
        for _ in 0..=self.tiers.len() {
            let Some(parent) = self.parent_of(at.0) else { return whole };
            let tier = &self.tiers[parent];
            let child = tier.core.as_ref().and_then(|c| c.children().get(&self.id(at.0)));
            let open =
                at.1.and_then(|id| self.network.get(id)).is_some_and(|c| c.open == [true; 2]);
            whole = whole
                && open
                && self.network.is_whole(at.0, parent)
                && self.is_idle(Actor::Tier(parent))
                && !tier.store.full
                && tier.program.slow_ms == 0
                && child.is_some_and(|child| child.is_connected());
            at = (Actor::Tier(parent), tier.connection);
        }
        false
    }

    /// Whether no other machine goes by the same id.
    fn is_single(&self, node: usize) -> bool {
        // Copies come last.
        let made = usize::try_from(self.params.nodes).unwrap_or(0);
        let has_twin = |other: &crate::node::Node| other.copy_of == Some(node);
        self.nodes[node].copy_of.is_none() && !self.nodes[made..].iter().any(has_twin)
    }

    fn is_idle(&self, actor: Actor) -> bool {
        let program = self.program(actor);
        program.is_on && program.busy_until_ms <= self.queue.now_ms()
    }

    /// Before a message goes up.
    pub(super) fn check_up(&mut self, from: Actor, message: &Up) {
        let generation = match message {
            Up::Hello(hello) => {
                if let Actor::Node(node) = from {
                    self.nodes[node].told.clear();
                }
                hello.generation
            }
            Up::Observed { generation, .. } | Up::Resync(generation) => *generation,
            _ => return,
        };
        let known = self.watch.held.entry((from, generation.epoch)).or_default();
        assert!(*known <= generation.number, "{from:?} falls behind {known}: {generation:?}");
        *known = generation.number;
        let Up::Observed { statuses, .. } = message else { return };
        for status in statuses {
            if let Actor::Node(node) = from {
                self.check_node_state(node, status);
            }
        }
    }

    /// Before a message goes down.
    pub(super) fn check_down(&mut self, tier: usize, child: ChildId, message: &Down) {
        let name = &self.tiers[tier].name;
        let (generation, all) = match message {
            Down::Change { generation, upserts, .. } => {
                (*generation, upserts.iter().map(|w| w.instance).collect::<Vec<_>>())
            }
            Down::Manifest { generation, entries } => {
                (*generation, entries.iter().map(|e| e.instance).collect())
            }
            _ => return,
        };
        let key = (generation.epoch, child);
        let told = self.watch.listed.entry(key).or_default();
        assert!(told.number <= generation.number, "{name} falls behind: {generation:?}");
        match message {
            Down::Change { base, upserts, removes, .. } => {
                assert!(told.number < generation.number, "{name} counts wrong: {generation:?}");
                told.list = told.list.take().filter(|_| base.number == told.number);
                if let Some(list) = &mut told.list {
                    list.retain(|id, _| !removes.contains(id));
                    list.extend(upserts.iter().map(|w| (w.instance, w.digest())));
                }
            }
            Down::Manifest { entries, .. } => {
                let list: List = entries.iter().map(|e| (e.instance, e.digest)).collect();
                if let Some(before) =
                    told.list.as_ref().filter(|_| told.number == generation.number)
                {
                    assert_eq!(*before, list, "{name} says two things by {generation:?}");
                }
                told.list = Some(list);
            }
            _ => {}
        }
        told.number = generation.number;
        for instance in all {
            let is_wished = tier != ROOT || self.operator.is_wished(&instance);
            assert!(is_wished, "the root gives {instance} away, which was removed");
            self.note_given(tier, child, instance);
        }
    }

    fn note_given(&mut self, tier: usize, child: ChildId, instance: InstanceId) {
        self.watch.given.entry(instance).or_default().insert((tier, child));
    }

    /// What was placed on a child was given up by an operator's wish.
    pub(super) fn note_forgotten(&mut self, tier: usize, child: ChildId) {
        for given in self.watch.given.values_mut().filter(|given| given.contains(&(tier, child))) {
            given.insert((tier, ChildId::default()));
        }
    }

    fn is_given_up(&self, instance: InstanceId) -> bool {
        let given = self.watch.given.get(&instance);
        given.is_some_and(|given| given.iter().any(|(_, child)| *child == ChildId::default()))
    }

    /// A tier has started: what it holds placed it may never have told.
    pub(super) fn note_placements(&mut self, tier: usize) {
        let Some(core) = &self.tiers[tier].core else { return };
        let placed = core.instances().iter().filter_map(|(id, i)| Some((*id, i.placed()?)));
        for (instance, child) in placed.collect::<Vec<_>>() {
            self.note_given(tier, child, instance);
        }
    }

    /// Before an effect goes to a backend.
    pub(super) fn check_act(&mut self, node: usize, effect: &Effect) {
        let own = &self.nodes[node];
        let engine = own.engine.as_ref().expect("it is on");
        match effect {
            Effect::Prepare { workload, .. } => {
                let instance = workload.instance;
                let fits = self.may_be_on(instance, node);
                assert!(fits, "{} makes {instance}, which may not be there", own.name);
            }
            Effect::Start { instance, .. } => {
                let desired = engine.slot(*instance).is_some_and(|slot| slot.desired.is_some());
                assert!(desired, "{} starts {instance}, which nobody desires", own.name);
                let told = self.watch.listed.get(&(engine.generation().epoch, own.id));
                let is_told = told.is_none_or(|told| {
                    told.number != engine.generation().number || told.names(*instance)
                });
                assert!(is_told, "{} starts {instance}, which it was not given", own.name);
            }
            Effect::Stop { instance, .. } => {
                let given = self.watch.given.get(instance).map_or(0, |given| {
                    let tiers: BTreeSet<usize> = given.iter().map(|(tier, _)| *tier).collect();
                    given.len() - tiers.len() + usize::from(tiers.len() > self.tiers.len())
                });
                let is_wanted = self.operator.wanted.contains(instance) && self.is_single(node);
                let is_moved = self.operator.stop_first.contains(instance)
                    || self.operator.fenced.contains(instance);
                let without_reason = is_wanted && given == 0 && !is_moved;
                assert!(!without_reason, "{instance} was stopped, and nobody wanted that");
            }
            _ => {}
        }
    }

    /// Before a tier's records are written.
    pub(super) fn check_write(&self, tier: usize, writes: &[Write]) {
        let most = 2 * (CLUSTER_INSTANCES_MAX + CHILDREN_MAX);
        assert!(writes.len() <= most, "{} writes {}", self.tiers[tier].name, writes.len());
    }
}
