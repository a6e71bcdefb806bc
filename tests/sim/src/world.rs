//! The world: a root, clusters, machines, links between them, and time.

mod faults;
mod rules;

use crate::Random;
use crate::machine::{Machine, Run};
use crate::tier::Orchestrator;
use marram_engine_core as engine;
use marram_orchestrator_core as orchestrator;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{Down, Up};
use std::collections::{BTreeMap, BTreeSet};

/// Size of a world and how bad its days are.
#[derive(Debug, Clone, Copy)]
pub struct Params {
    /// Clusters, each with machines.
    pub clusters: u8,
    /// All clusters but the first are children of the first, not of the root.
    pub nested: bool,
    /// Machines in each cluster.
    pub machines: u8,
    /// Steps of the first phase.
    pub steps: u32,
    /// Of a hundred steps, so many are faults.
    pub faults: u64,
}

/// Longest way of a message, in virtual milliseconds.
const LATENCY_MS: u64 = 40;

/// Longest time that an effect takes, in virtual milliseconds.
const EFFECT_MS: u64 = 200;

/// Things done at one moment: many more are a loop that nobody waits in.
const MOMENT_MAX: u32 = 20_000;

#[derive(Debug)]
enum Event {
    Down(ChildId, Down),
    Up(ChildId, Up),
    Done(ChildId, u64, InstanceId, engine::Outcome),
}

/// A link between a child and its parent.
#[derive(Debug)]
struct Link {
    parent: ChildId,
    up: bool,
    /// Messages of an older life of the link are lost.
    life: u64,
    /// Messages keep their order.
    last_down_ms: u64,
    last_up_ms: u64,
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    random: Random,
    params: Params,
    now_ms: u64,
    at_this_moment: u32,
    sequence: u64,
    /// The root among them.
    tiers: BTreeMap<ChildId, Orchestrator>,
    machines: BTreeMap<ChildId, Machine>,
    links: BTreeMap<ChildId, Link>,
    queue: BTreeMap<(u64, u64), (u64, Event)>,
    wanted: BTreeSet<InstanceId>,
    removed: BTreeSet<InstanceId>,
    next_number: u32,
    peace: bool,
    log: Option<Vec<String>>,
}

const ROOT: ChildId = ChildId([255; 12]);

