//! Effects in words.

use marram_orchestrator_core::Effect;
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Claim, Down, Generation, InstanceStatus, Missed, Scope, Up};

/// One line for an effect.
pub(crate) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Persist(records) => {
            let record = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| match value {
                Some(_) => name(key),
                None => format!("{} deleted", name(key)),
            };
            let records: Vec<String> = records.iter().map(record).collect();
            format!("persist {}", records.join(", "))
        }
        Effect::ToChild(child, message) => format!("to {}: {}", letter(*child), down(message)),
        Effect::ToParent(message) => format!("to parent: {}", up(message)),
        Effect::LeaveParent { reason } => format!("leave parent: {reason}"),
        Effect::Changed(id) => format!("changed {}", id.number),
        Effect::Operated { end, .. } => format!("operated: {end:?}"),
    }
}

fn name(key: &[u8]) -> String {
    match key {
        [b'e', ..] => "epoch".into(),
        [b'p', ..] => "parent".into(),
        [b't', ..] => "tier".into(),
        [b'k', ..] => "kin".into(),
        [b'c', letter, ..] => format!("child {}", char::from(*letter)),
        [.., number] => format!("instance {number}"),
        [] => "nothing".into(),
    }
}

fn letter(child: ChildId) -> char {
    char::from(child.0[0])
}

fn down(message: &Down) -> String {
    match message {
        Down::Welcome { epoch, .. } => format!("welcome to epoch {epoch}"),
        Down::Rejected { reason } => format!("rejected: {reason}"),
        Down::Change { base, generation: to, upserts, removes } => {
            let upserts =
                upserts.iter().map(|w| format!(" +{} r{}", w.instance.number, w.revision));
            let removes = removes.iter().map(|id| format!(" -{}", id.number));
            let changes: String = upserts.chain(removes).collect();
            format!("change {} to {}:{changes}", generation(*base), generation(*to))
        }
        Down::Manifest { generation: of, entries } => {
            let numbers: Vec<u32> = entries.iter().map(|entry| entry.instance.number).collect();
            format!("manifest {}: {numbers:?}", generation(*of))
        }
        Down::Specs { generation: of, workloads } => {
            let numbers: Vec<u32> = workloads.iter().map(|w| w.instance.number).collect();
            format!("specs {}: {numbers:?}", generation(*of))
        }
        Down::Disown(instances) => {
            let numbers: Vec<u32> = instances.iter().map(|id| id.number).collect();
            format!("disowns {numbers:?}")
        }
        Down::Kin(kin) => {
            let path: Vec<&str> = kin.path.iter().map(|tier| tier.name.as_str()).collect();
            let rooted = if kin.rooted { "" } else { ", not rooted" };
            let alternates: String =
                kin.alternates.iter().map(|a| format!(", or {}", a.name)).collect();
            format!("kin of tree {}{rooted}: {}{alternates}", kin.tree, path.join("/"))
        }
        other => format!("{other:?}"),
    }
}

fn up(message: &Up) -> String {
    match message {
        Up::Hello(hello) => {
            let (nodes, memory) = (hello.summary.nodes, hello.summary.capacity.memory_mib);
            let held = generation(hello.generation);
            format!("hello, {nodes} nodes, {memory} MiB, holding {held}")
        }
        Up::Observed { generation: held, scope, statuses } => {
            let scope = match scope {
                Scope::Change => "observed",
                Scope::Snapshot { .. } => "snapshot",
            };
            let statuses: Vec<String> = statuses.iter().map(status).collect();
            format!("{scope} under {}: [{}]", generation(*held), statuses.join("; "))
        }
        Up::Resync(held) => format!("resync, holding {}", generation(*held)),
        Up::Fetch { instances, .. } => {
            let numbers: Vec<u32> = instances.iter().map(|id| id.number).collect();
            format!("fetch {numbers:?}")
        }
        Up::Summary(summary) => {
            let (all, reserved) = (summary.capacity.memory_mib, summary.reserved.memory_mib);
            let slot = summary.largest_free.memory_mib;
            format!("summary, {} nodes, {reserved} of {all} MiB, {slot} in one", summary.nodes)
        }
        Up::Telemetry(telemetry) => {
            let usages = telemetry.workloads.iter();
            let usages = usages.map(|u| format!(" {}={} MiB", u.instance.number, u.memory_mib));
            format!("telemetry: cpu {},{}", telemetry.cpu_permille, usages.collect::<String>())
        }
        Up::Missed { entries, dropped } => {
            let entry = |m: &Missed| format!("{} {}", m.instance.number, m.state.name());
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("missed: {}, and {dropped} more", entries.join(", "))
        }
        Up::Claim(claims) => {
            let claim = |c: &Claim| {
                let node = c.node.map(|node| format!(" on {}", letter(node))).unwrap_or_default();
                format!("{} {}{node}", c.instance.number, c.state.name())
            };
            let claims: Vec<String> = claims.iter().map(claim).collect();
            format!("claims [{}]", claims.join("; "))
        }
        Up::Clusters { scope, cards, gone } => {
            let scope = match scope {
                Scope::Change => "clusters",
                Scope::Snapshot { .. } => "all clusters",
            };
            let cards: Vec<String> = cards
                .iter()
                .map(|card| {
                    let away = if card.connected { "" } else { " away" };
                    format!(
                        "{} below {}{away}, {} nodes",
                        card.name,
                        letter(card.parent),
                        card.nodes
                    )
                })
                .collect();
            let gone: String = gone.iter().map(|id| format!(" -{}", letter(*id))).collect();
            format!("{scope}: [{}]{gone}", cards.join("; "))
        }
        other => format!("{other:?}"),
    }
}

fn generation(generation: Generation) -> String {
    match generation.epoch {
        0 => "nothing".into(),
        epoch => format!("{epoch}/{}", generation.number),
    }
}

/// A status in words.
pub(crate) fn status(status: &InstanceStatus) -> String {
    let number = status.instance.number;
    let mut text = format!("{number} r{} {}", status.revision, status.state.name());
    if let Some(node) = &status.node {
        text.push_str(&format!(" on {}", node.name));
    }
    if !status.detail.is_empty() {
        text.push_str(&format!(" {:?}", status.detail));
    }
    text
}
