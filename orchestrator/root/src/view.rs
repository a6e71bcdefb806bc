//! Which instances a client may see, and by which service.
//!
//! What is to be seen of one, at a cluster as at the root, is in `marram_rest::view`.

use crate::auth::Access;
use crate::catalog::{Catalog, Service};
use crate::refusal::Refusal;
use marram_orchestrator_core::Tier;
use marram_protocol::id::{InstanceId, ServiceId};
pub use marram_rest::view::{ClusterView, InstanceView, Place, cluster};

/// An instance of a service that is known.
pub fn instance(tier: &Tier, service: &Service, id: InstanceId) -> Option<InstanceView> {
    marram_rest::view::instance(tier, Some(service.application), id)
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
