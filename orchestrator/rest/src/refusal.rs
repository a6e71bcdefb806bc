//! Why a client's request is not fulfilled.
//!
//! Why one enum: what went wrong is decided once; how it is said differs between the two
//! REST forms, which both encode this.

use marram_protocol::sla::SlaErrors;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such thing, or it belongs to somebody else, who need not be betrayed.
    #[error("there is no {what} {id:?}")]
    NotFound {
        /// `application`, `service`, …
        what: &'static str,
        /// What was asked for.
        id: String,
    },
    /// Something that the request needs is not where it was looked for.
    #[error("not found: {0}")]
    Absent(String),
    /// The path exists, the method does not.
    #[error("{0}")]
    Method(String),
    /// It stands against what is there.
    #[error("{0}")]
    Conflict(String),
    /// The document is wrong.
    #[error("the document is refused: {0}")]
    Sla(SlaErrors),
    /// Fits the schema and is still no sensible request.
    #[error("{0}")]
    Invalid(String),
    /// Cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// The caller lacks a role.
    #[error("role {0} is needed")]
    Forbidden(&'static str),
    /// Longer than what is taken.
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    /// The body stopped coming.
    #[error("the body did not arrive within {0} s")]
    Slow(u64),
    /// Wrong user name or password.
    #[error("wrong user name or password")]
    Credentials,
    /// The caller is somebody else than who may ask.
    #[error("only {0} may ask for this")]
    Unauthorized(String),
    /// Too many wrong passwords.
    #[error("too many failed logins, try again in {0} s")]
    Throttled(u64),
    /// Something that has a limit is used up, or not there now.
    #[error("{0}")]
    Busy(String),
    /// What is asked for does not exist yet.
    #[error("{0}")]
    NotImplemented(String),
    /// A fault on this side.
    #[error("{0}")]
    Internal(String),
}

/// One wrong field, as both forms show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// RFC 6901.
    pub pointer: String,
    /// `$.applications[0].name`.
    pub path: String,
    /// What stands there and what is allowed.
    pub detail: String,
}

impl Refusal {
    /// Shorthand for an unknown id; of an overlong one only the beginning is repeated.
    pub fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string().chars().take(64).collect() }
    }

    /// The status of HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Credentials | Self::Unauthorized(_) => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound { .. } | Self::Absent(_) => 404,
            Self::Method(_) => 405,
            Self::Slow(_) => 408,
            Self::Conflict(_) => 409,
            Self::TooLarge(_) | Self::Sla(SlaErrors::TooLarge(_)) => 413,
            Self::Sla(_) | Self::Invalid(_) => 422,
            Self::Throttled(_) => 429,
            Self::Internal(_) => 500,
            Self::NotImplemented(_) => 501,
            Self::Busy(_) => 503,
        }
    }

    /// One line for people, also where there are many faults.
    pub fn detail(&self) -> String {
        match self {
            Self::Sla(SlaErrors::Fields(errors)) => match errors.as_slice() {
                [one] => format!("the document is refused: {one}"),
                many => format!("the document has {} wrong fields", many.len()),
            },
            other => other.to_string(),
        }
    }

    /// All faults of a document.
    pub fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Sla(SlaErrors::Fields(errors)) => errors
                .iter()
                .map(|error| Fault {
                    pointer: error.path.pointer(),
                    path: error.path.to_string(),
                    detail: format!("{}, expected {}", error.found, error.expected),
                })
                .collect(),
            Self::Sla(whole) => {
                vec![Fault {
                    pointer: String::new(),
                    path: "$".to_owned(),
                    detail: whole.to_string(),
                }]
            }
            _ => Vec::new(),
        }
    }
}
