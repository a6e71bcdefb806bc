//! What the catalog keeps of an application and of a service, as it goes to the store.
//!
//! What changes with each instance is a record of its own, so that a deploy rewrites some
//! bytes and not a document.

use crate::refusal::Refusal;
use marram_protocol::id::{ApplicationId, InstanceId, ServiceId};
use marram_protocol::reference;
use marram_protocol::sla::{Microservice, service_spec};
use marram_protocol::v1::Workload;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Id.
    pub id: ApplicationId,
    /// Name of the user it belongs to.
    pub owner: String,
    /// Unique together with namespace and owner.
    pub name: String,
    /// See `name`.
    pub namespace: String,
    /// For people.
    pub description: String,
    /// Unknown properties, as a JSON object; empty for none.
    pub extra: String,
    /// Made at.
    pub created_unix_ms: u64,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Id.
    pub id: ServiceId,
    /// Of which application.
    pub application: ApplicationId,
    /// Owner of the application. Repeated, as are its names, since a service that is being
    /// taken down outlives its application.
    pub owner: String,
    /// Name of the application.
    pub application_name: String,
    /// Namespace of the application.
    pub application_namespace: String,
    /// Unique together with namespace, within the application.
    pub name: String,
    /// See `name`.
    pub namespace: String,
    /// Order within the application.
    pub position: u32,
    /// Counts changes of the document.
    pub revision: u32,
    /// Made at.
    pub created_unix_ms: u64,
    /// The microservice as it was given, as JSON, without its id.
    pub document: String,
}

/// What changes of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counter {
    /// Of the next instance; numbers are never given twice.
    pub next_instance_number: u32,
    /// To be forgotten as soon as its last instance is gone.
    pub removed: bool,
}

impl Service {
    /// `app.appns.service.servicens`.
    pub fn job_name(&self) -> String {
        let Self { application_name, application_namespace, name, namespace, .. } = self;
        format!("{application_name}.{application_namespace}.{name}.{namespace}")
    }

    /// The document as it was given.
    pub fn fields(&self) -> Result<Map<String, Value>, Refusal> {
        serde_json::from_str(&self.document).map_err(|error| self.damaged(&error))
    }

    /// What so many instances from a number on are to run.
    pub fn workloads(&self, first: u32, count: usize) -> Result<Vec<Workload>, Refusal> {
        let service: Microservice =
            serde_json::from_str(&self.document).map_err(|error| self.damaged(&error))?;
        let (mut spec, job) = (service_spec(&service), self.job_name());
        // Below the root nobody knows which application a short name is meant in.
        reference::write_out(&mut spec.placement, &job);
        let workloads = (first..=u32::MAX).take(count).map(|number| Workload {
            instance: InstanceId { service: self.id, number },
            revision: self.revision,
            name: format!("{job}.{number}"),
            spec: spec.clone(),
        });
        let workloads: Vec<Workload> = workloads.collect();
        match workloads.len() == count {
            true => Ok(workloads),
            false => Err(Refusal::Conflict("all instance numbers are used".to_owned())),
        }
    }

    fn damaged(&self, error: &serde_json::Error) -> Refusal {
        Refusal::Internal(format!("the document of service {} is damaged: {error}", self.id))
    }
}
