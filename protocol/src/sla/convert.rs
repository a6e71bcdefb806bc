//! From an SLA's microservice to what tiers hand on.

use super::constraints;
use super::model::{MarramFields, Microservice, PatienceFields, PlacementFields};
use super::rules::WAIT;
use crate::port;
use crate::v1::{Mount, MovePolicy, Patience, Placement, Resources, RestartPolicy, ServiceSpec};
use serde_json::{Map, Value};

/// Seconds between asking a workload to end and forcing it, if the SLA says nothing.
pub const STOP_GRACE_S: u32 = 10;

/// Fields that decide nothing yet, or not all of what they say, and travel as they came.
const PASSED_ON: &[&str] = &[
    "vtpus",
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
    ServiceSpec {
        virtualization: service.virtualization.clone(),
        runtime: own.runtime,
        image: service.code.clone(),
        args: service.cmd.clone(),
        environment: service.environment.clone(),
        resources: Resources {
            memory_mib: service.memory,
            cpu_millicores: own.cpu_millicores.unwrap_or(service.vcpus.millicores),
            gpus: service.vgpus,
            storage_mib: service.storage,
            gpu_memory_mib: own.gpu_memory_mib.unwrap_or(0),
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
        placement: placement(service, own.placement),
        patience: patience(own.on_loss.as_deref(), own.patience),
        movement: movement(own.r#move.as_deref()),
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

/// Oakestra's constraints, and what stands beside them in `marram`.
fn placement(service: &Microservice, own: Option<PlacementFields>) -> Placement {
    let mut placement = constraints::placement(service);
    // To run without a volume that was asked for would lose what is written to it.
    if !service.volumes.is_empty() {
        placement.unsupported.push("volumes".to_owned());
    }
    let Some(own) = own else { return placement };
    constraints::add_new(&mut placement.addons, own.addons);
    Placement {
        labels: own.labels.unwrap_or_default(),
        spread: own.spread.unwrap_or_default(),
        with: own.with,
        apart_from: own.apart_from,
        policy: own.policy.unwrap_or_default(),
        priority: own.priority.unwrap_or_default(),
        ..placement
    }
}

fn patience(on_loss: Option<&str>, own: Option<PatienceFields>) -> Patience {
    let own = own.unwrap_or_default();
    let usual = Patience::default();
    let waits = on_loss == Some(WAIT);
    Patience {
        node_s: own.node_s.or(usual.node_s).filter(|_| !waits),
        cluster_s: own.cluster_s.or(usual.cluster_s).filter(|_| !waits),
        parent_s: own.parent_s.or(usual.parent_s),
    }
}

fn movement(word: Option<&str>) -> MovePolicy {
    match word {
        Some("stop_first") => MovePolicy::StopFirst,
        Some("never") => MovePolicy::Never,
        _ => MovePolicy::StartFirst,
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

/// What is not known inside the object `marram`; an object or list in it whole, if it holds
/// such a thing.
fn own_extra(own: &MarramFields) -> Map<String, Value> {
    let mut extra = own.extra.clone();
    if let Some(patience) = own.patience.as_ref().filter(|fields| !fields.extra.is_empty())
        && let Ok(patience) = serde_json::to_value(patience)
    {
        extra.insert("patience".to_owned(), patience);
    }
    if let Some(placement) = own.placement.as_ref().filter(|fields| !fields.extra.is_empty())
        && let Ok(placement) = serde_json::to_value(placement)
    {
        extra.insert("placement".to_owned(), placement);
    }
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
