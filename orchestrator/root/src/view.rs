//! What clients may see of instances and clusters, put together from the core's books.
//!
//! Why apart: both REST forms and the event stream show the same things; they encode these
//! structs and never look at the core themselves.

use crate::auth::Access;
use crate::catalog::{Catalog, Service};
use crate::refusal::Refusal;
use marram_orchestrator_core::{Child, Tier};
use marram_protocol::id::{ApplicationId, ChildId, InstanceId, ServiceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{ExitCause, NodeRef, Resources, Summary, WorkloadUsage};

/// An instance, as far as the root knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Id.
    pub id: InstanceId,
    /// Its application, which may be gone already.
    pub application: ApplicationId,
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
    /// The cluster it is placed on.
    pub cluster: Option<Place>,
    /// The node it is on.
    pub node: Option<NodeRef>,
    /// Clusters that refused it, with their reasons.
    pub tried: Vec<(String, String)>,
    /// First port of the host, 0 for none.
    pub host_port: u16,
    /// What it uses, once its node has told.
    pub usage: Option<WorkloadUsage>,
    /// Memory it may use, 0 for no limit.
    pub memory_mib: u32,
    /// To be gone as soon as its cluster says so.
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
    /// Held for instances that this root has placed there.
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

/// An instance of a service that is known.
pub fn instance(tier: &Tier, service: &Service, id: InstanceId) -> Option<InstanceView> {
    let known = tier.instances().get(&id)?;
    let status = tier.status(id)?;
    let workload = known.workload();
    let name_of = |id: &ChildId| match tier.children().get(id) {
        Some(child) => child.name().to_owned(),
        None => id.to_string(),
    };
    let cluster = known.placed().and_then(|id| tier.children().get(&id)).map(|child| Place {
        id: child.id(),
        name: child.name().to_owned(),
        location: child.summary().map(|s| s.location.clone()).unwrap_or_default(),
    });
    Some(InstanceView {
        id,
        application: service.application,
        name: workload.name.clone(),
        revision: workload.revision,
        state: status.state,
        detail: status.detail,
        restarts: status.restarts,
        exit: status.exit,
        since_unix_ms: status.since_unix_ms,
        cluster,
        node: status.node,
        tried: known.tried().iter().map(|(id, why)| (name_of(id), why.clone())).collect(),
        host_port: workload.spec.ports.first().map_or(0, |mapping| mapping.host),
        usage: tier.usage(id).copied(),
        memory_mib: workload.spec.resources.memory_mib,
        removing: known.is_removing(),
    })
}

/// All instances of a service, by number.
pub fn instances_of(tier: &Tier, service: &Service) -> Vec<InstanceView> {
    ids_of(tier, service.id).filter_map(|id| instance(tier, service, id)).collect()
}

/// Ids of all instances of a service.
pub fn ids_of(tier: &Tier, service: ServiceId) -> impl Iterator<Item = InstanceId> + '_ {
    let first = InstanceId { service, number: 0 };
    let last = InstanceId { service, number: u32::MAX };
    tier.instances().range(first..=last).map(|(id, _)| *id)
}

/// All instances that a caller may see.
pub fn instances(tier: &Tier, catalog: &Catalog, access: &Access) -> Vec<InstanceView> {
    let visible = tier.instances().keys().filter_map(|id| {
        let service = catalog.service_of(access, *id).ok()?;
        instance(tier, service, *id)
    });
    visible.collect()
}

/// One instance, if the caller may see it.
pub fn instance_for(
    tier: &Tier,
    catalog: &Catalog,
    access: &Access,
    id: InstanceId,
) -> Result<InstanceView, Refusal> {
    let service = catalog.service_of(access, id)?;
    instance(tier, service, id).ok_or_else(|| Refusal::not_found("instance", id))
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