impl World {
    /// A world in which everything has just been switched on.
    pub fn new(seed: u64, params: Params) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            params,
            now_ms: 1_000,
            at_this_moment: 0,
            sequence: 0,
            tiers: BTreeMap::from([(ROOT, Orchestrator::new(ROOT, true))]),
            machines: BTreeMap::new(),
            links: BTreeMap::new(),
            queue: BTreeMap::new(),
            wanted: BTreeSet::new(),
            removed: BTreeSet::new(),
            next_number: 0,
            peace: false,
            log: None,
        };
        for cluster in 0..params.clusters {
            let id = ChildId([100 + cluster; 12]);
            let parent = if params.nested && cluster > 0 { ChildId([100; 12]) } else { ROOT };
            world.tiers.insert(id, Orchestrator::new(id, false));
            world.link(id, parent);
            for machine in 0..params.machines {
                let node = ChildId([cluster * params.machines + machine + 1; 12]);
                world.machines.insert(node, Machine::new(node, 1000));
                world.link(node, id);
            }
        }
        world.boot_all();
        world
    }

    /// The same, with everything that happens written down.
    pub fn recorded(seed: u64, params: Params) -> Self {
        let mut world = Self::new(seed, params);
        world.log = Some(Vec::new());
        world
    }

    /// What happened since it was recorded, newest last.
    pub fn log(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Lives through the first phase and the peace after it.
    pub fn run(&mut self) {
        for _ in 0..self.params.steps {
            self.step();
            self.check();
        }
        self.heal();
    }

    fn link(&mut self, child: ChildId, parent: ChildId) {
        let link = Link { parent, up: false, life: 0, last_down_ms: 0, last_up_ms: 0 };
        self.links.insert(child, link);
    }

    fn now(&self) -> (orchestrator::Now, engine::Now) {
        let unix_ms = 1_800_000_000_000 + self.now_ms;
        (
            orchestrator::Now { mono_ms: self.now_ms, unix_ms },
            engine::Now { mono_ms: self.now_ms, unix_ms },
        )
    }

    /// Texts cost more than everything else: they are made only if somebody reads them.
    fn note(&mut self, text: impl FnOnce() -> String) {
        let now_ms = self.now_ms;
        if let Some(log) = &mut self.log {
            log.push(format!("{now_ms:>9} {}", text()));
        }
    }

    /// One step: time goes on to the next event, or something is done to the world.
    pub fn step(&mut self) {
        if !self.peace && self.random.chance(self.params.faults) {
            self.fault();
        } else if !self.peace && self.random.chance(10) {
            self.operate();
        } else {
            self.advance();
        }
    }

    fn advance(&mut self) {
        let before_ms = self.now_ms;
        let timers = self.next_timer();
        let next = self.queue.keys().next().map(|(at, _)| *at);
        let Some(at) = [timers, next].into_iter().flatten().min() else {
            self.now_ms += 100;
            return;
        };
        self.now_ms = self.now_ms.max(at);
        self.at_this_moment = if self.now_ms > before_ms { 0 } else { self.at_this_moment + 1 };
        assert!(self.at_this_moment < MOMENT_MAX, "somebody spins");
        if next == Some(at) {
            let Some((_, (life, event))) = self.queue.pop_first() else { return };
            self.deliver(life, event);
        } else {
            self.fire();
        }
        self.drain_all();
    }

    fn next_timer(&self) -> Option<u64> {
        let tiers = self.tiers.values().filter_map(|o| o.tier.as_ref()?.poll_timeout());
        let engines = self.machines.values().filter_map(|m| m.engine.as_ref()?.poll_timeout());
        tiers.chain(engines).min()
    }

    fn fire(&mut self) {
        let (now, engine_now) = self.now();
        for tier in self.tiers.values_mut().filter_map(|o| o.tier.as_mut()) {
            tier.handle_timeout(now);
        }
        for engine in self.machines.values_mut().filter_map(|m| m.engine.as_mut()) {
            engine.handle_timeout(engine_now);
        }
    }

    fn deliver(&mut self, life: u64, event: Event) {
        let (now, engine_now) = self.now();
        match event {
            Event::Done(node, incarnation, id, outcome) => {
                let Some(machine) = self.machines.get_mut(&node) else { return };
                if machine.incarnation == incarnation
                    && let Some(engine) = &mut machine.engine
                {
                    engine.handle(engine_now, engine::Input::Done(id, outcome));
                }
            }
            Event::Down(child, _) | Event::Up(child, _) if self.links[&child].life != life => {}
            Event::Down(child, message) => {
                self.note(|| format!("down {} {message:?}", child.0[0]));
                if let Some(machine) = self.machines.get_mut(&child) {
                    if let Some(engine) = &mut machine.engine {
                        engine.handle(engine_now, engine::Input::Parent(message));
                    }
                } else if let Some(tier) = self.tier(child) {
                    tier.handle(now, orchestrator::Input::Parent(message));
                }
            }
            Event::Up(child, message) => {
                self.note(|| format!("up   {} {message:?}", child.0[0]));
                let parent = self.links[&child].parent;
                if let Some(tier) = self.tier(parent) {
                    tier.handle(now, orchestrator::Input::Child(child, message));
                }
            }
        }
    }

    fn tier(&mut self, id: ChildId) -> Option<&mut orchestrator::Tier> {
        self.tiers.get_mut(&id)?.tier.as_mut()
    }

    /// Performs the effects of everybody until nobody has one.
    fn drain_all(&mut self) {
        for id in self.tiers.keys().copied().collect::<Vec<_>>() {
            while let Some(effect) = self.tier(id).and_then(|tier| tier.poll_effect()) {
                self.tier_effect(id, effect);
            }
        }
        for node in self.machines.keys().copied().collect::<Vec<_>>() {
            let engine =
                |world: &mut Self| world.machines.get_mut(&node)?.engine.as_mut()?.poll_effect();
            while let Some(effect) = engine(self) {
                self.engine_effect(node, effect);
            }
        }
    }

    fn tier_effect(&mut self, id: ChildId, effect: orchestrator::Effect) {
        match effect {
            orchestrator::Effect::Persist(records) => {
                self.tiers.get_mut(&id).expect("listed").persist(records);
            }
            orchestrator::Effect::ToChild(child, message) => self.send_down(child, message),
            orchestrator::Effect::ToParent(message) => self.send_up(id, message),
            orchestrator::Effect::Changed(_) => {}
        }
    }

    fn engine_effect(&mut self, node: ChildId, effect: engine::Effect) {
        match effect {
            engine::Effect::Persist { bytes, .. } => {
                self.machines.get_mut(&node).expect("listed").ledger = Some(bytes);
            }
            engine::Effect::Send(message) => self.send_up(node, message),
            engine::Effect::Drained => {}
            effect => {
                if let engine::Effect::Stop { instance, .. } = &effect {
                    let removed = self.removed.contains(instance);
                    assert!(removed, "{instance} was stopped, and nobody wanted that");
                }
                self.note(|| format!("node {} {effect:?}", node.0[0]));
                let faults = !self.peace && self.params.faults > 0;
                let machine = self.machines.get_mut(&node).expect("listed");
                let done = machine.perform(effect, &mut self.random, faults);
                let incarnation = machine.incarnation;
                if let Some((id, outcome)) = done {
                    let at = self.now_ms + self.random.below(EFFECT_MS);
                    self.push(at, 0, Event::Done(node, incarnation, id, outcome));
                }
            }
        }
    }

    fn push(&mut self, at: u64, life: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), (life, event));
    }

    fn send_down(&mut self, child: ChildId, message: Down) {
        let delay = self.random.below(LATENCY_MS);
        let twice = self.doubles();
        let Some(link) = self.links.get_mut(&child).filter(|link| link.up) else { return };
        link.last_down_ms = link.last_down_ms.max(self.now_ms + delay);
        let (at, life) = (link.last_down_ms, link.life);
        let message = Down::decode(&message.encode().expect("fits")).expect("reads");
        if twice {
            self.push(at, life, Event::Down(child, message.clone()));
        }
        self.push(at, life, Event::Down(child, message));
    }

    fn send_up(&mut self, child: ChildId, message: Up) {
        let delay = self.random.below(LATENCY_MS);
        let twice = self.doubles();
        let Some(link) = self.links.get_mut(&child).filter(|link| link.up) else { return };
        link.last_up_ms = link.last_up_ms.max(self.now_ms + delay);
        let (at, life) = (link.last_up_ms, link.life);
        let message = Up::decode(&message.encode().expect("fits")).expect("reads");
        if twice {
            self.push(at, life, Event::Up(child, message.clone()));
        }
        self.push(at, life, Event::Up(child, message));
    }

    /// Whether a message is delivered twice, as at-least-once delivery may.
    fn doubles(&mut self) -> bool {
        !self.peace && self.params.faults > 0 && self.random.chance(5)
    }
}
