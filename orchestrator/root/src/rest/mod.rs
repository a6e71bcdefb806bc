//! HTTP: two forms of one interface.
//!
//! - [`oakestra`] under `/api/`: what Oakestra's clients know, quirks included;
//! - [`v1`] under `/api/v1/`: the clean form.
//!
//! Both look at the state through the same functions and refuse for the same reasons; they
//! differ in how they say it. What a path means is decided here: a slash at the end never
//! matters, and no redirect is ever sent.

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
use axum::routing::MethodRouter;
use marram_rest::problem::Problem;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Streams that clients hold open: events, logs, exec. Each costs a task and a connection.
pub const WATCHERS_MAX: usize = 128;

/// What handlers need.
#[derive(Debug, Clone)]
pub struct Rest {
    /// The owner of the state.
    pub handle: Handle,
    /// Users.
    pub auth: Arc<Auth>,
    /// Time.
    pub clock: Clock,
    /// Turns true when the root is asked to end.
    pub stopping: watch::Receiver<bool>,
    watchers: Arc<Semaphore>,
}

impl Rest {
    /// Over a running shell.
    pub fn new(
        handle: Handle,
        auth: Arc<Auth>,
        clock: Clock,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let watchers = Arc::new(Semaphore::new(WATCHERS_MAX));
        Self { handle, auth, clock, stopping, watchers }
    }

    /// A place among those who hold a stream open.
    fn watcher(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let full = |_| Refusal::Busy(format!("{WATCHERS_MAX} streams are open already"));
        self.watchers.clone().try_acquire_owned().map_err(full)
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

/// A path with and without a slash at the end.
fn both(router: Router<Rest>, path: &str, methods: MethodRouter<Rest>) -> Router<Rest> {
    router.route(path, methods.clone()).route(&format!("{path}/"), methods)
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
