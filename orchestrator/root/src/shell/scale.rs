//! As many instances of a service as an operator wants, in one step.
//!
//! Why apart from deploying one: the whole step is durable at once or not at all, and each
//! child hears of it in one change of its desired state.

use super::Shell;
use crate::auth::Access;
use crate::refusal::Refusal;
use marram_orchestrator_core::{Input, TierError};
use marram_protocol::CLUSTER_INSTANCES_MAX;
use marram_protocol::id::{InstanceId, ServiceId};
use marram_protocol::v1::Workload;

/// Instances added or removed by one step: their records and those of as many children fit
/// one transaction of the store, which has 512 entries.
pub const SCALE_STEP_MAX: usize = 250;

/// Bytes of what is added by one step, so that it fits one transaction of the store.
const SCALE_BYTES_MAX: usize = 1024 * 1024;

/// What a [`Handle::scale`](super::Handle::scale) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaled {
    /// All instances that are wanted now.
    pub instances: Vec<InstanceId>,
    /// Those of them that are new.
    pub added: Vec<InstanceId>,
    /// Those that go: of all that were there, the ones with the highest numbers.
    pub removed: Vec<InstanceId>,
}

impl Shell {
    pub(super) fn scale(
        &mut self,
        access: &Access,
        id: ServiceId,
        replicas: usize,
    ) -> Result<Scaled, Refusal> {
        self.catalog.service(access, id)?;
        let mut instances = self.staying(id);
        let removed = instances.split_off(instances.len().min(replicas));
        let missing = replicas - instances.len();
        if missing.max(removed.len()) > SCALE_STEP_MAX {
            return Err(Refusal::Conflict(format!(
                "one step adds or removes at most {SCALE_STEP_MAX} instances, from {} to \
                 {replicas} is further",
                instances.len() + removed.len()
            )));
        }
        let workloads = self.new_workloads(access, id, missing)?;
        let bytes: usize = workloads.iter().map(postcard_bytes).sum();
        if bytes > SCALE_BYTES_MAX {
            return Err(Refusal::Conflict(format!(
                "one step adds at most {SCALE_BYTES_MAX} bytes, {missing} instances have {bytes}"
            )));
        }
        let added: Vec<InstanceId> = workloads.iter().map(|workload| workload.instance).collect();
        for _ in &added {
            self.catalog.take_instance_number(id)?;
        }
        instances.extend(&added);
        self.change(workloads, removed.clone());
        Ok(Scaled { instances, added, removed })
    }

    /// The next instances of a service, checked and not yet anywhere.
    pub(super) fn new_workloads(
        &self,
        access: &Access,
        id: ServiceId,
        count: usize,
    ) -> Result<Vec<Workload>, Refusal> {
        if self.tier.instances().len().saturating_add(count) > CLUSTER_INSTANCES_MAX {
            return Err(Refusal::Conflict(TierError::TooMany.to_string()));
        }
        let first = self.catalog.next_instance_number(id);
        let workloads = self.catalog.service(access, id)?.workloads(first, count)?;
        for workload in &workloads {
            self.tier.check(workload).map_err(|error| match error {
                TierError::TooLarge(_) => Refusal::Invalid(error.to_string()),
                TierError::TooMany | TierError::Exists(_) => Refusal::Conflict(error.to_string()),
            })?;
        }
        Ok(workloads)
    }

    /// New instances and the end of others, in one step.
    pub(super) fn change(&mut self, upserts: Vec<Workload>, removes: Vec<InstanceId>) {
        self.tier.handle(self.clock.now(), Input::Apply { upserts, removes });
    }
}

fn postcard_bytes(workload: &Workload) -> usize {
    postcard::to_stdvec(workload).map_or(usize::MAX, |bytes| bytes.len())
}
