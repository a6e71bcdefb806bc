//! HTTP: two forms of one interface.
//!
//! - [`oakestra`] under `/api/`: what Oakestra's clients know, quirks included;
//! - [`v1`] under `/api/v1/`: the clean form.
//!
//! Both look at the state through the same functions and refuse for the same reasons; they
//! differ in how they say it. What a path means is decided here: a slash at the end never
//! matters, and no redirect is ever sent.

mod front;
pub mod oakestra;
pub mod v1;

use crate::auth::Auth;
use crate::clock::Clock;
use crate::refusal::Refusal;
use crate::shell::Handle;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use marram_rest::front::Gate;
use marram_rest::problem::Problem;
use std::sync::Arc;
use tokio::sync::watch;

/// What handlers need.
#[derive(Debug, Clone)]
pub struct Rest {
    /// The owner of the state.
    pub handle: Handle,
    /// Users.
    pub auth: Arc<Auth>,
    /// Time.
    pub clock: Clock,
    /// What ends streams and counts them.
    pub gate: Gate,
}

impl Rest {
    /// Over a running shell.
    pub fn new(
        handle: Handle,
        auth: Arc<Auth>,
        clock: Clock,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { handle, auth, clock, gate: Gate::new(stopping) }
    }

    /// All paths.
    pub fn router(self) -> Router {
        oakestra::routes()
            .merge(v1::routes())
            .fallback(unknown_path)
            .method_not_allowed_fallback(unknown_method)
            .layer(from_fn(oakestra::cross_origin))
            .with_state(self)
    }
}

/// The value of the `Authorization` header, if it is text.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
}

async fn unknown_path(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    in_its_form(&request, Refusal::NotFound { what: "path", id: path })
}

async fn unknown_method(request: Request) -> Response {
    let why = format!("{} is not possible here", request.method());
    in_its_form(&request, Refusal::Method(why))
}

fn in_its_form(request: &Request, refusal: Refusal) -> Response {
    if oakestra::is_ours(request.uri().path()) {
        oakestra::Error(refusal).into_response()
    } else {
        Problem::from(refusal).into_response()
    }
}
