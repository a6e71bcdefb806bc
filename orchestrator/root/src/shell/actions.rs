//! The commands of clients, carried out on catalog and core.
//!
//! Everything that can be refused is checked before the first change, so that a refusal
//! leaves nothing behind. Making it durable is the caller's next step.

use super::Shell;
use super::command::{Applied, AppliedService};
use crate::auth::Access;
use crate::catalog::{Draft, DraftApplication, DraftService, Service};
use crate::refusal::Refusal;
use crate::view;
use marram_orchestrator_core::{Input, TierError};
use marram_protocol::CLUSTER_INSTANCES_MAX;
use marram_protocol::id::{ApplicationId, InstanceId, ServiceId};
use marram_protocol::sla::SERVICES_MAX;
use marram_protocol::v1::{OperationEnd, OperationId, Workload};
use marram_rest::front::Order;
use tokio::sync::oneshot;

/// What an apply will do with one application.
struct Step {
    existing: Option<ApplicationId>,
    fresh: ApplicationId,
    /// In the document's order.
    services: Vec<Part>,
}

/// What an apply will do with one service.
#[derive(Clone, Copy)]
struct Part {
    /// There already, or to be made under that id.
    service: ServiceId,
    created: bool,
    /// Instances that there shall be at least.
    replicas: usize,
}

impl Shell {
    pub(super) fn deploy(&mut self, access: &Access, id: ServiceId) -> Result<InstanceId, Refusal> {
        let mut workloads = self.new_workloads(access, id, 1)?;
        self.catalog.take_instance_number(id)?;
        match workloads.pop() {
            Some(workload) => {
                let instance = workload.instance;
                self.tier.handle(self.clock.now(), Input::Deploy(workload));
                Ok(instance)
            }
            None => Err(Refusal::Internal("no instance was made".to_owned())),
        }
    }

    /// Numbers are given once: the core answers each.
    pub(super) fn operate(&mut self, order: Order, reply: oneshot::Sender<OperationEnd>) {
        self.last_operation = self.last_operation.wrapping_add(1);
        let operation = OperationId(self.last_operation);
        self.operations.insert(operation, reply);
        let Order { cluster, child, verb } = order;
        let now = self.clock.now();
        self.tier.handle(now, Input::Operate { operation, cluster, child, verb });
    }

    pub(super) fn remove_instance(
        &mut self,
        access: &Access,
        id: InstanceId,
    ) -> Result<(), Refusal> {
        self.catalog.service_of(access, id)?;
        if !self.tier.instances().contains_key(&id) {
            return Err(Refusal::not_found("instance", id));
        }
        self.tier.handle(self.clock.now(), Input::Remove(id));
        Ok(())
    }

    pub(super) fn remove_instances(
        &mut self,
        access: &Access,
        id: ServiceId,
    ) -> Result<(), Refusal> {
        self.catalog.service(access, id)?;
        self.take_down(&[id]);
        Ok(())
    }

    pub(super) fn remove_service(&mut self, access: &Access, id: ServiceId) -> Result<(), Refusal> {
        self.catalog.remove_service(access, id)?;
        self.take_down(&[id]);
        Ok(())
    }

    pub(super) fn remove_application(
        &mut self,
        access: &Access,
        id: ApplicationId,
    ) -> Result<(), Refusal> {
        let services = self.catalog.remove_application(access, id)?;
        self.take_down(&services);
        Ok(())
    }

    /// Removes all instances of services. Services that are removed themselves are forgotten
    /// once watchers have heard of the last instance.
    pub(super) fn take_down(&mut self, services: &[ServiceId]) {
        let now = self.clock.now();
        for service in services {
            for id in view::ids_of(&self.tier, *service).collect::<Vec<_>>() {
                self.tier.handle(now, Input::Remove(id));
            }
        }
        self.leaving.extend(services);
    }

