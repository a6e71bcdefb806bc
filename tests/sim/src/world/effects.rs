//! Performs what the cores decide, one effect at a time: between any two a program may crash.

use super::{Event, World};
use crate::disk::Store;
use crate::network::{Actor, DOWN};
use crate::program::Happening;
use marram_engine_core as engine;
use marram_orchestrator_core as orchestrator;
use marram_protocol::id::ChildId;
use marram_protocol::v1::Down;
use std::sync::Arc;

/// Wait of a node between attempts on a disk that is full.
const DISK_AGAIN_MS: u64 = 2_000;

/// Of a hundred effects on a backend that is well so many fail at most: many in a row would be a
/// backend that is not.
const EFFECT_FAULTS_MAX: u32 = 12;

/// A task that takes longer hangs.
const TASK_MS: u64 = 1_000;

/// Worlds with more nodes crash as often as one of this size: a share of all would be down.
const CRASHING_NODES_MAX: usize = 100;

impl World {
    /// Whether a program crashes just here.
    fn crashes(&mut self) -> bool {
        let crowd = self.nodes.len() / CRASHING_NODES_MAX;
        let percent = u64::from(self.faults());
        percent > 0 && self.random.rarely(percent / 4) && self.random.index(crowd + 1) == 0
    }

    /// Performs a tier's next effect. False if there is none.
    pub(super) fn tier_effect(&mut self, tier: usize) -> bool {
        let actor = Actor::Tier(tier);
        let core = self.tiers[tier].core.as_mut();
        let Some(effect) = core.and_then(|core| core.poll_effect()) else { return false };
        if self.crashes() {
            self.note(|w| format!("{} crashes before {}", w.name(actor), w.line_tier(&effect)));
            if let orchestrator::Effect::Persist(writes) = effect {
                // What was not acknowledged may be there, as whole transactions.
                let parts = Store::transactions(writes);
                let done = self.random.index(parts.len() + 1);
                parts.into_iter().take(done).for_each(|p| self.tiers[tier].store.commit(p));
            }
            self.crash(actor);
            return true;
        }
        match effect {
            orchestrator::Effect::Persist(_) if self.tiers[tier].store.full => {
                self.note(|w| format!("{}: no space left on the disk", w.name(actor)));
                self.crash(actor);
                return true;
            }
            orchestrator::Effect::Persist(writes) => {
                self.check_write(tier, &writes);
                let parts = Store::transactions(writes);
                parts.into_iter().for_each(|part| self.tiers[tier].store.commit(part));
            }
            orchestrator::Effect::ToChild(child, message) => {
                self.check_down(tier, child, &message);
                self.tell_child(tier, child, &message);
            }
            orchestrator::Effect::ToParent(message) => {
                self.check_up(actor, &message);
                if let Some(id) = self.tiers[tier].connection {
                    self.send_up(id, &message);
                }
            }
            orchestrator::Effect::Changed(instance) => self.check_change(tier, instance),
            orchestrator::Effect::Operated { operation, end } => self.operated(operation, &end),
            orchestrator::Effect::LeaveParent { .. } => self.way_is_refused(actor),
        }
        self.dawdle(actor);
        true
    }

    /// Something slow takes its time after each effect.
    fn dawdle(&mut self, actor: Actor) {
        let now_ms = self.queue.now_ms();
        let slow_ms = self.program(actor).slow_ms;
        if slow_ms > 0 && self.program(actor).is_on {
            let until_ms = now_ms + self.random.below(slow_ms);
            let program = self.program_mut(actor);
            program.busy_until_ms = until_ms;
            let life = program.life;
            self.queue.push(until_ms, Event::Wake(actor, life));
        }
    }

    /// Sends to a child, on the way that leads to it.
    pub(super) fn tell_child(&mut self, tier: usize, child: ChildId, message: &Down) {
        let bytes = Arc::new(message.encode().expect("cores keep messages below the limit"));
        if let Some(Actor::Node(_)) = self.by_id.get(&child) {
            if !self.publish(tier, child, &bytes) {
                self.tell_core(tier, orchestrator::Input::ChildGone(child, None));
            }
            return;
        }
        let Some(&id) = self.tiers[tier].outlets.get(&child) else { return };
        self.send(id, DOWN, &bytes, true);
        if let Down::Rejected { .. } = message {
            // It is told, then left alone.
            self.tiers[tier].outlets.remove(&child);
            self.tell_core(tier, orchestrator::Input::ChildGone(child, None));
            self.close(id, DOWN);
        }
    }

