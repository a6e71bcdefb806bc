//! What the programs around the cores do, as `engine/node`, `orchestrator/cluster` and
//! `orchestrator/root` do it.

use super::{Event, World};
use crate::network::{Actor, DOWN};
use crate::program::Happening;
use marram_engine_core as engine;
use marram_orchestrator_core as orchestrator;
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Down, Telemetry, Up, WorkloadUsage};

/// Between two requests to the same node to say hello.
const ASK_INTERVAL_MS: u64 = 10_000;

/// Between two samples of a node.
const SAMPLE_MS: u64 = 5_000;

/// Longest pause before a node that its cluster does not take says hello again.
const HELLO_AGAIN_MAX_MS: u64 = 60_000;

impl World {
    /// Lets a program do what it has to do, in order, until it waits.
    pub(super) fn drain(&mut self, actor: Actor) {
        if std::mem::replace(&mut self.program_mut(actor).at_work, true) {
            return;
        }
        let is_done = self.work(actor);
        self.program_mut(actor).at_work = false;
        if is_done {
            self.set_timer(actor);
            self.settled(actor);
        }
    }

    /// False if there is something left that has to wait.
    fn work(&mut self, actor: Actor) -> bool {
        loop {
            let program = self.program(actor);
            if !program.is_on || program.busy_until_ms > self.queue.now_ms() {
                return false;
            }
            let went_on = match actor {
                Actor::Tier(tier) => self.tier_effect(tier),
                Actor::Node(node) => self.node_effect(node),
            };
            if went_on {
                continue;
            }
            let Some(happening) = self.program_mut(actor).inbox.pop_front() else { return true };
            match actor {
                Actor::Tier(tier) => self.tier_takes(tier, happening),
                Actor::Node(node) => self.node_takes(node, happening),
            }
        }
    }

    pub(super) fn tell_core(&mut self, tier: usize, input: orchestrator::Input) {
        let own = &mut self.tiers[tier];
        let now = own.program.tier_now(self.queue.now_ms());
        if let Some(core) = &mut own.core {
            core.handle(now, input);
        }
    }

    fn tell_engine(&mut self, node: usize, input: engine::Input) {
        let own = &mut self.nodes[node];
        let now = own.program.node_now(self.queue.now_ms());
        if let Some(engine) = &mut own.engine {
            engine.handle(now, input);
        }
    }

    fn tier_takes(&mut self, tier: usize, happening: Happening) {
        use orchestrator::Input;
        match happening {
            Happening::Linked(id) if self.tiers[tier].connection == Some(id) => {
                let preferred = self.rather(Actor::Tier(tier));
                self.tell_core(tier, Input::ParentUp { preferred });
            }
            Happening::Unlinked if self.tiers[tier].connection.is_none() => {
                self.tell_core(tier, Input::ParentGone);
            }
            Happening::Heard(id, message) if self.tiers[tier].connection == Some(id) => {
                self.note(|w| w.line_down(Actor::Tier(tier), &message));
                self.way_hears(Actor::Tier(tier), &message);
                match message {
                    Down::Rejected { .. } => {}
                    message => self.tell_core(tier, Input::Parent(message)),
                }
            }
            Happening::Said(id, message) => self.child_says(tier, id, message),
            Happening::Left(id, child) if self.tiers[tier].outlets.get(&child) == Some(&id) => {
                self.tiers[tier].outlets.remove(&child);
                self.tell_core(tier, Input::ChildGone(child, None));
            }
            Happening::Bus(node, message, retained) => {
                self.node_says(tier, node, message, retained)
            }
            Happening::BusGone(node) => self.tell_core(tier, Input::ChildGone(node, None)),
            Happening::BusUp => self.tiers[tier].asked.clear(),
            Happening::BusDown => {
                let core = self.tiers[tier].core.as_ref().expect("it is on");
                let here = core.children().values().filter(|child| child.is_connected());
                let nodes = here.map(|child| child.id());
                let nodes = nodes.filter(|id| matches!(self.by_id.get(id), Some(Actor::Node(_))));
                for node in nodes.collect::<Vec<_>>() {
                    self.tell_core(tier, Input::ChildGone(node, None));
                }
            }
            Happening::Due => {
                let own = &mut self.tiers[tier];
                let now = own.program.tier_now(self.queue.now_ms());
                own.core.as_mut().expect("it is on").handle_timeout(now);
            }
            Happening::Core(input) => self.tell_core(tier, *input),
            // Of a connection that was given up before, or not for a tier.
            _ => {}
        }
    }

    /// A cluster speaks to its parent.
    fn child_says(&mut self, tier: usize, id: u64, message: Up) {
        let Some(connection) = self.network.get(id) else { return };
        let child = self.id(connection.child);
        self.note(|w| w.line_up(tier, child, &message));
        let mut former = None;
        if let Up::Hello(_) = &message {
            former = self.tiers[tier].outlets.insert(child, id).filter(|old| *old != id);
        }
        if self.tiers[tier].outlets.get(&child) == Some(&id) {
            self.tell_core(tier, orchestrator::Input::Child(child, message));
        }
        // A connection that takes the place of another one ends that one; what follows the
        // greeting is taken after it.
        if let Some(former) = former {
            self.close(former, DOWN);
        }
    }

