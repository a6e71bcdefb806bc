//! What must come true once nothing goes wrong any more.
//!
//! - converged: within the stated time everything that is wanted runs, once, and the root
//!   knows; nothing else runs, and no tier remembers more;
//! - quiet: after that no message flows but heartbeats, and nobody has anything left to do.

use super::faults::Trouble;
use super::{ROOT, World};
use crate::backend::Mood;
use crate::network::Actor;
use marram_protocol::id::InstanceId;
use marram_protocol::state::InstanceState;
use std::collections::BTreeSet;

/// Within this virtual time of peace everything that is desired runs: the longest pauses are
/// those before a retry, five minutes, of which a refusal may cost several.
const CONVERGE_MS: u64 = 1_800_000;

/// Between two looks at whether it does.
const LOOK_MS: u64 = 500;

/// What may only be where there is no room is waited for so long: twice the longest pause
/// before a retry.
const PATIENCE_MS: u64 = 660_000;

/// Between two attempts of an operator: more than an answer takes.
const ASK_MS: u64 = 40_000;

/// Summaries and late answers settle for so long, and a node that was asked to say hello does
/// so within half of it.
const SETTLE_MS: u64 = 120_000;

/// For so long nothing is heard then.
const QUIET_MS: u64 = 1_200_000;

impl World {
    /// Peace: everything comes up, nothing fails any more, and what is desired must run.
    pub fn heal(&mut self) {
        self.peace = true;
        self.peace_since_ms = self.now_ms();
        self.fates_left = 0;
        self.note(|_| "peace".into());
        self.mend_all();
        let began_ms = self.now_ms();
        let mut look_ms = began_ms;
        let mut ask_ms = began_ms;
        while self.uncordon(&mut ask_ms) || !self.is_converged() || self.remove_waiting() {
            assert!(
                self.now_ms() < began_ms + CONVERGE_MS,
                "not converged after {CONVERGE_MS} ms: {}",
                self.difference()
            );
            look_ms = look_ms.max(self.now_ms()) + LOOK_MS;
            self.run_until(look_ms);
        }
        self.note(|w| format!("converged after {} ms", w.now_ms() - began_ms));
        self.run_until(self.now_ms() + SETTLE_MS);
        let loud = self.loud;
        self.run_until(self.now_ms() + QUIET_MS);
        assert_eq!(self.loud, loud, "messages flow though nothing happens");
        assert!(self.is_converged(), "it did not stay so: {}", self.difference());
        for tier in 0..self.tiers.len() {
            self.check_books(tier);
        }
    }

    /// What found no room where it may be is given up by its operators. Whether there was any.
    fn remove_waiting(&mut self) -> bool {
        let Some(root) = &self.tiers[ROOT].core else { return false };
        let runs = |id: &InstanceId| {
            root.status(*id).is_some_and(|status| status.state == InstanceState::Running)
        };
        let waiting = self.operator.wanted.iter().filter(|id| !runs(id));
        let waiting: Vec<InstanceId> = waiting.copied().collect();
        waiting.iter().for_each(|id| self.remove(*id));
        !waiting.is_empty()
    }

    /// Asks now and then for an end of what operators wanted of children. False once nothing
    /// of that is left.
    fn uncordon(&mut self, ask_ms: &mut u64) -> bool {
        if self.now_ms() < *ask_ms {
            return true;
        }
        let is_left = self.uncordon_all();
        if is_left {
            *ask_ms = self.now_ms() + ASK_MS;
        }
        is_left
    }

    /// Time passes, with all that happens in it.
    fn run_until(&mut self, end_ms: u64) {
        self.queue.push(end_ms, super::Event::Fate);
        while self.now_ms() < end_ms {
            self.step();
        }
    }

