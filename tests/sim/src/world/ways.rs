//! The way up of each child, by the rules of `marram_protocol::parents`: whom to dial, when to
//! take another, when to go back. As the shells' `parent` and `way` modules have it.

use super::{Event, World};
use crate::network::{Actor, ConnectionId, UP};
use crate::program::Happening;
use marram_protocol::id::ChildId;
use marram_protocol::parents::{Action, Habits, Known, Parents};
use marram_protocol::v1::Down;

/// First pause after a failed dial: of a node and of a cluster.
const NODE_PAUSE_MS: u64 = 500;
const TIER_PAUSE_MS: u64 = 1_000;

/// Refusals in a row that mean it, to a node: the first only asks for another hello.
const REFUSALS: u32 = 2;

/// What a shell keeps of its way up.
#[derive(Debug)]
pub(crate) struct Way {
    parents: Parents,
    refusals: u32,
    /// The entry of the queue that counts.
    due: Option<u64>,
}

impl World {
    /// A child's program has started.
    pub(super) fn open_way(&mut self, actor: Actor) {
        let home = match actor {
            Actor::Tier(tier) => self.tiers[tier].preferred,
            Actor::Node(node) => Some(self.nodes[node].preferred),
        };
        let Some(home) = home else { return };
        let (pause_ms, needs_root) = match actor {
            Actor::Tier(_) => (TIER_PAUSE_MS, true),
            Actor::Node(_) => (NODE_PAUSE_MS, false),
        };
        let habits = Habits {
            patience_ms: self.random.between(10_000, 60_000),
            hysteresis_ms: self.random.between(20_000, 120_000),
            pause_ms,
            needs_root,
        };
        let known = Known::from_text(&self.program(actor).kept).unwrap_or_default();
        let address = self.tiers[home].name.clone();
        let parents = Parents::new(self.id(actor), habits, address, Vec::new(), known, 0);
        self.program_mut(actor).way = Some(Way { parents, refusals: 0, due: None });
        self.poll_way(actor);
    }

    fn way(&mut self, actor: Actor) -> Option<(&mut Parents, u64)> {
        let now_ms = self.queue.now_ms();
        let program = self.program_mut(actor);
        let mono_ms = program.clock.read(now_ms).0;
        program.way.as_mut().map(|way| (&mut way.parents, mono_ms))
    }

    /// Does what the rules say, until they wait for something.
    pub(super) fn poll_way(&mut self, actor: Actor) {
        let now_ms = self.queue.now_ms();
        let program = self.program(actor);
        if program.busy_until_ms > now_ms {
            let event = Event::Way(actor, program.life, None);
            return self.queue.push(program.busy_until_ms, event);
        }
        while let Some((parents, mono_ms)) = self.way(actor) {
            match parents.poll(mono_ms) {
                Some(Action::Dial(address)) => self.dial(actor, &address),
                Some(Action::Leave(why)) => {
                    self.note(|w| format!("{} leaves its parent: {why}", w.name(actor)));
                    let connection = self.connection(actor);
                    connection.into_iter().for_each(|id| self.close(id, UP));
                }
                Some(Action::Probe(address)) => {
                    let answers = self.can_reach(actor, &address).is_some();
                    let at_ms = now_ms + 1 + self.random.below(200);
                    let life = self.program(actor).life;
                    self.queue.push(at_ms, Event::Way(actor, life, Some(answers)));
                }
                None => break,
            }
        }
        let program = self.program_mut(actor);
        let Some(way) = &mut program.way else { return };
        let due_ms = way.parents.due_ms(program.clock.read(now_ms).0);
        let due_ms = due_ms.map(|mono_ms| program.clock.when(mono_ms).max(now_ms));
        if let Some(at_ms) = due_ms.filter(|_| way.due != due_ms) {
            let life = program.life;
            self.queue.push(at_ms, Event::Way(actor, life, None));
        }
        if let Some(way) = &mut self.program_mut(actor).way {
            way.due = due_ms;
        }
    }

    /// Time is up, or a probe has been answered.
    pub(super) fn way_due(&mut self, actor: Actor, life: u64, answers: Option<bool>) {
        let program = self.program_mut(actor);
        if program.life != life || !program.is_on {
            return;
        }
        if let Some(way) = &mut program.way {
            way.due = None;
        }
        if let (Some(answers), Some((parents, mono_ms))) = (answers, self.way(actor)) {
            parents.probed(mono_ms, answers);
        }
        self.poll_way(actor);
    }

