//! The world: a root, clusters, nodes, the ways between them, and time.
//!
//! Rooms: `build` makes it, `shells` does what the programs around the cores do, `links` what
//! connections and brokers do, `effects` performs what the cores decide, `lives` starts and
//! ends programs, `faults` and `operator` are what is done to it, `rules` is what must hold at
//! all times, `peace` what must come true.

mod build;
mod effects;
mod faults;
mod links;
mod lives;
mod operations;
mod operator;
mod peace;
mod rules;
mod shells;
mod states;
mod tell;
mod ways;
mod wishes;

use crate::Random;
use crate::backend::Task;
use crate::network::{Actor, Bytes, ConnectionId, Network};
use crate::node::Node;
use crate::params::Params;
use crate::program::Happening;
use crate::queue::Queue;
use crate::tier::Orchestrator;
use faults::Trouble;
use marram_protocol::id::ChildId;
use operator::Operator;
use rules::Watch;
use std::collections::BTreeMap;
pub(crate) use ways::Way;

/// The root among the tiers.
pub(crate) const ROOT: usize = 0;

/// Things at one moment, beside some for each actor: many more are a loop that nobody waits in.
const MOMENT_MAX: u32 = 20_000;

/// What will happen.
#[derive(Debug)]
enum Event {
    /// A core asked to be woken then.
    Timer(Actor, u64),
    /// A program goes on after a wait.
    Wake(Actor, u64),
    /// A program is started, unless it has been since that life.
    Start(Actor, u64),
    /// A child looks after its way up, perhaps with the outcome of a probe.
    Way(Actor, u64, Option<bool>),
    /// A message is at its end.
    Arrive(ConnectionId, usize, Bytes),
    /// A node's subscriptions are confirmed.
    Subscribed(ConnectionId),
    /// An end may notice that the other end or the way is gone.
    Notice(ConnectionId, usize),
    /// A task of a backend reaches the host, in that boot, for that life of the engine.
    Land(usize, u64, u64, Box<Task>),
    /// A client's will may be due.
    Will(usize, ChildId),
    /// A broker brings a message to its cluster, on that connection of the cluster.
    Bus(usize, u64, ChildId, Bytes, bool),
    /// A node takes a sample.
    Tick(usize, u64),
    /// A trouble ends.
    Mend(Trouble),
    /// The next thing is done to the world.
    Fate,
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    params: Params,
    random: Random,
    queue: Queue<Event>,
    /// The root first.
    tiers: Vec<Orchestrator>,
    nodes: Vec<Node>,
    /// Of copies, the one that was copied.
    by_id: BTreeMap<ChildId, Actor>,
    network: Network,
    operator: Operator,
    watch: Watch,
    fates_left: u32,
    peace: bool,
    peace_since_ms: u64,
    /// Messages by direction: how many, and their bytes.
    traffic: [(u64, u64); 2],
    /// Of those the ones that are no heartbeat.
    loud: u64,
    steps: u64,
    log: Option<Vec<String>>,
}

impl World {
    /// Lives through the first phase and the peace after it.
    pub fn run(&mut self) {
        while self.fates_left > 0 {
            self.step();
        }
        self.heal();
    }

    /// Virtual time goes on by so much.
    pub fn run_for(&mut self, span_ms: u64) {
        let end_ms = self.queue.now_ms() + span_ms;
        while self.queue.now_ms() < end_ms && self.queue.len() > 0 {
            self.step();
        }
    }

    /// The next event.
    pub fn step(&mut self) {
        self.steps += 1;
        let Some(event) = self.queue.pop() else { panic!("nothing will ever happen again") };
        let crowd = u32::try_from(10 * (self.nodes.len() + self.tiers.len())).unwrap_or(0);
        assert!(self.queue.at_this_moment() < MOMENT_MAX + crowd, "somebody spins");
        match event {
            Event::Timer(actor, at_ms) => self.timer(actor, at_ms),
            Event::Wake(actor, life) => self.wake(actor, life),
            Event::Start(actor, life) => {
                let program = self.program(actor);
                let is_gone = matches!(actor, Actor::Node(node) if self.nodes[node].scrapped);
                if !program.is_on && program.life == life && !is_gone {
                    self.start(actor, false);
                }
            }
            Event::Way(actor, life, answers) => self.way_due(actor, life, answers),
            Event::Arrive(id, direction, bytes) => self.arrive(id, direction, &bytes),
            Event::Subscribed(id) => self.subscribed(id),
            Event::Notice(id, end) => self.notice(id, end),
            Event::Land(node, boot, life, task) => self.land(node, boot, life, *task),
            Event::Will(tier, node) => self.will(tier, node),
            Event::Bus(tier, life, node, bytes, retained) => {
                self.bus_brings(tier, life, node, &bytes, retained);
            }
            Event::Tick(node, life) => self.tick(node, life),
            Event::Mend(trouble) => self.mend(trouble),
            Event::Fate => self.fate(),
        }
        self.check_doubles();
    }

    /// What happened since it was recorded, oldest first.
    pub fn log(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Events that have happened.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Virtual milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        self.queue.now_ms()
    }

    /// Messages and their bytes, up and down.
    pub fn traffic(&self) -> [(u64, u64); 2] {
        self.traffic
    }

    /// Instances that run now, copies counted.
    pub fn running(&self) -> usize {
        self.nodes.iter().map(|node| node.known_running.len()).sum()
    }

    /// Texts cost more than everything else: they are made only if somebody reads them.
    fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.log.is_some() {
            let line = format!("{:>9} {}", self.queue.now_ms(), text(self));
            if let Some(log) = &mut self.log {
                log.push(line);
            }
        }
    }

    fn program(&self, actor: Actor) -> &crate::program::Program {
        match actor {
            Actor::Tier(tier) => &self.tiers[tier].program,
            Actor::Node(node) => &self.nodes[node].program,
        }
    }

    fn program_mut(&mut self, actor: Actor) -> &mut crate::program::Program {
        match actor {
            Actor::Tier(tier) => &mut self.tiers[tier].program,
            Actor::Node(node) => &mut self.nodes[node].program,
        }
    }

    fn name(&self, actor: Actor) -> &str {
        match actor {
            Actor::Tier(tier) => &self.tiers[tier].name,
            Actor::Node(node) => &self.nodes[node].name,
        }
    }

    fn id(&self, actor: Actor) -> ChildId {
        match actor {
            Actor::Tier(tier) => self.tiers[tier].id,
            Actor::Node(node) => self.nodes[node].id,
        }
    }

    /// The tier that an actor connects to; `None` for the root.
    fn parent_of(&self, actor: Actor) -> Option<usize> {
        match actor {
            Actor::Tier(tier) => self.tiers[tier].parent,
            Actor::Node(node) => Some(self.nodes[node].parent),
        }
    }

    /// Whether anything goes wrong by itself now, and how often of a hundred times.
    fn faults(&self) -> u32 {
        if self.peace { 0 } else { self.params.faults }
    }

    /// Hands something to a program; it waits if that is busy, and is lost if it is not on.
    fn give(&mut self, actor: Actor, happening: Happening) {
        let now_ms = self.queue.now_ms();
        let program = self.program_mut(actor);
        if !program.is_on {
            return;
        }
        program.inbox.push_back(happening);
        if program.busy_until_ms <= now_ms {
            self.drain(actor);
        }
    }
}
