//! The Oakestra SLA document, version 2.0, with Marram's own optional fields beside.
//!
//! Why checked by hand and not by the deserializer: a deserializer stops at the first
//! error. [`parse`] walks the whole document by the table in `rules` and reports every
//! error at once, with its path; only then is the typed model built.
//!
//! Properties that the table does not know are kept and passed on, as Oakestra does.
//! Fields and their meaning: Oakestra's `sla` schema of releases 0.4.2 to 0.4.411.

mod across;
mod constraints;
mod convert;
mod errors;
mod model;
mod rules;
mod walk;

pub use convert::{STOP_GRACE_S, service_spec};
pub use errors::{ERRORS_MAX, Path, Segment, SlaError, SlaErrors};
pub use model::{
    Addresses, Application, Connectivity, ConnectivityConstraint, Constraint, Cores,
    InstanceAddress, MarramFields, Microservice, MountField, PatienceFields, PlacementFields, Sla,
    Volume,
};
pub use rules::{APPLICATIONS_MAX, SERVICE_BYTES_MAX, SERVICES_MAX};

use serde_json::Value;

/// Longest document: 256 services with generous commands and environments.
pub const SLA_BYTES_MAX: usize = 1024 * 1024;

/// The only version there is; 1.0 was YAML and is gone from Oakestra too.
pub const SLA_VERSION: &str = "v2.0";

/// Reads and checks a document.
pub fn parse(bytes: &[u8]) -> Result<Sla, SlaErrors> {
    if bytes.len() > SLA_BYTES_MAX {
        return Err(SlaErrors::TooLarge(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| SlaErrors::NotUtf8(e.valid_up_to()))?;
    let value: Value = serde_json::from_str(text).map_err(|e| SlaErrors::NotJson {
        line: e.line(),
        column: e.column(),
        why: errors::json_reason(&e),
    })?;
    check(value)
}

/// Checks a document that was read already.
pub fn check(value: Value) -> Result<Sla, SlaErrors> {
    let errors = walk::document(&value);
    if !errors.is_empty() {
        return Err(SlaErrors::Fields(errors));
    }
    // The walk has seen every field that the model names; a failure here is a gap between
    // the two, which a property test looks for.
    serde_json::from_value(value).map_err(|error| {
        SlaErrors::Fields(vec![SlaError {
            path: Path::default(),
            found: "a document that cannot be read".into(),
            expected: error.to_string(),
        }])
    })
}
