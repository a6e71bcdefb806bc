//! Errors as `application/problem+json` (RFC 9457), and answers as JSON.

use crate::refusal::{Fault, Refusal};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What a call answers.
pub type Answer = Result<Response, Problem>;

/// An error as a client sees it.
#[derive(Debug)]
pub struct Problem {
    status: u16,
    detail: String,
    faults: Vec<Fault>,
    retry_after_s: Option<u64>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        if let Refusal::Internal(why) = &refusal {
            tracing::error!("a request failed: {why}");
        }
        let retry_after_s = match refusal {
            Refusal::Throttled(wait_s) => Some(wait_s),
            _ => None,
        };
        Self {
            status: refusal.status(),
            detail: refusal.detail(),
            faults: refusal.faults(),
            retry_after_s,
        }
    }
}

impl Problem {
    /// The caller has shown no token that is taken.
    pub fn unauthenticated(why: &str) -> Self {
        Self { status: 401, detail: why.to_owned(), faults: Vec::new(), retry_after_s: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let errors = self.faults.into_iter().map(
            |fault| json!({"pointer": fault.pointer, "path": fault.path, "detail": fault.detail}),
        );
        let body = json!({
            "title": status.canonical_reason(),
            "status": self.status,
            "detail": self.detail,
            "errors": errors.collect::<Vec<_>>(),
        });
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        if self.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait_s) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
        }
        response
    }
}

/// JSON.
pub fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = (status, value.to_string()).into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// JSON with status 200.
pub fn ok(value: &Value) -> Response {
    json_response(StatusCode::OK, value)
}