    pub(super) fn apply(&mut self, access: &Access, draft: Draft) -> Result<Vec<Applied>, Refusal> {
        let mut steps = Vec::with_capacity(draft.applications.len());
        let mut conflicts = Vec::new();
        for application in &draft.applications {
            steps.push(self.plan(access, application, &mut conflicts));
        }
        if !conflicts.is_empty() {
            return Err(Refusal::Conflict(conflicts.join("; ")));
        }
        let made = |step: &Step, service: &DraftService| {
            step.services.iter().any(|part| part.created && part.service == service.fresh)
        };
        let all = steps.iter().zip(&draft.applications);
        let new = all.clone().flat_map(|(step, application)| {
            application.services.iter().filter(move |service| made(step, service))
        });
        let applications = steps.iter().filter(|step| step.existing.is_none()).count();
        self.catalog.room_for(applications, new)?;
        self.room_for_instances(&steps)?;

        let now_unix_ms = self.clock.now().unix_ms;
        for (step, mut application) in steps.iter().zip(draft.applications) {
            application.services.retain(|service| made(step, service));
            match step.existing {
                Some(id) => {
                    let services = application.services;
                    self.catalog.add_services(access, id, services, now_unix_ms)?;
                }
                None => {
                    let draft = Draft { applications: vec![application] };
                    self.catalog.create(access, draft, now_unix_ms)?;
                }
            }
        }
        let mut missing = Vec::new();
        let applied = steps.into_iter().map(|step| self.fill_up(access, step, &mut missing));
        let applied = applied.collect::<Result<Vec<_>, Refusal>>()?;
        self.change(missing, Vec::new());
        Ok(applied)
    }

    fn plan(
        &self,
        access: &Access,
        application: &DraftApplication,
        conflicts: &mut Vec<String>,
    ) -> Step {
        let (name, space) = (&application.name, &application.namespace);
        let existing = self.catalog.find_application(access, name, space).map(|there| there.id);
        if let Some(named) = application.named
            && existing != Some(named)
        {
            conflicts.push(format!("application {name} in namespace {space} has not id {named}"));
        }
        let services = application.services.iter().map(|draft| {
            let (name, space) = (&draft.name, &draft.namespace);
            let there = existing.and_then(|id| self.catalog.find_service(id, name, space));
            // Without a word of it, one instance is enough.
            let replicas =
                draft.replicas.map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX));
            match there {
                None => Part { service: draft.fresh, created: true, replicas },
                Some(there) => {
                    if !same_document(there, draft) {
                        conflicts.push(format!(
                            "service {name} in namespace {space} exists with another document; \
                             delete service {} first",
                            there.id
                        ));
                    }
                    Part { service: there.id, created: false, replicas }
                }
            }
        });
        let services: Vec<Part> = services.collect();
        let there = existing.map_or(0, |id| self.catalog.members(id).count());
        let new = services.iter().filter(|part| part.created).count();
        if there.saturating_add(new) > SERVICES_MAX {
            conflicts.push(format!(
                "application {name} would have {} services, at most {SERVICES_MAX} are allowed",
                there.saturating_add(new)
            ));
        }
        Step { existing, fresh: application.fresh, services }
    }

    fn room_for_instances(&self, steps: &[Step]) -> Result<(), Refusal> {
        let parts = steps.iter().flat_map(|step| &step.services);
        let missing =
            parts.map(|part| part.replicas.saturating_sub(self.staying(part.service).len()));
        let new = missing.fold(0_usize, usize::saturating_add);
        if self.tier.instances().len().saturating_add(new) > CLUSTER_INSTANCES_MAX {
            return Err(Refusal::Conflict(TierError::TooMany.to_string()));
        }
        Ok(())
    }

    /// Adds to `missing` what there shall be and is not.
    fn fill_up(
        &mut self,
        access: &Access,
        step: Step,
        missing: &mut Vec<Workload>,
    ) -> Result<Applied, Refusal> {
        let mut services = Vec::with_capacity(step.services.len());
        for Part { service, created, replicas } in step.services {
            let mut instances = self.staying(service);
            let new = replicas.saturating_sub(instances.len());
            for workload in self.new_workloads(access, service, new)? {
                self.catalog.take_instance_number(service)?;
                instances.push(workload.instance);
                missing.push(workload);
            }
            services.push(AppliedService { service, created, instances });
        }
        Ok(Applied { application: step.existing.unwrap_or(step.fresh), services })
    }

    /// Instances of a service that are not being removed.
    pub(super) fn staying(&self, service: ServiceId) -> Vec<InstanceId> {
        let stays = |id: &InstanceId| {
            self.tier.instances().get(id).is_some_and(|instance| !instance.is_removing())
        };
        view::ids_of(&self.tier, service).filter(stays).collect()
    }
}

/// Whether both say the same; the order of properties says nothing.
fn same_document(there: &Service, draft: &DraftService) -> bool {
    there.document == draft.document
        || match (there.fields(), serde_json::from_str(&draft.document)) {
            (Ok(one), Ok::<serde_json::Value, _>(other)) => serde_json::Value::Object(one) == other,
            _ => false,
        }
}
