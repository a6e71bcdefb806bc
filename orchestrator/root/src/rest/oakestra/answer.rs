//! How Oakestra's form says things: three encodings, and two kinds of errors.

use super::super::{Rest, bearer};
use crate::auth::{Access, TokenError};
use crate::clock::unix_s;
use crate::refusal::Refusal;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What a call answers.
pub(super) type Answer = Result<Response, Error>;

/// A JSON text that holds JSON.
pub(super) fn doubly_encoded(value: &Value) -> Response {
    object(&Value::String(value.to_string()))
}

/// JSON that calls itself HTML.
pub(super) fn raw(value: &Value) -> Response {
    typed(StatusCode::OK, "text/html; charset=utf-8", value.to_string())
}

/// Plain JSON, with the line end that the original writes.
pub(super) fn object(value: &Value) -> Response {
    typed(StatusCode::OK, "application/json", format!("{value}\n"))
}

fn with_status(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    typed(status, "application/json", format!("{value}\n"))
}

fn typed(status: StatusCode, content_type: &'static str, text: String) -> Response {
    let mut response = (status, text).into_response();
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// A refusal: `{"code","status","message"}`, and `errors` for documents.
#[derive(Debug)]
pub struct Error(pub Refusal);

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let code = self.0.status();
        if let Refusal::Internal(why) = &self.0 {
            tracing::error!("a request failed: {why}");
        }
        // The one message that clients know for this.
        if let Refusal::Forbidden(_) = self.0 {
            let text = "You have not enough permissions!";
            return with_status(code, &json!({"message": text}));
        }
        let status = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
        let mut body = json!({"code": code, "status": status, "message": self.0.detail()});
        let faults = self.0.faults();
        if !faults.is_empty() {
            let faults = faults.into_iter().map(|fault| {
                json!({"pointer": fault.pointer, "path": fault.path, "detail": fault.detail})
            });
            body["errors"] = faults.collect();
        }
        let mut response = with_status(code, &body);
        if let Refusal::Throttled(wait_s) = self.0 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
        }
        response
    }
}

/// The caller of a path about applications.
#[derive(Debug)]
pub(super) struct Caller(pub(super) Access);

/// The caller of a path about services, where a missing token is told otherwise.
#[derive(Debug)]
pub(super) struct ServiceCaller(pub(super) Access);

impl FromRequestParts<Rest> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Response> {
        let access = rest.auth.access(bearer(&parts.headers), unix_s());
        access.map(Self).map_err(|error| not_authenticated(&error))
    }
}

impl FromRequestParts<Rest> for ServiceCaller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Response> {
        let access = rest.auth.access(bearer(&parts.headers), unix_s());
        access.map(Self).map_err(|error| match error {
            TokenError::Missing => {
                with_status(401, &json!({"message": "Missing authentication token"}))
            }
            other => not_authenticated(&other),
        })
    }
}

/// A token that is not taken, in the words of the library that Oakestra uses.
pub(super) fn not_authenticated(error: &TokenError) -> Response {
    let (status, text) = match error {
        TokenError::Missing => (401, "Missing Authorization Header"),
        TokenError::Expired => (401, "Token has expired"),
        TokenError::NoUser => (401, "The user does not exist any more"),
        TokenError::Malformed => (422, "The token is malformed"),
        TokenError::Signature => (422, "Signature verification failed"),
        TokenError::NotRefresh => (422, "Only refresh tokens are allowed"),
        TokenError::NotAccess => (422, "Only non-refresh tokens are allowed"),
    };
    with_status(status, &json!({"msg": text}))
}
