//! From an SLA's microservice to what tiers hand on.

use super::model::{MarramFields, Microservice};
use crate::port;
use crate::v1::{Mount, MovePolicy, Patience, Placement, Resources, RestartPolicy, ServiceSpec};
use serde_json::{Map, Value};

/// Seconds between asking a workload to end and forcing it, if the SLA says nothing.
pub const STOP_GRACE_S: u32 = 10;

/// Fields that decide nothing yet and travel as they came.
const PASSED_ON: &[&str] = &[
    "vtpus",
    "bandwidth_in",
    "bandwidth_out",
    "state",
    "args",
    "added_files",
    "sla_violation_strategy",
    "target_node",
    "addresses",
    "volumes",
    "constraints",
    "connectivity",
    "vm_images",
    "platform",
];

/// The one device that Oakestra gives to a `privileged` service.
const PRIVILEGED_DEVICE: &str = "/dev/fuse";

/// The part of a checked microservice that decides something.
pub fn service_spec(service: &Microservice) -> ServiceSpec {
    let own = service.marram.clone().unwrap_or_default();
    let vcpus_millicores = service.vcpus.saturating_mul(1000);
    ServiceSpec {
        virtualization: service.virtualization.clone(),
        runtime: own.runtime,
        image: service.code.clone(),
        args: service.cmd.clone(),
        environment: service.environment.clone(),
        resources: Resources {
            memory_mib: service.memory,
            cpu_millicores: own.cpu_millicores.unwrap_or(vcpus_millicores),
            gpus: service.vgpus,
            storage_mib: service.storage,
            gpu_memory_mib: 0,
            bandwidth_in_kbps: service.bandwidth_in,
            bandwidth_out_kbps: service.bandwidth_out,
        },
        pids_max: own.pids_max.unwrap_or(0),
        // The check has parsed it once already; an empty list is what is left to say.
        ports: port::parse(&service.port).unwrap_or_default(),
        one_shot: service.one_shot,
        restart: match own.restart.as_deref() {
            Some("never") => RestartPolicy::Never,
            Some("on_failure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        },
        stop_grace_s: own.stop_grace_s.unwrap_or(STOP_GRACE_S),
        architectures: service.arch.clone(),
        placement: placement(service),
        patience: Patience::default(),
        movement: MovePolicy::default(),
        user: own.user,
        working_dir: own.working_dir,
        mounts: own
            .mounts
            .into_iter()
            .map(|m| Mount { source: m.source, target: m.target, read_only: m.read_only })
            .collect(),
        devices: devices(service.privileged, own.devices),
        read_only_root: own.read_only_root,
        private_namespaces: own.private_namespaces,
        allow_unlimited: own.allow_unlimited,
        log_kib_max: own.log_kib_max.unwrap_or(0),
        extra: extra(service),
    }
}

fn devices(privileged: bool, mut devices: Vec<String>) -> Vec<String> {
    if privileged && !devices.iter().any(|device| device == PRIVILEGED_DEVICE) {
        devices.push(PRIVILEGED_DEVICE.to_owned());
    }
    devices
}

/// Several constraints hold at once: lists of the same kind are intersected.
fn placement(service: &Microservice) -> Placement {
    let names = |text: &str| -> Vec<String> {
        text.split(';').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect()
    };
    let mut placement = Placement::default();
    for constraint in &service.constraints {
        match constraint.kind.as_str() {
            "direct" => {
                narrow(&mut placement.clusters, names(&constraint.cluster));
                narrow(&mut placement.nodes, names(&constraint.node));
            }
            "clusters" => narrow(&mut placement.clusters, constraint.allowed.clone()),
            kind => placement.unsupported.push(kind.to_owned()),
        }
    }
    // To run without a volume that was asked for would lose what is written to it.
    if !service.volumes.is_empty() {
        placement.unsupported.push("volumes".to_owned());
    }
    placement
}

/// A name that no child can have: what is left of two lists without a common name.
const NOBODY: &str = "";

fn narrow(list: &mut Vec<String>, by: Vec<String>) {
    if by.is_empty() {
        return;
    }
    if list.is_empty() {
        *list = by;
        return;
    }
    list.retain(|name| by.contains(name));
    if list.is_empty() {
        list.push(NOBODY.to_owned());
    }
}

fn extra(service: &Microservice) -> String {
    let mut extra: Map<String, Value> = service.extra.clone();
    if let Ok(Value::Object(all)) = serde_json::to_value(service) {
        let carried = all
            .into_iter()
            .filter(|(key, value)| PASSED_ON.contains(&key.as_str()) && !is_default(value));
        extra.extend(carried);
    }
    let own = service.marram.as_ref().map(own_extra).unwrap_or_default();
    if !own.is_empty() {
        extra.insert("marram".to_owned(), Value::Object(own));
    }
    if extra.is_empty() { String::new() } else { Value::Object(extra).to_string() }
}

/// What is not known inside the object `marram`; mounts whole if one of them holds such a thing.
fn own_extra(own: &MarramFields) -> Map<String, Value> {
    let mut extra = own.extra.clone();
    if own.mounts.iter().any(|mount| !mount.extra.is_empty())
        && let Ok(mounts) = serde_json::to_value(&own.mounts)
    {
        extra.insert("mounts".to_owned(), mounts);
    }
    extra
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