    pub(super) fn connection(&self, actor: Actor) -> Option<ConnectionId> {
        match actor {
            Actor::Tier(tier) => self.tiers[tier].connection,
            Actor::Node(node) => self.nodes[node].connection,
        }
    }

    /// The tier at an address, if it answers there.
    fn can_reach(&self, actor: Actor, address: &str) -> Option<usize> {
        let parent = self.tiers.iter().position(|tier| tier.name == address)?;
        let is_there = match actor {
            Actor::Tier(_) => self.answers(Actor::Tier(parent)),
            Actor::Node(_) => self.broker_answers(parent),
        };
        (is_there && self.network.is_whole(actor, parent)).then_some(parent)
    }

    fn dial(&mut self, actor: Actor, address: &str) {
        let random = self.random.draw();
        let Some(parent) = self.can_reach(actor, address) else {
            if let Some((parents, mono_ms)) = self.way(actor) {
                parents.failed(mono_ms, random);
            }
            return;
        };
        match actor {
            Actor::Tier(tier) => self.tiers[tier].parent = Some(parent),
            Actor::Node(node) => {
                let own = &mut self.nodes[node];
                if own.parent != parent {
                    // Another broker knows nothing of this client.
                    (own.parent, own.clean) = (parent, true);
                    own.doubted.clear();
                }
            }
        }
        let id = self.network.connect(actor, parent);
        self.note(|w| format!("{} connects to {}", w.name(actor), w.tiers[parent].name));
        match actor {
            Actor::Tier(tier) => {
                self.tiers[tier].connection = Some(id);
                self.way_is_up(actor);
                self.give(actor, Happening::Linked(id));
            }
            Actor::Node(node) => self.connect_node(node, parent, id),
        }
    }

    /// The connection is of use now.
    pub(super) fn way_is_up(&mut self, actor: Actor) {
        if let Some((parents, mono_ms)) = self.way(actor) {
            parents.connected(mono_ms);
        }
        if let Some(way) = &mut self.program_mut(actor).way {
            way.refusals = 0;
        }
    }

    /// The connection is gone. Of one that the child has left the rules know already.
    pub(super) fn way_is_lost(&mut self, actor: Actor) {
        let random = self.random.draw();
        if let Some((parents, mono_ms)) = self.way(actor) {
            parents.lost(mono_ms, random);
        }
        let (life, now_ms) = (self.program(actor).life, self.queue.now_ms());
        self.queue.push(now_ms, Event::Way(actor, life, None));
    }

    /// A node's connection has ended before it was of use.
    pub(super) fn way_has_failed(&mut self, actor: Actor) {
        let random = self.random.draw();
        if let Some((parents, mono_ms)) = self.way(actor) {
            parents.failed(mono_ms, random);
        }
        let (life, now_ms) = (self.program(actor).life, self.queue.now_ms());
        self.queue.push(now_ms, Event::Way(actor, life, None));
    }

    /// The parent that the child would rather have.
    pub(super) fn rather(&mut self, actor: Actor) -> Option<ChildId> {
        self.way(actor).and_then(|(parents, _)| parents.preferred())
    }

    /// What a parent's words mean for staying with it.
    pub(super) fn way_hears(&mut self, actor: Actor, message: &Down) {
        let random = self.random.draw();
        let is_node = matches!(actor, Actor::Node(_));
        let now_ms = self.queue.now_ms();
        let program = self.program_mut(actor);
        let mono_ms = program.clock.read(now_ms).0;
        let Some(Way { parents, refusals, .. }) = &mut program.way else { return };
        match message {
            Down::Welcome { .. } => {
                *refusals = 0;
                parents.welcomed(mono_ms);
            }
            Down::Kin(kin) => {
                if parents.kin(mono_ms, kin) {
                    program.kept = parents.known().to_text();
                }
            }
            Down::Rejected { .. } if is_node => {
                *refusals += 1;
                match parents.preferred().is_some() && *refusals >= REFUSALS {
                    true => parents.refused(mono_ms, random),
                    false => parents.unwelcome(mono_ms),
                }
            }
            Down::Rejected { .. } => parents.refused(mono_ms, random),
            _ => return,
        }
        self.poll_way(actor);
    }

    /// The core cannot stay with this parent.
    pub(super) fn way_is_refused(&mut self, actor: Actor) {
        let random = self.random.draw();
        if let Some((parents, mono_ms)) = self.way(actor) {
            parents.refused(mono_ms, random);
        }
        self.poll_way(actor);
    }
}
