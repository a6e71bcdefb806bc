//! Children and explanations as one JSON object a line.
//!
//! Why lines: who asks may be tiers above, and each tier on the way adds its own without
//! reading those of others.

use marram_orchestrator_core::{Child, Tier};
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{ChildKind, Resources};
use serde_json::{Value, json};

/// All children, in the order of their names.
pub fn children(tier: &Tier) -> Vec<u8> {
    let mut children: Vec<&Child> = tier.children().values().collect();
    children.sort_by_key(|child| child.name());
    let lines = children.into_iter().map(|one| format!("{}\n", child(one)));
    lines.collect::<String>().into_bytes()
}

/// One child.
pub fn child(child: &Child) -> Value {
    let facts: serde_json::Map<String, Value> =
        child.facts().map(|(key, value)| (key.to_owned(), value.into())).collect();
    let mut object = json!({
        "name": child.name(),
        "kind": kind(child),
        "connected": child.is_connected(),
        "cordoned": child.is_cordoned(),
        "draining": child.is_draining(),
        "seen_unix_ms": child.seen_unix_ms(),
        "version": child.version(),
        "address": child.fact("address").unwrap_or_default(),
        "facts": facts,
        "instances": child.instances(),
        "reserved": resources(child.reserved()),
    });
    object[format!("{}_id", kind(child))] = child.id().to_string().into();
    if let Some(summary) = child.summary() {
        object["nodes"] = summary.nodes.into();
        object["capacity"] = resources(summary.capacity);
        object["largest_free"] = resources(summary.largest_free);
        object["architectures"] = json!(summary.architectures);
        object["virtualizations"] = json!(summary.virtualizations);
        object["location"] = json!(summary.location);
        object["labels"] = json!(summary.labels);
        object["addons"] = json!(summary.addons);
        object["gpu_models"] = json!(summary.gpu_models);
        object["coordinate"] = json!(summary.coordinate);
        object["reach_us"] = summary.reach_us.into();
    }
    if let Some(telemetry) = child.telemetry() {
        object["cpu_permille"] = telemetry.cpu_permille.into();
        object["memory_used_mib"] = telemetry.memory_used_mib.into();
        object["disk_free_mib"] = telemetry.disk_free_mib.into();
        object["temperature_decidegrees"] = json!(telemetry.temperature_decidegrees);
    }
    object
}

/// As in keys and messages.
pub fn kind(child: &Child) -> &'static str {
    match child.kind() {
        ChildKind::Node => "node",
        ChildKind::Cluster => "cluster",
    }
}

/// Amounts, by name.
pub fn resources(amount: Resources) -> Value {
    json!({
        "memory_mib": amount.memory_mib,
        "cpu_millicores": amount.cpu_millicores,
        "gpus": amount.gpus,
        "gpu_memory_mib": amount.gpu_memory_mib,
        "storage_mib": amount.storage_mib,
        "bandwidth_in_kbps": amount.bandwidth_in_kbps,
        "bandwidth_out_kbps": amount.bandwidth_out_kbps,
    })
}

/// What a tier decided about an instance; `None` if it is not in its books. `role` is what the
/// tier is: `root` or `cluster`.
pub fn explanation(tier: &Tier, role: &str, id: InstanceId) -> Option<Value> {
    let (instance, status) = (tier.instances().get(&id)?, tier.status(id)?);
    let name_of = |id| match tier.children().get(id) {
        Some(child) => child.name().to_owned(),
        None => id.to_string(),
    };
    let refusals = instance.tried().iter();
    let refusals = refusals.map(|(id, why)| json!({"child": name_of(id), "reason": why}));
    let decisions = tier.explain(id).into_iter().flatten();
    let decisions = decisions.map(|decision| {
        json!({
            "unix_ms": decision.unix_ms,
            "times": decision.times,
            "text": decision.verdict.to_string(),
        })
    });
    Some(json!({
        "tier": role,
        "id": tier.identity().id,
        "name": tier.identity().name,
        "state": status.state.name(),
        "detail": status.detail,
        "since_unix_ms": status.since_unix_ms,
        "revision": instance.workload().revision,
        "removing": instance.is_removing(),
        "placed": placed(tier, id),
        "refusals": refusals.collect::<Vec<_>>(),
        "decisions": decisions.collect::<Vec<_>>(),
    }))
}

fn placed(tier: &Tier, id: InstanceId) -> Option<Value> {
    let child = tier.instances().get(&id)?.placed()?;
    let Some(child) = tier.children().get(&child) else { return Some(json!({"id": child})) };
    Some(json!({
        "id": child.id(),
        "name": child.name(),
        "kind": kind(child),
        "connected": child.is_connected(),
    }))
}

/// The end of an explanation where the child that would go on with it is not connected; `None`
/// if there is no such child.
pub fn unreachable(tier: &Tier, id: InstanceId) -> Option<Value> {
    let child = tier.children().get(&tier.instances().get(&id)?.placed()?)?;
    if child.is_connected() {
        return None;
    }
    Some(json!({
        "tier": kind(child),
        "id": child.id(),
        "name": child.name(),
        "unreachable": "is not connected",
        "seen_unix_ms": child.seen_unix_ms(),
    }))
}
