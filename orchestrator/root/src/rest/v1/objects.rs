//! The clean form's objects: snake case, ids as texts, times in Unix milliseconds.

use crate::catalog::{Application, Service};
use crate::refusal::Refusal;
use marram_protocol::id::{InstanceId, ServiceId};
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
