//! What clients may see of instances and clusters, put together from the core's books.
//!
//! Why apart: all forms of REST and the event stream show the same things; they encode these
//! structs and never look at the core themselves.

use crate::lines;
use marram_orchestrator_core::{Child, Tier};
use marram_protocol::id::{ApplicationId, ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{ExitCause, NodeRef, Resources, Summary, WorkloadUsage};
use serde_json::{Value, json};

/// An instance, as far as the tier knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Id.
    pub id: InstanceId,
    /// Its application, which may be gone already; `None` where applications are not known.
    pub application: Option<ApplicationId>,
    /// `app.appns.service.servicens.number`.
    pub name: String,
    /// Of the service's document.
    pub revision: u32,
    /// State.
    pub state: InstanceState,
    /// Why, for people.
    pub detail: String,
    /// Starts after the first.
    pub restarts: u32,
    /// How it ended the last time.
    pub exit: Option<ExitCause>,
    /// In this state since.
    pub since_unix_ms: u64,
    /// The child it is placed on, if that is a cluster; at a cluster, for its own nodes, the
    /// cluster itself.
    pub cluster: Option<Place>,
    /// The node it is on.
    pub node: Option<NodeRef>,
    /// Children that refused it, with their reasons.
    pub tried: Vec<(String, String)>,
    /// First port of the host, 0 for none.
    pub host_port: u16,
    /// What it uses, once its node has told.
    pub usage: Option<WorkloadUsage>,
    /// Memory it may use, 0 for no limit.
    pub memory_mib: u32,
    /// To be gone as soon as its child says so.
    pub removing: bool,
}

/// A cluster that an instance is placed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Id.
    pub id: ChildId,
    /// Name.
    pub name: String,
    /// Location; empty if not known now.
    pub location: String,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Id.
    pub id: ChildId,
    /// Name.
    pub name: String,
    /// Connected now.
    pub connected: bool,
    /// Version of its program; empty while not connected.
    pub version: String,
    /// Where it dials in from.
    pub address: String,
    /// What it can do; nothing while not connected.
    pub summary: Summary,
    /// Held for instances that this tier has placed there.
    pub reserved: Resources,
    /// Instances placed there.
    pub instances: usize,
    /// When it was last heard of.
    pub seen_unix_ms: u64,
    /// Busy share of processors in thousandths, once it has told.
    pub cpu_permille: Option<u16>,
    /// Memory in use, once it has told.
    pub memory_used_mib: Option<u32>,
}

/// An instance, if it is in the tier's books.
pub fn instance(
    tier: &Tier,
    application: Option<ApplicationId>,
    id: InstanceId,
) -> Option<InstanceView> {
    let known = tier.instances().get(&id)?;
    let status = tier.status(id)?;
    let workload = known.workload();
    let name_of = |id: &ChildId| match tier.children().get(id) {
        Some(child) => child.name().to_owned(),
        None => id.to_string(),
    };
    Some(InstanceView {
        id,
        application,
        name: workload.name.clone(),
        revision: workload.revision,
        state: status.state,
        detail: status.detail,
        restarts: status.restarts,
        exit: status.exit,
        since_unix_ms: status.since_unix_ms,
        cluster: known.placed().and_then(|id| tier.children().get(&id)).map(|c| place(tier, c)),
        node: status.node,
        tried: known.tried().iter().map(|(id, why)| (name_of(id), why.clone())).collect(),
        host_port: workload.spec.ports.first().map_or(0, |mapping| mapping.host),
        usage: tier.usage(id).copied(),
        memory_mib: workload.spec.resources.memory_mib,
        removing: known.is_removing(),
    })
}

fn place(tier: &Tier, child: &Child) -> Place {
    match lines::kind(child) {
        "node" => {
            let own = tier.identity();
            Place { id: own.id, name: own.name.clone(), location: own.location.clone() }
        }
        _ => Place {
            id: child.id(),
            name: child.name().to_owned(),
            location: child.summary().map(|s| s.location.clone()).unwrap_or_default(),
        },
    }
}

/// A cluster, as of `now_unix_ms`.
pub fn cluster(child: &Child, now_unix_ms: u64) -> ClusterView {
    let connected = child.is_connected();
    ClusterView {
        id: child.id(),
        name: child.name().to_owned(),
        connected,
        version: child.version().to_owned(),
        address: child.fact("address").unwrap_or_default().to_owned(),
        summary: child.summary().cloned().unwrap_or_default(),
        reserved: child.reserved(),
        instances: child.instances(),
        seen_unix_ms: if connected { now_unix_ms } else { child.seen_unix_ms() },
        cpu_permille: child.telemetry().map(|telemetry| telemetry.cpu_permille),
        memory_used_mib: child.telemetry().map(|telemetry| telemetry.memory_used_mib),
    }
}

/// An instance in the clean form: snake case, ids as texts, times in Unix milliseconds.
pub fn instance_json(instance: &InstanceView) -> Value {
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
