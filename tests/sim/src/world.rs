//! The world: a root, clusters, machines, links between them, and what goes wrong.

use crate::Random;
use crate::machine::{Machine, Run};
use crate::tier::Orchestrator;
use marram_backend_api::{Exit, ExitReason};
use marram_engine_core as engine;
use marram_orchestrator_core as orchestrator;
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{Down, Resources, ServiceSpec, Up, Workload};
use std::collections::{BTreeMap, BTreeSet};

/// Size of a world and how bad its days are.
#[derive(Debug, Clone, Copy)]
pub struct Params {
    /// Clusters under the root.
    pub clusters: u8,
    /// Machines in each.
    pub machines: u8,
    /// Steps of the first phase.
    pub steps: u32,
    /// Of a hundred steps, so many are faults.
    pub faults: u64,
}

/// Longest way of a message, in virtual milliseconds.
const LATENCY_MS: u64 = 40;

/// Within this virtual time of peace everything that is desired runs.
const CONVERGE_MS: u64 = 1_800_000;

#[derive(Debug)]
enum Event {
    Down(ChildId, Down),
    Up(ChildId, Up),
    Done(ChildId, u64, InstanceId, engine::Outcome),
}

/// A link between a child and its parent.
#[derive(Debug, Default)]
struct Link {
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
    sequence: u64,
    root: Orchestrator,
    clusters: BTreeMap<ChildId, Orchestrator>,
    machines: BTreeMap<ChildId, (ChildId, Machine)>,
    links: BTreeMap<ChildId, Link>,
    queue: BTreeMap<(u64, u64), (u64, Event)>,
    wanted: BTreeSet<InstanceId>,
    removed: BTreeSet<InstanceId>,
    next_number: u32,
    peace: bool,
    /// What happened, newest last.
    pub log: Vec<String>,
}

