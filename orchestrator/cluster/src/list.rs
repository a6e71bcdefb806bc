//! The children as operators see them: one JSON object a line.

use marram_orchestrator_core::{Child, Tier};
use marram_protocol::v1::{ChildKind, Resources};
use serde_json::{Value, json};

/// All children, in the order of their names.
pub(crate) fn children(tier: &Tier) -> Vec<u8> {
    let mut children: Vec<&Child> = tier.children().values().collect();
    children.sort_by_key(|child| child.name());
    let lines = children.into_iter().map(|child| format!("{}\n", child_json(child)));
    lines.collect::<String>().into_bytes()
}

fn child_json(child: &Child) -> Value {
    let (kind, id_key) = match child.kind() {
        ChildKind::Node => ("node", "node_id"),
        ChildKind::Cluster => ("cluster", "cluster_id"),
    };
    let facts: serde_json::Map<String, Value> =
        child.facts().map(|(key, value)| (key.to_owned(), value.into())).collect();
    let mut object = json!({
        "name": child.name(),
        "kind": kind,
        "connected": child.is_connected(),
        "seen_unix_ms": child.seen_unix_ms(),
        "version": child.version(),
        "address": child.fact("address").unwrap_or_default(),
        "facts": facts,
        "instances": child.instances(),
        "reserved": resources(child.reserved()),
    });
    object[id_key] = child.id().to_string().into();
    if let Some(summary) = child.summary() {
        object["nodes"] = summary.nodes.into();
        object["capacity"] = resources(summary.capacity);
        object["largest_free"] = resources(summary.largest_free);
        object["architectures"] = json!(summary.architectures);
        object["virtualizations"] = json!(summary.virtualizations);
        object["location"] = json!(summary.location);
    }
    if let Some(telemetry) = child.telemetry() {
        object["cpu_permille"] = telemetry.cpu_permille.into();
        object["memory_used_mib"] = telemetry.memory_used_mib.into();
        object["disk_free_mib"] = telemetry.disk_free_mib.into();
        object["temperature_decidegrees"] = json!(telemetry.temperature_decidegrees);
    }
    object
}

fn resources(amount: Resources) -> Value {
    json!({
        "memory_mib": amount.memory_mib,
        "cpu_millicores": amount.cpu_millicores,
        "gpus": amount.gpus,
        "storage_mib": amount.storage_mib,
    })
}
