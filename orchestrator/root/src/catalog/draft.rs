//! A document on its way into the catalog: checked whole, ids already given.
//!
//! Why apart: reading and checking up to 1 MiB of JSON is done by the task that received
//! it; the task that owns the state gets something it can take or refuse at once.

use crate::refusal::Refusal;
use crate::secret::random;
use marram_orchestrator_core::WORKLOAD_BYTES_MAX;
use marram_protocol::id::{ApplicationId, ServiceId};
use marram_protocol::reference;
use marram_protocol::sla::{self, Application, Microservice, service_spec};
use serde_json::{Map, Value};

/// A whole document.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// At least one.
    pub applications: Vec<DraftApplication>,
}

/// An application that may become one of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftApplication {
    /// Its id, should it be new.
    pub fresh: ApplicationId,
    /// The id that the document names, if any.
    pub named: Option<ApplicationId>,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// For people.
    pub description: String,
    /// Unknown properties, as a JSON object; empty for none.
    pub extra: String,
    /// Its services, in the document's order.
    pub services: Vec<DraftService>,
}

/// A service that may become one of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftService {
    /// Its id, should it be new.
    pub fresh: ServiceId,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// The microservice as it was given, as JSON.
    pub document: String,
    /// Instances that there shall be at least; `None` if the document does not say.
    pub replicas: Option<u32>,
}

impl Draft {
    /// Reads, checks and gives ids.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let checked = sla::parse(bytes).map_err(Refusal::Sla)?;
        // The typed model fills in defaults; what is kept is the text as it was given.
        let mut given: Value =
            serde_json::from_slice(bytes).map_err(|e| Refusal::Internal(e.to_string()))?;
        let given = given["applications"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let pairs = checked.applications.into_iter().zip(given);
        let applications = pairs.map(|(one, given)| application(one, given));
        Ok(Self { applications: applications.collect::<Result<_, _>>()? })
    }

    /// The only application, for calls that take one.
    pub fn single(mut self) -> Result<DraftApplication, Refusal> {
        match (self.applications.pop(), self.applications.len()) {
            (Some(only), 0) => Ok(only),
            (_, rest) => Err(Refusal::BadRequest(format!(
                "one application is expected here, the document has {}",
                rest.saturating_add(1)
            ))),
        }
    }
}

fn application(checked: Application, mut given: Value) -> Result<DraftApplication, Refusal> {
    let given = given["microservices"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let pairs = checked.microservices.iter().zip(given);
    let services = pairs.map(|(one, given)| service(one, given)).collect::<Result<_, _>>()?;
    Ok(DraftApplication {
        fresh: ApplicationId(id()?),
        named: checked.application_id.parse().ok(),
        name: checked.application_name,
        namespace: checked.application_namespace,
        description: checked.application_desc,
        extra: object_text(checked.extra),
        services,
    })
}

fn service(checked: &Microservice, mut given: Value) -> Result<DraftService, Refusal> {
    let (name, namespace) = (&checked.microservice_name, &checked.microservice_namespace);
    if let Value::Object(fields) = &mut given {
        fields.remove("microserviceID");
    }
    let document = given.to_string();
    // What a tier would refuse at each deploy is better refused now. The document is never
    // shorter than what messages carry of it, so names beside it are left out of the sum.
    // References are written out with the names of an application that may come later.
    let mut spec = service_spec(checked);
    let longest = "x".repeat(reference::NAME_CHARS_MAX);
    reference::write_out(&mut spec.placement, &format!("{longest}.{longest}.{name}.{namespace}"));
    let spec_bytes = postcard::to_stdvec(&spec).map_or(usize::MAX, |v| v.len());
    let bytes = spec_bytes.max(document.len());
    if bytes > WORKLOAD_BYTES_MAX - ENVELOPE_BYTES {
        return Err(Refusal::Invalid(format!(
            "service {name}.{namespace} takes {bytes} bytes, at most {} are allowed",
            WORKLOAD_BYTES_MAX - ENVELOPE_BYTES
        )));
    }
    Ok(DraftService {
        fresh: ServiceId(id()?),
        name: name.clone(),
        namespace: namespace.clone(),
        document,
        replicas: checked.marram.as_ref().and_then(|fields| fields.replicas),
    })
}

/// What a workload has beside its specification: ids and four names of 30 letters.
const ENVELOPE_BYTES: usize = 256;

fn id() -> Result<[u8; 12], Refusal> {
    random().map_err(|error| Refusal::Internal(error.to_string()))
}

/// An object as text, an empty one as nothing.
fn object_text(fields: Map<String, Value>) -> String {
    if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() }
}
