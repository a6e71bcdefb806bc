//! Oakestra's objects as JSON: names, types and nesting as its clients read them.
//!
//! Pure functions. Types are strict, since one of the clients fails on a whole list if a
//! number has a fraction where it expects none, and others fail if a key is missing.

use crate::catalog::{Application, Service};
use crate::refusal::Refusal;
use crate::view::{ClusterView, InstanceView};
use marram_protocol::id::ServiceId;
use marram_protocol::state::InstanceState;
use serde_json::{Map, Value, json};

/// An application with the ids of its services.
pub(super) fn application(
    application: &Application,
    services: impl Iterator<Item = ServiceId>,
) -> Value {
    let mut fields = object(&application.extra);
    let own = json!({
        "applicationID": application.id,
        "application_name": application.name,
        "application_namespace": application.namespace,
        "application_desc": application.description,
        "microservices": services.map(|id| id.to_string()).collect::<Vec<_>>(),
        "userId": application.owner,
        "_id": {"$oid": application.id},
    });
    extend(&mut fields, own);
    Value::Object(fields)
}

/// A service with its instances.
pub(super) fn service(
    service: &Service,
    next_instance_number: u32,
    instances: &[InstanceView],
) -> Result<Value, Refusal> {
    let mut fields = service.fields()?;
    // Read by every client, and left out of many documents.
    fields.entry("cmd").or_insert_with(|| json!([]));
    let address = |key: &str| fields.get("addresses").and_then(|all| all.get(key)).cloned();
    let (rr_ip, rr_ip_v6) = (address("rr_ip"), address("rr_ip_v6"));
    let (state, detail) = summary(instances);
    let own = json!({
        "job_name": service.job_name(),
        "microserviceID": service.id,
        "applicationID": service.application,
        "app_name": service.application_name,
        "app_ns": service.application_namespace,
        "service_name": service.name,
        "service_ns": service.namespace,
        "image": fields.get("code").cloned().unwrap_or_default(),
        "virtualization": virtualization(&fields),
        "next_instance_progressive_number": next_instance_number,
        "instance_list": instances.iter().map(instance).collect::<Vec<_>>(),
        "RR_ip": rr_ip,
        "RR_ip_v6": rr_ip_v6,
        "_id": {"$oid": service.id},
        "status": state,
        "status_detail": detail,
    });
    extend(&mut fields, own);
    Ok(Value::Object(fields))
}

/// An instance.
pub(super) fn instance(instance: &InstanceView) -> Value {
    let node = instance.node.as_ref();
    let address = node.map_or("", |node| node.address.as_str());
    let usage = instance.usage;
    let cpu = usage.map_or(0.0, |usage| f64::from(usage.cpu_permille) / 10.0);
    let memory = match usage {
        Some(usage) if instance.memory_mib > 0 => {
            100.0 * f64::from(usage.memory_mib) / f64::from(instance.memory_mib)
        }
        _ => 0.0,
    };
    json!({
        "instance_number": instance.id.number,
        "cluster_id": instance.cluster.as_ref().map(|c| c.id.to_string()).unwrap_or_default(),
        "cluster_location": instance.cluster.as_ref().map_or("", |c| c.location.as_str()),
        "status": instance.state.oakestra(),
        "status_detail": instance.detail,
        "publicip": address,
        "cpu_percent": format!("{cpu:.1}"),
        "memory_percent": format!("{memory:.1}"),
        "disk": "0",
        // Output does not travel up unasked; the call for a single service asks for it.
        "logs": "",
        "worker_id": node.map(|node| node.id.to_string()).unwrap_or_default(),
        "host_ip": address,
        "host_port": instance.host_port,
        "last_modified_timestamp": seconds(instance.since_unix_ms),
        "cpu_history": [],
        "memory_history": [],
    })
}

/// A cluster, with the names of newer and of older releases side by side.
pub(super) fn cluster(cluster: &ClusterView) -> Value {
    let summary = &cluster.summary;
    let capacity = summary.capacity;
    let cpu = cluster.cpu_permille.map_or(0.0, |permille| f64::from(permille) / 10.0);
    let memory = match cluster.memory_used_mib {
        Some(used) if capacity.memory_mib > 0 => {
            100.0 * f64::from(used) / f64::from(capacity.memory_mib)
        }
        _ => 0.0,
    };
    let cores = capacity.cpu_millicores / 1000;
    let mut virtualizations = summary.virtualizations.clone();
    if virtualizations.iter().any(|name| name == "container") {
        virtualizations.push("docker".to_owned());
    }
    json!({
        "_id": cluster.id,
        "active": cluster.connected,
        "active_nodes": summary.nodes,
        "candidate_location": summary.location,
        "candidate_name": cluster.name,
        "cpu_history": [],
        "cpu_percent": cpu,
        "csi_drivers": [],
        "gpu_drivers": [],
        "gpu_percent": 0.0,
        "gpu_temp": 0.0,
        "ip": cluster.address,
        "last_modified_timestamp": seconds(cluster.seen_unix_ms),
        "memory": capacity.memory_mib,
        "memory_history": [],
        "memory_percent": memory,
        "port": "0",
        "supported_addons": [],
        "vcpus": cores,
        "vgpus": capacity.gpus,
        "virtualization": virtualizations,
        "vram": 0,
        "vram_percent": 0.0,
        "cluster_name": cluster.name,
        "cluster_location": summary.location,
        "aggregated_cpu_percent": cpu,
        "memory_in_mb": capacity.memory_mib,
        "total_cpu_cores": cores,
        "total_gpu_cores": capacity.gpus,
    })
}

/// One state for a service: running if any instance is, else that of the newest.
fn summary(instances: &[InstanceView]) -> (&'static str, String) {
    let running = instances.iter().find(|one| one.state == InstanceState::Running);
    match running.or(instances.last()) {
        Some(one) => (one.state.oakestra(), one.detail.clone()),
        None => (InstanceState::Requested.oakestra(), "no instance was asked for".to_owned()),
    }
}

/// Oakestra stores `container` as `docker`.
fn virtualization(fields: &Map<String, Value>) -> Value {
    match fields.get("virtualization") {
        Some(Value::String(text)) if text == "container" => json!("docker"),
        other => other.cloned().unwrap_or_default(),
    }
}

/// Milliseconds as Python's clients write times.
fn seconds(unix_ms: u64) -> f64 {
    let (whole, rest) = (unix_ms / 1000, unix_ms % 1000);
    // Exact until far beyond any date.
    let whole = u32::try_from(whole).map_or(f64::from(u32::MAX), f64::from);
    whole + f64::from(u16::try_from(rest).unwrap_or_default()) / 1000.0
}

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

fn extend(fields: &mut Map<String, Value>, own: Value) {
    if let Value::Object(own) = own {
        fields.extend(own);
    }
}

#[cfg(test)]
mod tests;
