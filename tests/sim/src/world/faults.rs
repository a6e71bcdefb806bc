//! Bad luck: what is done to a world, and what mends by itself after a while.

use super::lives::End;
use super::{Event, ROOT, World};
use crate::backend::Mood;
use crate::network::Actor;
use crate::node::Node;
use crate::program::Happening;
use marram_backend_api::{Exit, ExitReason};

/// Between two fates passes up to about two to the power of this, in ms: two minutes.
const FATE_DOUBLINGS: u64 = 17;

/// A trouble lasts up to about two to the power of this: nine minutes.
const TROUBLE_DOUBLINGS: u64 = 19;

/// Copies of machines in one world.
const COPIES_MAX: usize = 2;

/// What lasts for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A way is cut.
    Way(Actor, usize),
    /// A disk is full.
    Disk(Actor),
    /// A backend is not itself.
    Mood(usize),
    /// A tier is slow.
    Slow(usize),
    /// A cluster has lost its broker.
    Bus(usize),
}

impl World {
    /// The next thing is done to the world.
    pub(super) fn fate(&mut self) {
        if self.fates_left == 0 {
            return;
        }
        self.fates_left -= 1;
        let in_ms = self.random.span_ms(FATE_DOUBLINGS);
        self.queue.push(self.queue.now_ms() + in_ms, Event::Fate);
        if self.random.chance(u64::from(self.params.faults)) {
            self.fault();
        } else {
            self.operate();
        }
    }

    fn fault(&mut self) {
        match self.random.below(29) {
            0..4 => self.cut_some_way(),
            4..7 => {
                let actor = self.any_actor();
                self.crash(actor);
            }
            7 => self.crash(Actor::Tier(ROOT)),
            8..10 => {
                let actor = self.any_actor();
                let again_ms = self.random.span_ms(TROUBLE_DOUBLINGS);
                self.end(actor, End::PowerCut, Some(again_ms));
            }
            10 => self.cut_power_of_site(),
            11 => {
                let node = self.any_node();
                let again_ms = self.random.span_ms(TROUBLE_DOUBLINGS);
                self.end(Actor::Node(node), End::Stop, Some(again_ms));
            }
            12..14 => {
                let actor = self.any_actor();
                let span_ms = self.random.span_ms(TROUBLE_DOUBLINGS);
                self.freeze(actor, span_ms);
            }
            14 => {
                let tier = self.random.index(self.tiers.len());
                self.tiers[tier].program.slow_ms = 1 + self.random.span_ms(11);
                self.for_a_while(Trouble::Slow(tier));
            }
            15 | 16 => {
                let actor = self.any_actor();
                match actor {
                    Actor::Tier(tier) => self.tiers[tier].store.full = true,
                    Actor::Node(node) => self.nodes[node].ledger.full = true,
                }
                self.for_a_while(Trouble::Disk(actor));
            }
            17..19 => {
                let node = self.any_node();
                let moods = [Mood::Failing, Mood::Hanging, Mood::Lying];
                self.nodes[node].backend.mood = self.random.pick(&moods);
                self.for_a_while(Trouble::Mood(node));
            }
            19..22 => self.exit_something(),
            22 => self.tell_all_again(),
            23 => {
                let actor = self.any_actor();
                let years_ms = self.random.span_ms(41);
                let years_ms = i64::try_from(years_ms).unwrap_or(0);
                let offset_ms = if self.random.chance(50) { years_ms } else { -years_ms };
                self.program_mut(actor).clock.set_wall(offset_ms);
            }
            24 | 25 => self.break_some_bus(),
            26 => {
                let node = self.any_node();
                self.give(Actor::Node(node), Happening::Look);
            }
            27 => self.copy_some_machine(),
            _ => self.mend_something(),
        }
    }

    fn any_node(&mut self) -> usize {
        self.random.index(self.nodes.len())
    }

    fn any_actor(&mut self) -> Actor {
        if self.random.chance(50) {
            Actor::Node(self.any_node())
        } else {
            Actor::Tier(self.random.index(self.tiers.len()))
        }
    }

    fn for_a_while(&mut self, trouble: Trouble) {
        let span_ms = self.random.span_ms(TROUBLE_DOUBLINGS);
        self.note(|w| format!("{} for {span_ms} ms", w.line_trouble(trouble)));
        self.queue.push(self.queue.now_ms() + span_ms, Event::Mend(trouble));
    }

    fn cut_some_way(&mut self) {
        let child = self.any_actor();
        let Some(parent) = self.parent_of(child) else { return };
        let directions =
            self.random.pick(&[[true, true], [true, true], [true, false], [false, true]]);
        let now_ms = self.queue.now_ms();
        for id in self.network.cut(child, parent, directions) {
            for end in [0, 1] {
                let at_ms = now_ms + 1 + self.random.below(crate::network::DETECT_MS);
                self.queue.push(at_ms, Event::Notice(id, end));
            }
        }
        self.for_a_while(Trouble::Way(child, parent));
    }

