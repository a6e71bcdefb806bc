//! Children that change their parents at random: whatever the order in which everybody hears
//! of it, nothing that is wanted stops, and nothing runs twice.
//!
//! Real tiers with disks, nodes that follow their desired state and nothing else. Messages of
//! a connection keep their order and end with it; a parent hears late that a child has gone;
//! tiers restart. Nothing is taken over here: services wait for what is silent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "which seeds are tried may be said from outside")]

#[path = "moves/nodes.rs"]
mod nodes;

use marram_orchestrator_core::{Effect, Identity, Input, Now, Tier};
use marram_protocol::desired::{Desired, Step};
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{
    ChildKind, Down, Hello, InstanceStatus, Patience, Resources, Scope, ServiceSpec, Summary, Up,
    Workload,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const ROOT: ChildId = ChildId([b'R'; 12]);

/// Each with its home.
const CLUSTERS: [(u8, u8); 4] = [(b'A', b'R'), (b'B', b'R'), (b'C', b'A'), (b'D', b'C')];
const NODES: [(u8, u8); 6] =
    [(b'1', b'A'), (b'2', b'A'), (b'3', b'B'), (b'4', b'C'), (b'5', b'C'), (b'6', b'D')];

/// Steps between two moves of a child: about as long as it takes until all have heard of the
/// first. Parents are patient for longer than that (see `marram_protocol::parents`).
const STAY: u64 = 300;

fn id(letter: u8) -> ChildId {
    ChildId([letter; 12])
}

fn instance(number: u32) -> InstanceId {
    InstanceId { service: ServiceId([9; 12]), number }
}

/// xorshift: a seed tells the whole story.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// A board that runs what it is told.
struct Node {
    desired: Desired,
    tree: u64,
}

struct Link {
    parent: ChildId,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
}

struct World {
    random: Random,
    now_ms: u64,
    tiers: BTreeMap<ChildId, Tier>,
    disks: BTreeMap<ChildId, BTreeMap<Vec<u8>, Vec<u8>>>,
    lives: u64,
    nodes: BTreeMap<ChildId, Node>,
    links: BTreeMap<ChildId, Link>,
    /// Parents that have not heard yet that a child has gone.
    unheard: Vec<(ChildId, ChildId)>,
    /// When each child went somewhere the last time.
    moved: BTreeMap<ChildId, u64>,
    steps: u64,
    wanted: BTreeSet<InstanceId>,
    removed: BTreeSet<InstanceId>,
    started: BTreeMap<InstanceId, ChildId>,
    log: Vec<String>,
}

fn home(child: ChildId) -> ChildId {
    let all = CLUSTERS.iter().chain(&NODES);
    let found = all.copied().find(|(letter, _)| id(*letter) == child);
    id(found.unwrap().1)
}

fn workload(number: u32) -> Workload {
    let spec = ServiceSpec {
        virtualization: "container".into(),
        resources: Resources { memory_mib: 10, ..Resources::default() },
        patience: Patience { node_s: None, cluster_s: None, parent_s: None },
        ..ServiceSpec::default()
    };
    Workload { instance: instance(number), revision: 1, name: format!("s{number}"), spec }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now_ms: 1_000,
            tiers: BTreeMap::new(),
            disks: BTreeMap::new(),
            lives: 0,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            unheard: Vec::new(),
            moved: BTreeMap::new(),
            steps: 0,
            wanted: BTreeSet::new(),
            removed: BTreeSet::new(),
            started: BTreeMap::new(),
            log: Vec::new(),
        };
        world.boot(ROOT);
        CLUSTERS.iter().for_each(|(letter, _)| world.boot(id(*letter)));
        for (letter, _) in NODES {
            let node = Node { desired: Desired::default(), tree: 0 };
            world.nodes.insert(id(letter), node);
        }
        world.go_home();
        (0..12).for_each(|number| world.deploy(number));
        world.settle();
        assert_eq!(world.started.len(), 12, "all run");
        world
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, unix_ms: self.now_ms }
    }

    fn boot(&mut self, tier: ChildId) {
        self.lives += 1;
        let letter = char::from(tier.0[0]);
        let identity = Identity {
            id: tier,
            name: letter.to_string(),
            location: String::new(),
            version: "0".into(),
            incarnation: self.lives,
            labels: Vec::new(),
            address: format!("http://{letter}"),
            node_address: format!("mqtt://{letter}"),
        };
        let disk = self.disks.entry(tier).or_default().clone();
        let epoch = 1_000 + u64::from(tier.0[0]);
        let started = Tier::restore(identity, tier == ROOT, epoch, disk, self.now());
        self.tiers.insert(tier, started.unwrap());
        self.drain(tier);
    }

    fn give(&mut self, tier: ChildId, input: Input) {
        let now = self.now();
        self.tiers.get_mut(&tier).unwrap().handle(now, input);
        self.drain(tier);
    }

    /// Performs what a tier has decided.
    fn drain(&mut self, tier: ChildId) {
        while let Some(effect) = self.tiers.get_mut(&tier).unwrap().poll_effect() {
            match effect {
                Effect::Persist(records) => {
                    let disk = self.disks.get_mut(&tier).unwrap();
                    for (key, value) in records {
                        match value {
                            Some(value) => drop(disk.insert(key, value)),
                            None => drop(disk.remove(&key)),
                        }
                    }
                }
                Effect::ToChild(child, message) => {
                    let link = self.links.get_mut(&child).filter(|link| link.parent == tier);
                    if let Some(link) = link {
                        link.down.push_back(Down::decode(&message.encode().unwrap()).unwrap());
                    }
                }
                Effect::ToParent(message) => {
                    if let Some(link) = self.links.get_mut(&tier) {
                        link.up.push_back(Up::decode(&message.encode().unwrap()).unwrap());
                    }
                }
                Effect::LeaveParent { reason } => {
                    self.note(format!("{} leaves: {reason}", char::from(tier.0[0])));
                    self.cut(tier);
                }
                Effect::Changed(_) | Effect::Operated { .. } => {}
            }
        }
    }

    fn note(&mut self, line: String) {
        self.log.push(line);
    }

    /// The child's connection ends; its parent hears of it some time.
    fn cut(&mut self, child: ChildId) {
        let Some(link) = self.links.remove(&child) else { return };
        self.unheard.push((link.parent, child));
        if self.tiers.contains_key(&child) {
            self.give(child, Input::ParentGone);
        }
    }

    fn connect(&mut self, child: ChildId, parent: ChildId) {
        self.cut(child);
        // One connection of a child to a parent follows the other.
        self.hear(|who| *who == (parent, child));
        let link = Link { parent, up: VecDeque::new(), down: VecDeque::new() };
        self.links.insert(child, link);
        let preferred = Some(home(child)).filter(|home| *home != parent);
        if self.tiers.contains_key(&child) {
            self.give(child, Input::ParentUp { preferred });
        } else {
            self.greet(child, preferred);
        }
    }

    fn hear(&mut self, which: impl Fn(&(ChildId, ChildId)) -> bool) {
        let (heard, rest) = std::mem::take(&mut self.unheard).into_iter().partition(which);
        self.unheard = rest;
        for (parent, child) in heard {
            self.give(parent, Input::ChildGone(child, None));
        }
    }

    /// A message arrives.
    fn deliver(&mut self, child: ChildId, up: bool) {
        let Some(link) = self.links.get_mut(&child) else { return };
        let parent = link.parent;
        if up {
            let Some(message) = link.up.pop_front() else { return };
            self.give(parent, Input::Child(child, message));
        } else {
            let Some(message) = link.down.pop_front() else { return };
            if let Down::Rejected { reason } = &message {
                self.note(format!("{} is rejected: {reason}", char::from(child.0[0])));
                self.cut(child);
            } else if self.tiers.contains_key(&child) {
                self.give(child, Input::Parent(message));
            } else {
                self.node_hears(child, message);
            }
        }
    }

    fn deploy(&mut self, number: u32) {
        self.wanted.insert(instance(number));
        self.give(ROOT, Input::Deploy(workload(number)));
    }

    fn step(&mut self) {
        self.now_ms += 1;
        self.steps += 1;
        match self.random.below(100) {
            0..4 => self.move_something(),
            4 => {
                let tiers: Vec<ChildId> = self.tiers.keys().copied().collect();
                let tier = tiers[self.random.below(tiers.len())];
                self.restart(tier);
            }
            5 if self.wanted.len() < 18 && self.random.below(4) == 0 => {
                let number = u32::try_from(self.wanted.len() + self.removed.len()).unwrap();
                self.note(format!("deploy {number}"));
                self.deploy(number);
            }
            6 if self.random.below(8) == 0 => {
                let index = self.random.below(self.wanted.len());
                let id = *self.wanted.iter().nth(index).unwrap();
                self.remove(id);
            }
            7 | 8 if !self.unheard.is_empty() => {
                let index = self.random.below(self.unheard.len());
                let chosen = self.unheard[index];
                self.hear(|who| *who == chosen);
            }
            _ => {
                let children: Vec<ChildId> = self.links.keys().copied().collect();
                if !children.is_empty() {
                    let child = children[self.random.below(children.len())];
                    let up = self.random.below(2) == 0;
                    self.deliver(child, up);
                }
            }
        }
    }

    fn remove(&mut self, id: InstanceId) {
        self.note(format!("remove {}", id.number));
        self.wanted.remove(&id);
        self.removed.insert(id);
        self.give(ROOT, Input::Remove(id));
    }

    fn move_something(&mut self) {
        let children: Vec<u8> = CLUSTERS.iter().chain(&NODES).map(|(letter, _)| *letter).collect();
        let child = id(children[self.random.below(children.len())]);
        let is_cluster = self.tiers.contains_key(&child);
        let mut parents: Vec<u8> = CLUSTERS.iter().map(|(letter, _)| *letter).collect();
        if is_cluster {
            parents.push(b'R');
        }
        let mut parent = id(parents[self.random.below(parents.len())]);
        if self.random.below(3) == 0 {
            parent = home(child);
        }
        // Before a child goes on, it is known where it went the last time.
        let recent = self.moved.get(&child).is_some_and(|at| at + STAY > self.steps);
        if parent != child && !recent {
            self.moved.insert(child, self.steps);
            let (who, to) = (char::from(child.0[0]), char::from(parent.0[0]));
            self.note(format!("{who} goes to {to}"));
            self.connect(child, parent);
        }
    }

    fn restart(&mut self, tier: ChildId) {
        self.note(format!("restart of {}", char::from(tier.0[0])));
        let below = self.links.iter().filter(|(_, link)| link.parent == tier);
        for child in below.map(|(child, _)| *child).collect::<Vec<_>>() {
            self.cut(child);
        }
        self.cut(tier);
        // It hears nothing of what happened while it was away.
        self.unheard.retain(|(parent, _)| *parent != tier);
        self.boot(tier);
    }

    /// Everybody goes where they belong, from the top.
    fn go_home(&mut self) {
        self.hear(|_| true);
        for (letter, parent) in CLUSTERS.iter().chain(&NODES) {
            let child = id(*letter);
            if self.links.get(&child).is_none_or(|link| link.parent != id(*parent)) {
                self.connect(child, id(*parent));
            }
            self.settle();
        }
    }

    /// Delivers all there is, and lets timers run, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            self.hear(|_| true);
            let waiting = self.links.iter().find_map(|(child, link)| {
                if !link.up.is_empty() {
                    return Some((*child, true));
                }
                (!link.down.is_empty()).then_some((*child, false))
            });
            if let Some((child, up)) = waiting {
                self.deliver(child, up);
                continue;
            }
            let soon = self.now_ms + 181_000;
            let due = self.tiers.iter().find_map(|(tier, core)| {
                core.poll_timeout().filter(|at| *at <= soon).map(|at| (*tier, at))
            });
            let Some((tier, at)) = due.filter(|_| self.now_ms < 10_000_000) else { return };
            self.now_ms = self.now_ms.max(at);
            let now = self.now();
            self.tiers.get_mut(&tier).unwrap().handle_timeout(now);
            self.drain(tier);
        }
        panic!("it never settles");
    }

    fn running(&self) -> BTreeMap<InstanceId, Vec<ChildId>> {
        let mut running: BTreeMap<InstanceId, Vec<ChildId>> = BTreeMap::new();
        for (node, Node { desired, .. }) in &self.nodes {
            desired.workloads().keys().for_each(|id| running.entry(*id).or_default().push(*node));
        }
        running
    }

    /// At the end all that is wanted runs once and is known to, and all that is removed is gone.
    fn finish(&mut self) {
        self.note("all go home".into());
        self.go_home();
        self.check_all();
        self.note("all is removed".into());
        for id in self.wanted.clone() {
            self.remove(id);
        }
        self.settle();
        let left: Vec<u32> = self.running().keys().map(|id| id.number).collect();
        assert!(left.is_empty(), "{left:?} are left");
        for (tier, core) in &self.tiers {
            let left = core.instances().len();
            assert_eq!(left, 0, "in the books of {}", char::from(tier.0[0]));
        }
    }

    fn check_all(&self) {
        for (id, nodes) in self.running() {
            assert!(self.wanted.contains(&id), "{} was removed", id.number);
            assert_eq!(nodes.len(), 1, "{} runs on {nodes:?}", id.number);
        }
        // What was placed on a node that left before it heard so waits for that one.
        assert_eq!(
            self.running().len(),
            self.started.keys().filter(|id| self.wanted.contains(id)).count()
        );
        for id in self.wanted.iter().filter(|id| self.started.contains_key(id)) {
            let status = self.tiers[&ROOT].status(*id).unwrap();
            assert_eq!(status.state, InstanceState::Running, "{}: {}", id.number, status.detail);
            let node = status.node.map(|node| node.id);
            assert_eq!(node.as_ref(), self.running()[id].first(), "{}", id.number);
        }
    }
}

/// Lives through a seed; what went wrong, with the end of the story.
fn live(seed: u64) -> Result<(), String> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let mut world = World::new(seed);
    world.log.clear();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        (0..1_500).for_each(|_| world.step());
        world.finish();
    }));
    outcome.map_err(|panic| {
        let why = panic.downcast_ref::<String>().map_or("", String::as_str);
        let story = world.log[world.log.len().saturating_sub(60)..].join("\n");
        format!("seed {seed}: {why}\n{story}")
    })
}

#[test]
fn nothing_stops_and_nothing_runs_twice_whoever_goes_where() {
    let number = |name: &str, usual: u64| -> u64 {
        std::env::var(name).map_or(usual, |number| number.parse().unwrap())
    };
    let (first, count) = (number("SEED", 0), 100 * number("SIM_FACTOR", 1));
    let failed: Vec<String> = (first..first + count).filter_map(|seed| live(seed).err()).collect();
    assert!(failed.is_empty(), "{} seeds failed, the first is {}", failed.len(), failed[0]);
}
