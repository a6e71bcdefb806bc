//! The clean form's objects: snake case, ids as texts, times in Unix milliseconds.

use crate::catalog::{Application, Service};
use crate::refusal::Refusal;
use crate::view::{ClusterView, InstanceView};
use marram_protocol::id::{InstanceId, ServiceId};
use marram_protocol::v1::{ExitCause, Resources};
use serde_json::{Value, json};

/// An application.
pub(super) fn application(
    application: &Application,
    services: impl Iterator<Item = ServiceId>,
) -> Value {
    json!({
        "application_id": application.id,
        "name": application.name,
        "namespace": application.namespace,
        "description": application.description,
        "owner": application.owner,
        "created_unix_ms": application.created_unix_ms,
        "services": services.map(|id| id.to_string()).collect::<Vec<_>>(),
    })
}

/// A service.
pub(super) fn service(
    service: &Service,
    next_instance_number: u32,
    instances: impl Iterator<Item = InstanceId>,
) -> Result<Value, Refusal> {
    let document = service.fields()?;
    Ok(json!({
        "service_id": service.id,
        "application_id": service.application,
        "application_name": service.application_name,
        "application_namespace": service.application_namespace,
        "name": service.name,
        "namespace": service.namespace,
        "owner": service.owner,
        "revision": service.revision,
        "created_unix_ms": service.created_unix_ms,
        "virtualization": document.get("virtualization"),
        "image": document.get("code"),
        "next_instance_number": next_instance_number,
        "instances": instances.map(|id| id.to_string()).collect::<Vec<_>>(),
        "document": document,
    }))
}

/// An instance.
pub(super) fn instance(instance: &InstanceView) -> Value {
    let cluster = instance.cluster.as_ref().map(|c| json!({"id": c.id, "name": c.name}));
    let node = instance.node.as_ref();
    let node = node.map(|n| json!({"id": n.id, "name": n.name, "address": n.address}));
    let tried = instance.tried.iter().map(|(child, why)| json!({"child": child, "reason": why}));
    let usage = instance.usage;
    let usage = usage.map(|u| json!({"cpu_permille": u.cpu_permille, "memory_mib": u.memory_mib}));
    json!({
        "instance_id": instance.id.to_string(),
        "service_id": instance.id.service,
        "application_id": instance.application,
        "name": instance.name,
        "number": instance.id.number,
        "state": instance.state.name(),
        "oakestra_state": instance.state.oakestra(),
        "detail": instance.detail,
        "restarts": instance.restarts,
        "exit": instance.exit.map(ExitCause::to_json),
        "since_unix_ms": instance.since_unix_ms,
        "cluster": cluster,
        "node": node,
        "tried": tried.collect::<Vec<_>>(),
        "revision": instance.revision,
        "removing": instance.removing,
        "usage": usage,
    })
}

/// A cluster.
pub(super) fn cluster(cluster: &ClusterView) -> Value {
    let summary = &cluster.summary;
    json!({
        "cluster_id": cluster.id,
        "name": cluster.name,
        "location": summary.location,
        "connected": cluster.connected,
        "version": cluster.version,
        "address": cluster.address,
        "nodes": summary.nodes,
        "instances": cluster.instances,
        "capacity": resources(summary.capacity),
        "reserved": resources(cluster.reserved),
        "largest_free": resources(summary.largest_free),
        "architectures": summary.architectures,
        "virtualizations": summary.virtualizations,
        "seen_unix_ms": cluster.seen_unix_ms,
        "cpu_permille": cluster.cpu_permille,
        "memory_used_mib": cluster.memory_used_mib,
    })
}

fn resources(amount: Resources) -> Value {
    json!({
        "memory_mib": amount.memory_mib,
        "cpu_millicores": amount.cpu_millicores,
        "gpus": amount.gpus,
        "storage_mib": amount.storage_mib,
    })
}