    /// Performs a node's next effect. False if there is none.
    pub(super) fn node_effect(&mut self, node: usize) -> bool {
        let actor = Actor::Node(node);
        let own = &mut self.nodes[node];
        let next = own.stalled.take();
        let next = next.or_else(|| own.engine.as_mut().and_then(|engine| engine.poll_effect()));
        let Some(effect) = next else { return false };
        if self.crashes() {
            self.note(|w| format!("{} crashes before {}", w.name(actor), w.line_node(&effect)));
            if let engine::Effect::Persist { bytes, .. } = effect
                && self.random.chance(50)
            {
                self.nodes[node].ledger.bytes = Some(bytes);
            }
            self.crash(actor);
            return true;
        }
        match effect {
            engine::Effect::Persist { .. } if self.nodes[node].ledger.full => {
                self.note(|w| format!("{}: no space left on the disk", w.name(actor)));
                let until_ms = self.queue.now_ms() + DISK_AGAIN_MS;
                let own = &mut self.nodes[node];
                own.stalled = Some(effect);
                own.program.busy_until_ms = until_ms;
                own.undisturbed_ms = until_ms;
                let life = own.program.life;
                self.queue.push(until_ms, Event::Wake(actor, life));
            }
            engine::Effect::Persist { bytes, .. } => {
                self.nodes[node].ledger.bytes = Some(bytes);
            }
            engine::Effect::Send(message) => {
                self.check_up(actor, &message);
                if let Some(id) = self.nodes[node].connection {
                    self.send_up(id, &message);
                }
            }
            engine::Effect::Drained => {}
            effect => self.ask_backend(node, effect),
        }
        true
    }

    fn ask_backend(&mut self, node: usize, effect: engine::Effect) {
        self.check_act(node, &effect);
        self.note(|w| format!("{} {}", w.name(Actor::Node(node)), w.line_node(&effect)));
        let faults = self.faults().min(EFFECT_FAULTS_MAX);
        let own = &mut self.nodes[node];
        let (task, takes_ms) = own.backend.take(effect, &mut self.random, faults);
        if takes_ms > TASK_MS {
            // It hangs, whatever becomes of the backend meanwhile.
            own.undisturbed_ms = own.undisturbed_ms.max(self.queue.now_ms() + takes_ms);
        }
        let event = Event::Land(node, own.boots, own.program.life, Box::new(task));
        self.queue.push(self.queue.now_ms() + takes_ms, event);
    }

    /// A task reaches the host, whoever had asked for it.
    pub(super) fn land(&mut self, node: usize, boot: u64, life: u64, task: crate::backend::Task) {
        if self.nodes[node].boots != boot {
            return;
        }
        let runs: Vec<_> = self.nodes[node].backend.running().collect();
        let starts = matches!(task.effect, engine::Effect::Start { .. });
        let faults = self.faults() > 0;
        let done = self.nodes[node].backend.land(task);
        self.note_running(node);
        let Some((instance, outcome)) = done else { return };
        if starts && faults && self.random.chance(3) {
            // It ends before anybody has heard that it was started.
            let exit = marram_backend_api::Exit {
                reason: marram_backend_api::ExitReason::Code(1),
                at_unix_ms: 0,
            };
            self.nodes[node].backend.end(instance, exit.clone());
            self.note_running(node);
            self.give(Actor::Node(node), Happening::Exited(instance, exit));
        }
        let own = &self.nodes[node];
        if own.program.life == life && own.program.is_on {
            return self.give(Actor::Node(node), Happening::Done(instance, outcome));
        }
        // It was asked for by an engine that is no more; the present one is told as of any end.
        if runs.contains(&instance) && !own.known_running.contains(&instance) {
            let exit = marram_backend_api::Exit {
                reason: marram_backend_api::ExitReason::Lost,
                at_unix_ms: 0,
            };
            self.give(Actor::Node(node), Happening::Exited(instance, exit));
        }
    }
}
