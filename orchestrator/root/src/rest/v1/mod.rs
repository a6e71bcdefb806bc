//! The clean form under `/api/v1/`, and the two paths that say whether the root is well.
//!
//! What a cluster answers alike is in `marram-rest`.
//!
//! Plain JSON, ids as texts, times in Unix milliseconds, errors as `application/problem+json`.

mod calls;
mod events;
mod objects;

use super::Rest;
use axum::Router;
use axum::routing::{delete, get, post, put};
use marram_rest::calls::both;

/// All paths of this form.
pub(super) fn routes() -> Router<Rest> {
    let routes = [
        ("/healthz", get(calls::healthy)),
        ("/readyz", get(calls::ready)),
        ("/api/v1/version", get(calls::version)),
        ("/api/v1/apply", post(calls::apply)),
        ("/api/v1/applications", get(calls::applications)),
        ("/api/v1/applications/{id}", get(calls::application).delete(calls::delete_application)),
        ("/api/v1/services", get(calls::services)),
        ("/api/v1/services/{id}", get(calls::service).delete(calls::delete_service)),
        ("/api/v1/services/{id}/instances", post(calls::deploy)),
        ("/api/v1/services/{id}/scale", put(calls::scale)),
        ("/api/v1/instances/{id}", delete(calls::delete_instance)),
        ("/api/v1/events", get(events::events)),
    ];
    let routes = routes.into_iter();
    routes.fold(marram_rest::calls::routes(), |all, (path, methods)| both(all, path, methods))
}
