//! Programs start, crash, and go on.

use super::{Event, World};
use crate::network::{Actor, DETECT_MS};
use crate::program::Happening;
use marram_protocol::v1::Up;

/// Longest pause before a program that has ended is started again by its machine.
const RESTART_MS: u64 = 5_000;

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The machine goes on, and tells the other ends of its connections.
    Crash,
    /// Power is cut: nobody is told anything.
    PowerCut,
    /// It was asked to end: a node says goodbye.
    Stop,
}

impl World {
    /// Starts a program from its disk.
    pub(super) fn start(&mut self, actor: Actor, boot: bool) {
        let now_ms = self.queue.now_ms();
        self.note(|w| format!("{} starts", w.name(actor)));
        match actor {
            Actor::Tier(tier) => {
                self.tiers[tier].start(now_ms, boot);
                self.settled_by_restart(tier);
                if !self.tiers[tier].broker.external {
                    self.give(actor, Happening::BusUp);
                } else {
                    self.connect_bus(tier);
                }
            }
            Actor::Node(node) => {
                self.nodes[node].start(now_ms, boot);
                self.give(actor, Happening::Look);
            }
        }
        self.drain(actor);
        if self.program(actor).is_on {
            self.open_way(actor);
        }
    }

    /// Ends a program. It starts again after a while, unless somebody has to do that.
    pub(super) fn end(&mut self, actor: Actor, end: End, again_ms: Option<u64>) {
        if !self.program(actor).is_on {
            return;
        }
        self.note(|w| format!("{} ends: {end:?}", w.name(actor)));
        let now_ms = self.queue.now_ms();
        if end == End::Stop
            && let Actor::Node(node) = actor
        {
            self.say_goodbye(node);
        }
        match actor {
            Actor::Tier(tier) => {
                self.operator.crashed(tier);
                self.operations_crashed(tier);
                self.tiers[tier].stop();
                self.lose_bus(tier);
            }
            Actor::Node(node) => {
                self.nodes[node].stop();
                if end == End::PowerCut {
                    self.nodes[node].boots += 1;
                    self.nodes[node].backend.runs.clear();
                    self.note_running(node);
                }
            }
        }
        for (id, own) in self.connections_of(actor) {
            let drained_ms = self.network.drained_ms(id, own);
            self.network.close(id, own, now_ms, &mut self.random);
            let at_ms = match end {
                End::PowerCut => now_ms + 1 + self.random.below(DETECT_MS),
                End::Crash | End::Stop => drained_ms.max(now_ms) + 1,
            };
            self.queue.push(at_ms, Event::Notice(id, 1 - own));
        }
        if let Some(again_ms) = again_ms {
            let life = self.program(actor).life;
            self.queue.push(now_ms + again_ms, Event::Start(actor, life));
        }
    }

    /// A crash out of which the machine helps by itself.
    pub(super) fn crash(&mut self, actor: Actor) {
        let again_ms = 1 + self.random.below(RESTART_MS);
        self.end(actor, End::Crash, Some(again_ms));
    }

    fn say_goodbye(&mut self, node: usize) {
        let Some(id) = self.nodes[node].connection.filter(|_| self.nodes[node].linked) else {
            return;
        };
        let (own, tier) = (&self.nodes[node], self.nodes[node].parent);
        let offline = Up::Presence { online: false, incarnation: own.incarnation() };
        let child = own.id;
        self.send_up(id, &offline);
        if self.network.is_whole(Actor::Node(node), tier) {
            self.tiers[tier].broker.forget_will(child);
        }
    }

    /// The whole program stands still, with its connections, for a while.
    pub(super) fn freeze(&mut self, actor: Actor, span_ms: u64) {
        let now_ms = self.queue.now_ms();
        let program = self.program_mut(actor);
        if !program.is_on || program.busy_until_ms > now_ms {
            return;
        }
        program.busy_until_ms = now_ms + span_ms;
        program.frozen = true;
        let life = program.life;
        self.note(|w| format!("{} stands still for {span_ms} ms", w.name(actor)));
        self.queue.push(now_ms + span_ms, Event::Wake(actor, life));
        for (id, own) in self.connections_of(actor) {
            let at_ms = now_ms + DETECT_MS / 2 + self.random.below(DETECT_MS / 2);
            self.queue.push(at_ms, Event::Notice(id, 1 - own));
        }
    }

    pub(super) fn wake(&mut self, actor: Actor, life: u64) {
        let now_ms = self.queue.now_ms();
        let program = self.program_mut(actor);
        if !program.is_on || program.life != life || program.busy_until_ms > now_ms {
            return;
        }
        if !std::mem::take(&mut program.frozen) {
            return self.drain(actor);
        }
        program.steady_since_ms = now_ms;
        if let Actor::Node(node) = actor {
            let own = &mut self.nodes[node];
            own.undisturbed_ms = own.undisturbed_ms.max(now_ms);
        }
        self.drain(actor);
    }

    pub(super) fn timer(&mut self, actor: Actor, at_ms: u64) {
        let program = self.program_mut(actor);
        if program.is_on && program.timer == Some(at_ms) {
            program.timer = None;
            self.give(actor, Happening::Due);
        }
    }

    /// Asks to be woken when the core wants it.
    pub(super) fn set_timer(&mut self, actor: Actor) {
        let due_ms = match actor {
            Actor::Tier(tier) => self.tiers[tier].core.as_ref().and_then(|c| c.poll_timeout()),
            Actor::Node(node) => self.nodes[node].engine.as_ref().and_then(|e| e.poll_timeout()),
        };
        let now_ms = self.queue.now_ms();
        let program = self.program_mut(actor);
        let Some(due_ms) = due_ms else {
            program.timer = None;
            return;
        };
        let at_ms = program.clock.when(due_ms).max(now_ms);
        if program.timer != Some(at_ms) {
            program.timer = Some(at_ms);
            self.queue.push(at_ms, Event::Timer(actor, at_ms));
        }
    }

    /// Whether a program can answer on the network.
    pub(super) fn answers(&self, actor: Actor) -> bool {
        let program = self.program(actor);
        program.is_on && !program.frozen
    }
}