    /// A node speaks to its cluster.
    fn node_says(&mut self, tier: usize, node: ChildId, message: Up, retained: bool) {
        self.note(|w| w.line_up(tier, node, &message));
        let is_hello = matches!(message, Up::Hello(_));
        let online = match &message {
            Up::Presence { online, .. } => Some(*online),
            _ => None,
        };
        if is_hello {
            self.tiers[tier].asked.remove(&node);
        }
        if is_hello || online.is_some() || self.is_connected(tier, node) {
            self.tell_core(tier, orchestrator::Input::Child(node, message));
        } else {
            self.ask_hello(tier, node);
        }
        // It was there before this cluster listened, so its hello was not heard.
        if online == Some(true) && retained && !self.is_connected(tier, node) {
            self.ask_hello(tier, node);
        }
    }

    fn is_connected(&self, tier: usize, child: ChildId) -> bool {
        let core = self.tiers[tier].core.as_ref();
        core.and_then(|core| core.children().get(&child)).is_some_and(|c| c.is_connected())
    }

    fn ask_hello(&mut self, tier: usize, node: ChildId) {
        let now_ms = self.queue.now_ms();
        let asked_ms = self.tiers[tier].asked.get(&node);
        if asked_ms.is_some_and(|asked_ms| now_ms < asked_ms + ASK_INTERVAL_MS) {
            return;
        }
        self.tiers[tier].asked.insert(node, now_ms);
        self.tell_child(tier, node, &Down::Rejected { reason: "say hello again".into() });
    }

    fn node_takes(&mut self, node: usize, happening: Happening) {
        use engine::Input;
        match happening {
            Happening::Linked(id) if self.nodes[node].connection == Some(id) => {
                self.nodes[node].linked = true;
                self.nodes[node].behind = false;
                let preferred = self.rather(Actor::Node(node));
                self.tell_engine(node, Input::LinkUp { preferred });
                if self.params.telemetry > 0 {
                    self.keep_ticking(node, SAMPLE_MS);
                }
            }
            Happening::Unlinked if self.nodes[node].connection.is_none() => {
                self.nodes[node].linked = false;
                self.tell_engine(node, Input::LinkDown);
            }
            Happening::Heard(id, message) if self.nodes[node].connection == Some(id) => {
                self.note(|w| w.line_down(Actor::Node(node), &message));
                self.way_hears(Actor::Node(node), &message);
                match message {
                    Down::Rejected { .. } => self.node_is_rejected(node),
                    message => {
                        if let Down::Welcome { .. } = message {
                            self.nodes[node].rejections = 0;
                        }
                        self.tell_engine(node, Input::Parent(message));
                    }
                }
            }
            Happening::Done(id, outcome) => self.tell_engine(node, Input::Done(id, outcome)),
            Happening::Exited(id, exit) => self.tell_engine(node, Input::Exited(id, exit)),
            Happening::Look => {
                let (facts, found) = self.nodes[node].backend.listing();
                self.tell_engine(node, Input::Backend { facts, found });
                let host = self.nodes[node].host();
                self.tell_engine(node, host);
            }
            Happening::Tick(sample) => {
                if std::mem::take(&mut self.nodes[node].behind) && self.nodes[node].linked {
                    let preferred = self.rather(Actor::Node(node));
                    self.tell_engine(node, Input::LinkUp { preferred });
                }
                if let Some(sample) = sample {
                    self.tell_engine(node, Input::Telemetry(*sample));
                }
            }
            Happening::Due => {
                let own = &mut self.nodes[node];
                let now = own.program.node_now(self.queue.now_ms());
                own.engine.as_mut().expect("it is on").handle_timeout(now);
            }
            // Of a connection that was given up before, or not for a node.
            _ => {}
        }
    }

    /// The cluster does not take this node, or does not know it any more.
    fn node_is_rejected(&mut self, node: usize) {
        let own = &mut self.nodes[node];
        let doubled = SAMPLE_MS << own.rejections.min(8);
        let wait_ms = if own.rejections == 0 { 0 } else { doubled.min(HELLO_AGAIN_MAX_MS) };
        own.rejections += 1;
        own.behind = true;
        let sample_ms = self.random.below(SAMPLE_MS);
        self.keep_ticking(node, wait_ms + sample_ms);
    }

    fn keep_ticking(&mut self, node: usize, in_ms: u64) {
        let own = &mut self.nodes[node];
        if !std::mem::replace(&mut own.ticking, true) {
            let event = Event::Tick(node, own.program.life);
            self.queue.push(self.queue.now_ms() + in_ms, event);
        }
    }

    pub(super) fn tick(&mut self, node: usize, life: u64) {
        let own = &mut self.nodes[node];
        if own.program.life != life {
            return;
        }
        own.ticking = false;
        let samples = self.params.telemetry > 0 && own.linked;
        let sample = samples.then(|| Box::new(self.sample(node)));
        self.give(Actor::Node(node), Happening::Tick(sample));
        let program = &self.nodes[node].program;
        if samples && program.is_on && program.life == life {
            self.keep_ticking(node, SAMPLE_MS);
        }
    }

    /// What a quiet machine measures: some noise.
    fn sample(&mut self, node: usize) -> Telemetry {
        let own = &self.nodes[node];
        let used = |(id, (_, mib)): (&_, &(_, u32))| WorkloadUsage {
            instance: *id,
            cpu_permille: 20,
            memory_mib: *mib,
        };
        let workloads = own.backend.runs.iter().map(used).collect();
        let noise = u16::try_from(self.random.below(40)).unwrap_or(0);
        Telemetry {
            incarnation: own.incarnation(),
            cpu_permille: 100 + noise,
            memory_used_mib: own.backend.used_mib(),
            disk_free_mib: 500,
            workloads,
            ..Telemetry::default()
        }
    }
}
