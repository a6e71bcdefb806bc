//! Makes a world: the tree, who is what, everything switched on.

use super::{Event, Operator, ROOT, Watch, World};
use crate::Random;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::network::{Actor, Network};
use crate::node::Node;
use crate::params::Params;
use crate::queue::Queue;
use crate::tier::Orchestrator;
use marram_protocol::id::ChildId;
use std::collections::BTreeMap;

/// When a world begins: not at 0, so that a forgotten time is seen.
const BEGINNING_MS: u64 = 1_000;

impl World {
    /// A world in which everything is being switched on.
    pub fn new(seed: u64, params: Params) -> Self {
        Self::made(seed, params, None)
    }

    /// The same, with everything that happens written down.
    pub fn recorded(seed: u64, params: Params) -> Self {
        Self::made(seed, params, Some(Vec::new()))
    }

    fn made(seed: u64, params: Params, log: Option<Vec<String>>) -> Self {
        let mut world = Self {
            params,
            random: Random::new(seed),
            queue: Queue::new(BEGINNING_MS),
            tiers: Vec::new(),
            nodes: Vec::new(),
            by_id: BTreeMap::new(),
            network: Network::default(),
            operator: Operator::default(),
            watch: Watch::default(),
            fates_left: params.fates,
            peace: false,
            peace_since_ms: 0,
            traffic: [(0, 0); 2],
            loud: 0,
            steps: 0,
            log,
        };
        world.plant();
        world.operator.instances_max = match params.instances {
            0 => world.nodes.len(),
            most => usize::try_from(most).unwrap_or(usize::MAX),
        };
        for actor in world.actors() {
            let at_ms = world.queue.now_ms() + world.random.below(2_000);
            world.queue.push(at_ms, Event::Start(actor, 0));
        }
        if params.fates > 0 {
            world.queue.push(BEGINNING_MS + 2_000, Event::Fate);
        }
        world
    }

    /// The root, clusters below it or below each other, nodes below clusters.
    fn plant(&mut self) {
        let faults = self.params.faults > 0;
        for number in 0..=self.params.clusters {
            let parent = (number > 0).then(|| self.any_parent());
            let clock = Clock::draw(&mut self.random, faults);
            let name = if number == 0 { "root".into() } else { format!("c{number}") };
            let id = id(0xc0, number);
            let mut tier = Orchestrator::new(id, name, parent, clock);
            if self.params.failover > 0 {
                tier.address.clone_from(&tier.name);
            }
            tier.number = self.tiers.len();
            tier.depth = parent.map_or(0, |parent| self.tiers[parent].depth + 1);
            let external = faults && self.random.chance(25);
            let will_delay_ms = if faults { self.random.pick(&[0, 0, 0, 5_000]) } else { 0 };
            tier.broker = Broker::new(external, will_delay_ms);
            self.by_id.insert(id, Actor::Tier(self.tiers.len()));
            self.tiers.push(tier);
        }
        for number in 0..self.params.nodes {
            // The first to each cluster, so that none is empty if there are enough.
            let parent = match number < self.params.clusters {
                true => usize::try_from(number).unwrap_or(0) + 1,
                false => 1 + self.random.index(self.tiers.len() - 1),
            };
            let clock = Clock::draw(&mut self.random, faults);
            let id = id(0x0e, number + 1);
            self.by_id.insert(id, Actor::Node(self.nodes.len()));
            self.nodes.push(Node::new(id, format!("n{}", number + 1), parent, clock));
        }
    }

    fn any_parent(&mut self) -> usize {
        let depth = self.params.depth;
        let shallow = self.tiers.iter().enumerate().filter(|(_, tier)| tier.depth < depth);
        let mut shallow: Vec<usize> = shallow.map(|(number, _)| number).collect();
        // A chain as deep as asked for comes first.
        let deepest = self.tiers.iter().map(|tier| tier.depth).max().unwrap_or(0);
        if deepest < depth {
            shallow.retain(|tier| self.tiers[*tier].depth == deepest);
        }
        if shallow.is_empty() { ROOT } else { self.random.pick(&shallow) }
    }

    /// Everybody, parents first.
    pub(super) fn actors(&self) -> Vec<Actor> {
        let tiers = (0..self.tiers.len()).map(Actor::Tier);
        tiers.chain((0..self.nodes.len()).map(Actor::Node)).collect()
    }
}

fn id(kind: u8, number: u32) -> ChildId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ChildId(bytes)
}
