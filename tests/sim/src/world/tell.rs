//! What happens, in lines for people.

use super::World;
use super::faults::Trouble;
use crate::network::Actor;
use marram_engine_core as engine;
use marram_orchestrator_core as orchestrator;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{Down, Generation, Up};

impl World {
    pub(super) fn name_of(&self, id: ChildId) -> &str {
        self.by_id.get(&id).map_or("somebody", |actor| self.name(*actor))
    }

    /// A message as its receiver hears it.
    pub(super) fn line_down(&self, to: Actor, message: &Down) -> String {
        let from = self.parent_of(to).map_or("nobody", |tier| self.tiers[tier].name.as_str());
        format!("{from} to {}: {}", self.name(to), down(message))
    }

    /// A message as its receiver hears it.
    pub(super) fn line_up(&self, to: usize, from: ChildId, message: &Up) -> String {
        format!("{} to {}: {}", self.name_of(from), self.tiers[to].name, up(message))
    }

    pub(super) fn line_tier(&self, effect: &orchestrator::Effect) -> String {
        match effect {
            orchestrator::Effect::Persist(writes) => format!("writing {} records", writes.len()),
            orchestrator::Effect::ToChild(child, message) => {
                format!("telling {}: {}", self.name_of(*child), down(message))
            }
            orchestrator::Effect::ToParent(message) => {
                format!("telling its parent: {}", up(message))
            }
            other => format!("{other:?}"),
        }
    }

    pub(super) fn line_node(&self, effect: &engine::Effect) -> String {
        match effect {
            engine::Effect::Persist { generation, .. } => {
                format!("writes its ledger ({generation})")
            }
            engine::Effect::Prepare { workload, .. } => format!("prepares {}", workload.instance),
            engine::Effect::Start { instance, .. } => format!("starts {instance}"),
            engine::Effect::Recover { instance, .. } => format!("recovers {instance}"),
            engine::Effect::Stop { instance, .. } => format!("stops {instance}"),
            engine::Effect::Destroy { instance, .. } => format!("destroys {instance}"),
            engine::Effect::Send(message) => format!("telling its cluster: {}", up(message)),
            engine::Effect::Drained => "is drained".into(),
        }
    }

    pub(super) fn line_trouble(&self, trouble: Trouble) -> String {
        match trouble {
            Trouble::Way(child, parent) => {
                format!("way from {} to {} is cut", self.name(child), self.tiers[parent].name)
            }
            Trouble::Disk(actor) => format!("disk of {} is full", self.name(actor)),
            Trouble::Mood(node) => {
                let own = &self.nodes[node];
                format!("backend of {} is {:?}", own.name, own.backend.mood)
            }
            Trouble::Slow(tier) => {
                let own = &self.tiers[tier];
                format!("{} is slow by {} ms", own.name, own.program.slow_ms)
            }
            Trouble::Bus(tier) => format!("{} is without its broker", self.tiers[tier].name),
        }
    }
}

fn generation(generation: Generation) -> String {
    format!("{}.{}", generation.epoch % 1000, generation.number)
}

fn list<'a>(instances: impl IntoIterator<Item = &'a InstanceId>) -> String {
    instances.into_iter().map(|id| id.number.to_string()).collect::<Vec<_>>().join(" ")
}

fn down(message: &Down) -> String {
    match message {
        Down::Change { base, generation: g, upserts, removes } => {
            let upserts = list(upserts.iter().map(|w| &w.instance));
            let (base, g) = (generation(*base), generation(*g));
            format!("change {base} to {g}: +[{upserts}] -[{}]", list(removes))
        }
        Down::Manifest { generation: g, entries } => {
            let all = list(entries.iter().map(|e| &e.instance));
            format!("manifest {}: [{all}]", generation(*g))
        }
        Down::Specs { generation: g, workloads } => {
            let all = list(workloads.iter().map(|w| &w.instance));
            format!("specs {}: [{all}]", generation(*g))
        }
        other => format!("{other:?}"),
    }
}

fn up(message: &Up) -> String {
    match message {
        Up::Hello(hello) => {
            format!("hello, holding {}, tree {}", generation(hello.generation), hello.tree)
        }
        Up::Observed { generation: g, scope, statuses } => {
            let mut text = format!("{scope:?} under {}:", generation(*g));
            for status in statuses {
                text += &format!(" {}={}", status.instance.number, status.state.name());
                if !status.detail.is_empty() {
                    text += &format!(" ({})", status.detail);
                }
            }
            text
        }
        Up::Summary(_) => "summary".into(),
        Up::Telemetry(_) => "telemetry".into(),
        Up::Resync(g) => format!("resync from {}", generation(*g)),
        other => format!("{other:?}"),
    }
}
