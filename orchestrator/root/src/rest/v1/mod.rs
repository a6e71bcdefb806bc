//! The clean form under `/api/v1/`, and the two paths that say whether the root is well.
//!
//! Plain JSON, ids as texts, times in Unix milliseconds, errors as `application/problem+json`.

mod caller;
mod calls;
mod events;
mod exec;
mod logs;
mod nodes;
mod objects;

use super::{Rest, both};
use axum::Router;
use axum::routing::{get, post, put};

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
        ("/api/v1/instances", get(calls::instances)),
        ("/api/v1/instances/{id}", get(calls::instance).delete(calls::delete_instance)),
        ("/api/v1/instances/{id}/logs", get(logs::logs)),
        ("/api/v1/instances/{id}/exec", get(exec::exec)),
        ("/api/v1/clusters", get(calls::clusters)),
        ("/api/v1/clusters/{id}", get(calls::cluster)),
        ("/api/v1/nodes", get(nodes::nodes)),
        ("/api/v1/nodes/{id}", get(nodes::node)),
        ("/api/v1/events", get(events::events)),
    ];
    let routes = routes.into_iter();
    routes.fold(Router::new(), |all, (path, methods)| both(all, path, methods))
}