    fn mend_all(&mut self) {
        for (child, parent) in self.network.cut_ways() {
            self.mend(Trouble::Way(child, parent));
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].copy_of.is_some() {
                self.nodes[node].scrapped = true;
                self.end(Actor::Node(node), super::lives::End::PowerCut, None);
                self.nodes[node].backend.runs.clear();
                self.note_running(node);
            }
        }
        for actor in self.actors() {
            if let Actor::Node(node) = actor {
                if self.nodes[node].scrapped {
                    continue;
                }
                self.nodes[node].backend.mood = Mood::Well;
                self.mend(Trouble::Mood(node));
            }
            if let Actor::Tier(tier) = actor {
                self.mend(Trouble::Slow(tier));
                self.mend(Trouble::Bus(tier));
            }
            self.mend(Trouble::Disk(actor));
            if !self.program(actor).is_on {
                self.start(actor, false);
            } else if self.program(actor).frozen {
                let life = self.program(actor).life;
                self.program_mut(actor).busy_until_ms = self.queue.now_ms();
                self.wake(actor, life);
            }
        }
    }

    fn is_converged(&self) -> bool {
        let Some(root) = &self.tiers[ROOT].core else { return false };
        // What has no room is tried again for the last time when that has come up.
        let is_late = self.now_ms() > self.peace_since_ms + PATIENCE_MS;
        let may_wait = |id: &InstanceId| {
            let state = root.status(*id).map(|status| status.state);
            is_late && state == Some(InstanceState::Unplaceable) && self.operator.is_bound(id)
        };
        let known = &self.operator.wanted;
        let wanted: BTreeSet<InstanceId> =
            known.iter().filter(|id| !may_wait(id)).copied().collect();
        let running: usize = self.nodes.iter().map(|node| node.known_running.len()).sum();
        let all: BTreeSet<InstanceId> =
            self.nodes.iter().flat_map(|node| node.known_running.iter().copied()).collect();
        let told = |id: &InstanceId| {
            root.status(*id).is_some_and(|status| status.state == InstanceState::Running)
        };
        let knows_no_more = self.tiers.iter().all(|tier| {
            let core = tier.core.as_ref();
            core.is_some_and(|core| {
                core.instances().iter().all(|(id, i)| known.contains(id) && !i.is_removing())
            })
        });
        let slots = self.nodes.iter().filter_map(|node| node.engine.as_ref());
        let slots: usize = slots.map(|engine| engine.slots().count()).sum();
        running == wanted.len()
            && slots == wanted.len()
            && all == wanted
            && root.instances().keys().eq(known.iter())
            && knows_no_more
            && wanted.iter().all(told)
            && self.actors().into_iter().all(|actor| self.is_linked(actor))
    }

    /// Whether an actor and its parent have each other.
    fn is_linked(&self, actor: Actor) -> bool {
        let Some(parent) = self.parent_of(actor) else { return true };
        let home = match actor {
            Actor::Tier(tier) => self.tiers[tier].preferred,
            Actor::Node(node) => Some(self.nodes[node].preferred),
        };
        let connection = match actor {
            Actor::Tier(tier) => self.tiers[tier].connection,
            Actor::Node(node) if self.nodes[node].scrapped => return true,
            Actor::Node(node) => self.nodes[node].connection.filter(|_| self.nodes[node].linked),
        };
        let open = connection.and_then(|id| self.network.get(id)).map(|c| c.open);
        let core = self.tiers[parent].core.as_ref();
        let child = core.and_then(|core| core.children().get(&self.id(actor)));
        home == Some(parent)
            && open == Some([true; 2])
            && child.is_some_and(|child| child.is_connected())
    }

    fn difference(&self) -> String {
        let mut lines = Vec::new();
        let root = self.tiers[ROOT].core.as_ref();
        for id in &self.operator.wanted {
            let runs = self.nodes.iter().filter(|node| node.known_running.contains(id));
            let runs: Vec<&str> = runs.map(|node| node.name.as_str()).collect();
            let status = root.and_then(|root| root.status(*id));
            let is_well = status.as_ref().is_some_and(|s| s.state == InstanceState::Running);
            if runs.len() != 1 || !is_well {
                lines.push(format!("{id} runs on {runs:?}, known is {status:?}"));
            }
        }
        for node in &self.nodes {
            let odd = node.known_running.iter().filter(|id| !self.operator.wanted.contains(id));
            lines.extend(odd.map(|id| format!("{} runs {id}, which nobody wants", node.name)));
        }
        for tier in &self.tiers {
            let known = tier.core.iter().flat_map(|core| core.instances());
            let is_odd = |(id, instance): &(&InstanceId, &marram_orchestrator_core::Instance)| {
                !self.operator.wanted.contains(id) || instance.is_removing()
            };
            lines.extend(known.filter(is_odd).map(|(id, instance)| {
                let placed = instance.placed().map(|child| self.name_of(child));
                let removing = instance.is_removing();
                format!("{} knows {id}, on {placed:?}, removing: {removing}", tier.name)
            }));
        }
        let unlinked = self.actors().into_iter().filter(|actor| !self.is_linked(*actor));
        lines.extend(unlinked.map(|actor| format!("{} has no parent", self.name(actor))));
        lines.join("\n")
    }
}
