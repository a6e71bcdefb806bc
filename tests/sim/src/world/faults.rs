//! What is done to the world: by operators, and by bad luck.

use super::{ROOT, Run, World};
use marram_backend_api::{Exit, ExitReason};
use marram_engine_core as engine;
use marram_orchestrator_core as orchestrator;
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::v1::{Resources, ServiceSpec, Workload};

impl World {
    /// Starts all programs that are down and heals all links.
    pub(super) fn boot_all(&mut self) {
        let (now, engine_now) = self.now();
        for orchestrator in self.tiers.values_mut().filter(|o| o.tier.is_none()) {
            orchestrator.boot(now);
        }
        for machine in self.machines.values_mut().filter(|m| m.engine.is_none()) {
            machine.boot(engine_now);
        }
        self.drain_all();
        for child in self.links.keys().copied().collect::<Vec<_>>() {
            self.connect(child);
        }
    }

    fn connect(&mut self, child: ChildId) {
        let link = &self.links[&child];
        let (up, parent) = (link.up, link.parent);
        let is_on = self.tier(child).is_some()
            || self.machines.get(&child).is_some_and(|machine| machine.engine.is_some());
        if up || !is_on || self.tier(parent).is_none() {
            return;
        }
        let link = self.links.get_mut(&child).expect("listed");
        link.up = true;
        link.life += 1;
        self.say_hello(child);
    }

    /// Tells a child that its link is up.
    fn say_hello(&mut self, child: ChildId) {
        let (now, engine_now) = self.now();
        match self.machines.get_mut(&child).and_then(|machine| machine.engine.as_mut()) {
            Some(engine) => engine.handle(engine_now, engine::Input::LinkUp),
            None => {
                if let Some(tier) = self.tier(child) {
                    tier.handle(now, orchestrator::Input::ParentUp);
                }
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
        let parent = link.parent;
        if let Some(engine) = self.machines.get_mut(&child).and_then(|m| m.engine.as_mut()) {
            engine.handle(engine_now, engine::Input::LinkDown);
        } else if let Some(tier) = self.tier(child) {
            tier.handle(now, orchestrator::Input::ParentGone);
        }
        if let Some(tier) = self.tier(parent) {
            tier.handle(now, orchestrator::Input::ChildGone(child, None));
        }
        self.drain_all();
    }

    /// What operators do.
    pub(super) fn operate(&mut self) {
        let (now, _) = self.now();
        if self.tier(ROOT).is_none() {
            return;
        }
        let input = if self.wanted.is_empty() || self.random.chance(65) {
            let instance = InstanceId { service: ServiceId([9; 12]), number: self.next_number };
            self.next_number += 1;
            let memory_mib = 50 + u32::try_from(self.random.below(300)).unwrap_or(0);
            // So many fit whatever the order: at worst two fill a machine.
            if self.wanted.len() >= self.machines.len() {
                return;
            }
            self.wanted.insert(instance);
            self.note(|| format!("deploy {instance}"));
            orchestrator::Input::Deploy(sample(instance, memory_mib))
        } else {
            let index = self.random.index(self.wanted.len());
            let Some(instance) = self.wanted.iter().nth(index).copied() else { return };
            self.wanted.remove(&instance);
            self.removed.insert(instance);
            self.note(|| format!("remove {instance}"));
            orchestrator::Input::Remove(instance)
        };
        if let Some(tier) = self.tier(ROOT) {
            tier.handle(now, input);
        }
        self.drain_all();
    }

    /// Something breaks, or what is broken is mended.
    pub(super) fn fault(&mut self) {
        let links: Vec<ChildId> = self.links.keys().copied().collect();
        let child = links[self.random.index(links.len())];
        match self.random.below(9) {
            0 | 1 => {
                self.note(|| format!("cut {}", child.0[0]));
                self.cut(child);
            }
            2 => {
                let tiers: Vec<ChildId> = self.tiers.keys().copied().collect();
                let id = tiers[self.random.index(tiers.len())];
                self.crash_tier(id);
            }
            3 => self.crash_tier(ROOT),
            4 => self.crash_machine(false),
            5 => self.crash_machine(true),
            6 => self.exit_something(),
            // A message was lost on a live link, so the child tells everything again.
            7 if self.links[&child].up => self.say_hello(child),
            _ => self.boot_all(),
        }
    }

    fn crash_tier(&mut self, id: ChildId) {
        self.note(|| format!("crash of tier {}", id.0[0]));
        self.tiers.get_mut(&id).expect("listed").tier = None;
        let ends = self.links.iter().filter(|(child, link)| **child == id || link.parent == id);
        for child in ends.map(|(child, _)| *child).collect::<Vec<_>>() {
            self.cut(child);
        }
    }

    fn crash_machine(&mut self, reboot: bool) {
        let id = self.any_machine();
        self.note(|| format!("{} of node {}", if reboot { "reboot" } else { "crash" }, id.0[0]));
        let machine = self.machines.get_mut(&id).expect("listed");
        machine.engine = None;
        machine.incarnation += 1;
        if reboot {
            machine.runs.clear();
        }
        self.cut(id);
    }

    fn exit_something(&mut self) {
        let (_, engine_now) = self.now();
        let id = self.any_machine();
        let machine = self.machines.get_mut(&id).expect("listed");
        let Some(instance) = machine.running().next() else { return };
        let exit = Exit { reason: ExitReason::Code(1), at_unix_ms: 0 };
        machine.exit(instance, Run::Exited(exit.clone()));
        if let Some(engine) = &mut machine.engine {
            engine.handle(engine_now, engine::Input::Exited(instance, exit));
        }
        self.note(|| format!("exit of {instance} on node {}", id.0[0]));
        self.drain_all();
    }

    fn any_machine(&mut self) -> ChildId {
        let ids: Vec<ChildId> = self.machines.keys().copied().collect();
        ids[self.random.index(ids.len())]
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