    /// A cluster and all that is below it lose their power, and come back in any order.
    fn cut_power_of_site(&mut self) {
        let top = self.random.index(self.tiers.len());
        for actor in self.actors() {
            if self.is_below(actor, top) {
                let again_ms = self.random.span_ms(TROUBLE_DOUBLINGS - 2);
                self.end(actor, End::PowerCut, Some(again_ms));
            }
        }
    }

    /// Whether an actor is a tier or somewhere below it.
    pub(super) fn is_below(&self, actor: Actor, top: usize) -> bool {
        let mut at = Some(actor);
        // A way up that is longer than there are tiers goes round in a circle.
        for _ in 0..=self.tiers.len() {
            match at {
                Some(Actor::Tier(tier)) if tier == top => return true,
                Some(actor) => at = self.parent_of(actor).map(Actor::Tier),
                None => return false,
            }
        }
        false
    }

    fn exit_something(&mut self) {
        let now_ms = self.queue.now_ms();
        let node = self.any_node();
        let running: Vec<_> = self.nodes[node].backend.running().collect();
        if running.is_empty() {
            return;
        }
        let instance = self.random.pick(&running);
        let exit = Exit { reason: ExitReason::Code(1), at_unix_ms: 0 };
        let unnoticed = self.random.chance(20);
        self.note(|w| format!("{instance} ends on {}", w.nodes[node].name));
        let backend = &mut self.nodes[node].backend;
        backend.end(instance, exit.clone());
        backend.lied |= unnoticed;
        self.note_running(node);
        if unnoticed {
            self.queue.push(now_ms + 60_000, Event::Mend(Trouble::Mood(node)));
        } else {
            self.give(Actor::Node(node), Happening::Exited(instance, exit));
        }
    }

    /// A node lacks something on a live link, and tells everything again.
    fn tell_all_again(&mut self) {
        let node = self.any_node();
        if self.nodes[node].linked {
            self.nodes[node].behind = true;
            self.give(Actor::Node(node), Happening::Tick(None));
        }
    }

    fn break_some_bus(&mut self) {
        let external = self.tiers.iter().enumerate().filter(|(_, tier)| tier.broker.bus);
        let external: Vec<usize> = external.map(|(number, _)| number).collect();
        if !external.is_empty() {
            let tier = self.random.pick(&external);
            let broker_dies = self.random.chance(50);
            self.break_bus(tier, broker_dies);
            self.for_a_while(Trouble::Bus(tier));
        }
    }

    /// A machine is switched on whose disk is a copy of another's.
    fn copy_some_machine(&mut self) {
        let copies = self.nodes.iter().filter(|node| node.copy_of.is_some()).count();
        let node = self.any_node();
        if self.params.clones == 0 || copies >= COPIES_MAX || self.nodes[node].copy_of.is_some() {
            return;
        }
        let own = &self.nodes[node];
        let (name, parent) = (format!("{}-copy", own.name), own.parent);
        let mut copy = Node::new(own.id, name, parent, own.program.clock);
        copy.copy_of = Some(node);
        copy.ledger = own.ledger.clone();
        self.note(|w| format!("{} is copied", w.nodes[node].name));
        self.nodes.push(copy);
        self.start(Actor::Node(self.nodes.len() - 1), true);
    }

    fn mend_something(&mut self) {
        let cuts = self.network.cut_ways();
        if !cuts.is_empty() {
            let (child, parent) = self.random.pick(&cuts);
            self.mend(Trouble::Way(child, parent));
        }
    }

    pub(super) fn mend(&mut self, trouble: Trouble) {
        self.note(|w| format!("no longer: {}", w.line_trouble(trouble)));
        match trouble {
            Trouble::Way(child, parent) => {
                let now_ms = self.queue.now_ms();
                for (at_ms, id, direction, bytes) in self.network.heal(child, parent, now_ms) {
                    self.queue.push(at_ms, Event::Arrive(id, direction, bytes));
                }
            }
            Trouble::Disk(Actor::Tier(tier)) => self.tiers[tier].store.full = false,
            Trouble::Disk(Actor::Node(node)) => self.nodes[node].ledger.full = false,
            Trouble::Mood(node) => {
                self.nodes[node].backend.mood = Mood::Well;
                let own = &mut self.nodes[node];
                own.undisturbed_ms = own.undisturbed_ms.max(self.queue.now_ms());
                // It asks to be listed again.
                self.give(Actor::Node(node), Happening::Look);
            }
            Trouble::Slow(tier) => {
                let now_ms = self.queue.now_ms();
                let program = &mut self.tiers[tier].program;
                (program.slow_ms, program.steady_since_ms) = (0, now_ms);
            }
            Trouble::Bus(tier) => {
                self.tiers[tier].broker.is_on = self.tiers[tier].broker.external;
                self.connect_bus(tier);
            }
        }
    }
}