impl World {
    /// A world in which everything is off and nothing is linked yet.
    pub fn new(seed: u64, params: Params) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            params,
            now_ms: 1_000,
            sequence: 0,
            root: Orchestrator::new(ChildId([255; 12]), true),
            clusters: BTreeMap::new(),
            machines: BTreeMap::new(),
            links: BTreeMap::new(),
            queue: BTreeMap::new(),
            wanted: BTreeSet::new(),
            removed: BTreeSet::new(),
            next_number: 0,
            peace: false,
            log: Vec::new(),
        };
        for cluster in 0..params.clusters {
            let id = ChildId([100 + cluster; 12]);
            world.clusters.insert(id, Orchestrator::new(id, false));
            world.links.insert(id, Link::default());
            for machine in 0..params.machines {
                let node = ChildId([cluster * params.machines + machine + 1; 12]);
                world.machines.insert(node, (id, Machine::new(node, 1000)));
                world.links.insert(node, Link::default());
            }
        }
        world.boot_all();
        world
    }

    fn boot_all(&mut self) {
        let (now, engine_now) = self.now();
        if self.root.tier.is_none() {
            self.root.boot(now);
        }
        let ids: Vec<ChildId> = self.clusters.keys().copied().collect();
        for id in ids {
            let cluster = self.clusters.get_mut(&id).expect("listed");
            if cluster.tier.is_none() {
                cluster.boot(now);
            }
        }
        for (_, machine) in self.machines.values_mut() {
            if machine.engine.is_none() {
                machine.boot(engine_now);
            }
        }
        self.drain_all();
        let ids: Vec<ChildId> = self.links.keys().copied().collect();
        for id in ids {
            self.connect(id);
        }
    }

    fn now(&self) -> (orchestrator::Now, engine::Now) {
        let unix_ms = 1_800_000_000_000 + self.now_ms;
        (
            orchestrator::Now { mono_ms: self.now_ms, unix_ms },
            engine::Now { mono_ms: self.now_ms, unix_ms },
        )
    }

    fn note(&mut self, text: String) {
        self.log.push(format!("{:>9} {text}", self.now_ms));
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
        let timers = self.next_timer();
        let next = self.queue.keys().next().map(|(at, _)| *at);
        let Some(at) = [timers, next].into_iter().flatten().min() else {
            self.now_ms += 100;
            return;
        };
        self.now_ms = self.now_ms.max(at);
        if next == Some(at) {
            let Some((_, (life, event))) = self.queue.pop_first() else { return };
            self.deliver(life, event);
        } else {
            self.fire();
        }
        self.drain_all();
    }

    fn next_timer(&self) -> Option<u64> {
        let tiers = std::iter::once(&self.root).chain(self.clusters.values());
        let tiers = tiers.filter_map(|o| o.tier.as_ref()?.poll_timeout());
        let engines = self.machines.values().filter_map(|(_, m)| m.engine.as_ref()?.poll_timeout());
        tiers.chain(engines).min()
    }

    fn fire(&mut self) {
        let (now, engine_now) = self.now();
        for orchestrator in std::iter::once(&mut self.root).chain(self.clusters.values_mut()) {
            if let Some(tier) = &mut orchestrator.tier {
                tier.handle_timeout(now);
            }
        }
        for (_, machine) in self.machines.values_mut() {
            if let Some(engine) = &mut machine.engine {
                engine.handle_timeout(engine_now);
            }
        }
    }

    fn deliver(&mut self, life: u64, event: Event) {
        let (now, engine_now) = self.now();
        match event {
            Event::Done(node, incarnation, id, outcome) => {
                let Some((_, machine)) = self.machines.get_mut(&node) else { return };
                if machine.incarnation == incarnation
                    && let Some(engine) = &mut machine.engine
                {
                    engine.handle(engine_now, engine::Input::Done(id, outcome));
                }
            }
            Event::Down(child, message) => {
                if self.links[&child].life != life {
                    return;
                }
                self.note(format!("down {} {message:?}", child.0[0]));
                if let Some((_, machine)) = self.machines.get_mut(&child) {
                    if let Some(engine) = &mut machine.engine {
                        engine.handle(engine_now, engine::Input::Parent(message));
                    }
                } else if let Some(tier) =
                    self.clusters.get_mut(&child).and_then(|c| c.tier.as_mut())
                {
                    tier.handle(now, orchestrator::Input::Parent(message));
                }
            }
            Event::Up(child, message) => {
                if self.links[&child].life != life {
                    return;
                }
                self.note(format!("up   {} {message:?}", child.0[0]));
                if let Some(tier) = self.parent_of(child).tier.as_mut() {
                    tier.handle(now, orchestrator::Input::Child(child, message));
                }
            }
        }
    }

    fn parent_of(&mut self, child: ChildId) -> &mut Orchestrator {
        match self.machines.get(&child) {
            Some((cluster, _)) => self.clusters.get_mut(cluster).expect("made with the machine"),
            None => &mut self.root,
        }
    }

    /// Performs the effects of everybody until nobody has one.
    fn drain_all(&mut self) {
        let ids: Vec<ChildId> = self.clusters.keys().copied().collect();
        while let Some(effect) = self.root.tier.as_mut().and_then(|t| t.poll_effect()) {
            let id = self.root.id;
            self.tier_effect(id, effect);
        }
        for id in ids {
            while let Some(effect) = self
                .clusters
                .get_mut(&id)
                .and_then(|c| c.tier.as_mut())
                .and_then(|t| t.poll_effect())
            {
                self.tier_effect(id, effect);
            }
        }
        let nodes: Vec<ChildId> = self.machines.keys().copied().collect();
        for node in nodes {
            while let Some(effect) = self
                .machines
                .get_mut(&node)
                .and_then(|(_, m)| m.engine.as_mut())
                .and_then(|e| e.poll_effect())
            {
                self.engine_effect(node, effect);
            }
        }
    }

    fn tier_effect(&mut self, id: ChildId, effect: orchestrator::Effect) {
        let orchestrator = match id == self.root.id {
            true => &mut self.root,
            false => self.clusters.get_mut(&id).expect("listed"),
        };
        match effect {
            orchestrator::Effect::Persist(records) => orchestrator.persist(records),
            orchestrator::Effect::ToChild(child, message) => self.send_down(child, message),
            orchestrator::Effect::ToParent(message) => self.send_up(id, message),
            orchestrator::Effect::Changed(_) => {}
        }
    }

    fn engine_effect(&mut self, node: ChildId, effect: engine::Effect) {
        match effect {
            engine::Effect::Persist { bytes, .. } => {
                self.machines.get_mut(&node).expect("listed").1.ledger = Some(bytes);
            }
            engine::Effect::Send(message) => self.send_up(node, message),
            engine::Effect::Drained => {}
            effect => {
                if let engine::Effect::Stop { instance, .. } = &effect {
                    assert!(
                        self.removed.contains(instance),
                        "{instance} was stopped, and nobody wanted that"
                    );
                }
                self.note(format!("node {} {effect:?}", node.0[0]));
                let faults = !self.peace;
                let (_, machine) = self.machines.get_mut(&node).expect("listed");
                let done = machine.perform(effect, &mut self.random, faults);
                let incarnation = machine.incarnation;
                if let Some((id, outcome)) = done {
                    let at = self.now_ms + self.random.below(200);
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
        let Some(link) = self.links.get_mut(&child).filter(|l| l.up) else { return };
        link.last_down_ms = link.last_down_ms.max(self.now_ms + delay);
        let (at, life) = (link.last_down_ms, link.life);
        let message = Down::decode(&message.encode().expect("fits")).expect("reads");
        self.push(at, life, Event::Down(child, message));
    }

    fn send_up(&mut self, child: ChildId, message: Up) {
        let delay = self.random.below(LATENCY_MS);
        let Some(link) = self.links.get_mut(&child).filter(|l| l.up) else { return };
        link.last_up_ms = link.last_up_ms.max(self.now_ms + delay);
        let (at, life) = (link.last_up_ms, link.life);
        let message = Up::decode(&message.encode().expect("fits")).expect("reads");
        self.push(at, life, Event::Up(child, message));
    }

    fn connect(&mut self, child: ChildId) {
        let (now, engine_now) = self.now();
        if self.parent_of(child).tier.is_none() || self.links[&child].up {
            return;
        }
        let link = self.links.get_mut(&child).expect("listed");
        link.up = true;
        link.life += 1;
        if let Some((_, machine)) = self.machines.get_mut(&child) {
            match &mut machine.engine {
                Some(engine) => engine.handle(engine_now, engine::Input::LinkUp),
                None => self.links.get_mut(&child).expect("listed").up = false,
            }
        } else if let Some(cluster) = self.clusters.get_mut(&child) {
            match &mut cluster.tier {
                Some(tier) => tier.handle(now, orchestrator::Input::ParentUp),
                None => self.links.get_mut(&child).expect("listed").up = false,
            }
        }
        self.drain_all();
    }

    /// Cuts a link: what is on its way is lost, both ends notice.
    fn cut(&mut self, child: ChildId) {
        let (now, engine_now) = self.now();
        let link = self.links.get_mut(&child).expect("listed");
        if !std::mem::take(&mut link.up) {
            return;
        }
        link.life += 1;
        if let Some((_, machine)) = self.machines.get_mut(&child) {
            if let Some(engine) = &mut machine.engine {
                engine.handle(engine_now, engine::Input::LinkDown);
            }
        } else if let Some(tier) = self.clusters.get_mut(&child).and_then(|c| c.tier.as_mut()) {
            tier.handle(now, orchestrator::Input::ParentGone);
        }
        if let Some(tier) = self.parent_of(child).tier.as_mut() {
            tier.handle(now, orchestrator::Input::ChildGone(child, None));
        }
        self.drain_all();
    }

    /// What operators do.
    fn operate(&mut self) {
        let (now, _) = self.now();
        let Some(tier) = &mut self.root.tier else { return };
        if self.wanted.is_empty() || self.random.chance(65) {
            let instance = InstanceId { service: ServiceId([9; 12]), number: self.next_number };
            self.next_number += 1;
            let memory_mib = 50 + u32::try_from(self.random.below(300)).unwrap_or(0);
            let workload = sample(instance, memory_mib);
            if self.wanted.len() < usize::from(self.params.clusters * self.params.machines) {
                self.wanted.insert(instance);
                tier.handle(now, orchestrator::Input::Deploy(workload));
                self.note(format!("deploy {instance}"));
            }
        } else {
            let index = self.random.index(self.wanted.len());
            let Some(instance) = self.wanted.iter().nth(index).copied() else { return };
            self.wanted.remove(&instance);
            self.removed.insert(instance);
            tier.handle(now, orchestrator::Input::Remove(instance));
            self.note(format!("remove {instance}"));
        }
        self.drain_all();
    }

    fn fault(&mut self) {
        let links: Vec<ChildId> = self.links.keys().copied().collect();
        let child = links[self.random.index(links.len())];
        match self.random.below(8) {
            0 | 1 => {
                self.note(format!("cut {}", child.0[0]));
                self.cut(child);
            }
            2 => {
                self.note("restart root".into());
                self.crash_orchestrator(self.root.id);
            }
            3 => {
                let ids: Vec<ChildId> = self.clusters.keys().copied().collect();
                let id = ids[self.random.index(ids.len())];
                self.note(format!("restart cluster {}", id.0[0]));
                self.crash_orchestrator(id);
            }
            4 => self.crash_machine(false),
            5 => self.crash_machine(true),
            6 => self.exit_something(),
            _ => self.boot_all(),
        }
    }

    fn crash_orchestrator(&mut self, id: ChildId) {
        let children: Vec<ChildId> = match id == self.root.id {
            true => self.clusters.keys().copied().collect(),
            false => {
                let of = |(node, (cluster, _)): (&ChildId, &(ChildId, Machine))| {
                    (*cluster == id).then_some(*node)
                };
                self.machines.iter().filter_map(of).collect()
            }
        };
        match id == self.root.id {
            true => self.root.tier = None,
            false => {
                self.clusters.get_mut(&id).expect("listed").tier = None;
                self.cut(id);
            }
        }
        for child in children {
            self.cut(child);
        }
    }

    fn crash_machine(&mut self, reboot: bool) {
        let ids: Vec<ChildId> = self.machines.keys().copied().collect();
        let id = ids[self.random.index(ids.len())];
        self.note(format!("{} node {}", if reboot { "reboot" } else { "restart" }, id.0[0]));
        let (_, machine) = self.machines.get_mut(&id).expect("listed");
        machine.engine = None;
        machine.incarnation += 1;
        if reboot {
            machine.runs.clear();
            machine.memory_of.clear();
        }
        self.cut(id);
    }

    fn exit_something(&mut self) {
        let (_, engine_now) = self.now();
        let ids: Vec<ChildId> = self.machines.keys().copied().collect();
        let id = ids[self.random.index(ids.len())];
        let (_, machine) = self.machines.get_mut(&id).expect("listed");
        let Some(instance) = machine.running().next() else { return };
        let exit = Exit { reason: ExitReason::Code(1), at_unix_ms: 0 };
        machine.runs.insert(instance, Run::Exited(exit.clone()));
        if let Some(engine) = &mut machine.engine {
            engine.handle(engine_now, engine::Input::Exited(instance, exit));
        }
        self.note(format!("exit {instance} on node {}", id.0[0]));
        self.drain_all();
    }

    /// What must hold after every step.
    pub fn check(&self) {
        let mut places: BTreeMap<InstanceId, u32> = BTreeMap::new();
        for (_, machine) in self.machines.values() {
            let used: u32 = machine.running().filter_map(|id| machine.memory_of.get(&id)).sum();
            assert!(used <= machine.memory_mib, "node {:?} is overbooked: {used}", machine.id);
            machine.running().for_each(|id| *places.entry(id).or_default() += 1);
        }
        for (instance, count) in places {
            assert!(count <= 1, "{instance} runs {count} times");
        }
        for orchestrator in std::iter::once(&self.root).chain(self.clusters.values()) {
            let Some(tier) = &orchestrator.tier else { continue };
            for child in tier.children().values() {
                let held = tier
                    .instances()
                    .values()
                    .filter(|i| i.placed() == Some(child.id()) && !i.last_status().state.is_over())
                    .fold(Resources::default(), |sum, i| sum.plus(i.workload().spec.resources));
                assert_eq!(held, child.reserved(), "books of {}", child.name());
            }
        }
    }

    /// Peace: everything comes up, nothing fails any more, and what is desired must run.
    pub fn heal(&mut self) {
        self.peace = true;
        self.boot_all();
        let deadline = self.now_ms + CONVERGE_MS;
        while !self.is_converged() {
            assert!(self.now_ms < deadline, "not converged: {}", self.difference());
            self.advance();
            self.check();
        }
    }

    fn is_converged(&self) -> bool {
        let Some(root) = &self.root.tier else { return false };
        let running: BTreeSet<InstanceId> =
            self.machines.values().flat_map(|(_, m)| m.running()).collect();
        let known = root.instances().keys().copied().collect::<BTreeSet<_>>();
        let told = self.wanted.iter().all(|id| {
            root.status(*id).is_some_and(|status| status.state == InstanceState::Running)
        });
        running == self.wanted && known == self.wanted && told
    }

    fn difference(&self) -> String {
        let root = self.root.tier.as_ref();
        let status = |id: &InstanceId| root.and_then(|r| r.status(*id));
        let wanted: Vec<_> = self.wanted.iter().map(|id| (id, status(id))).collect();
        let known = root.map(|r| r.instances().keys().copied().collect::<Vec<_>>());
        format!("wanted {wanted:#?}, known at the root {known:?}")
    }
}

fn sample(instance: InstanceId, memory_mib: u32) -> Workload {
    let spec = ServiceSpec {
        virtualization: "container".into(),
        image: "docker.io/library/nginx:latest".into(),
        resources: Resources { memory_mib, ..Resources::default() },
        ..ServiceSpec::default()
    };
    Workload { instance, revision: 1, name: format!("sim.sim.sim.{}", instance.number), spec }
}
