//! Oakestra's REST interface, as its clients know it.
//!
//! Encodings, kept since clients depend on them: DE is a JSON text that holds JSON, RAW is
//! JSON served as HTML, OBJ is plain JSON. What is broken upstream is right here in a form
//! that clients still read: an application is returned as an object and not as `null`, and
//! unknown ids are 404 with code, status and a message.

mod answer;
mod calls;
mod logs;
mod objects;

pub use answer::Error;

use super::Rest;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use marram_rest::calls::both;

/// All paths of this form.
pub(super) fn routes() -> Router<Rest> {
    let routes = [
        ("/api/auth/login", post(calls::login)),
        ("/api/auth/refresh", post(calls::refresh)),
        ("/api/applications", get(calls::applications)),
        ("/api/applications/{user}", get(calls::applications_of)),
        ("/api/application", post(calls::create_application)),
        ("/api/application/{id}", get(calls::application).delete(calls::delete_application)),
        ("/api/services", get(calls::services)),
        ("/api/services/{application}", get(calls::services_of)),
        ("/api/service", post(calls::add_services)),
        ("/api/service/{id}", get(calls::service).delete(calls::delete_service)),
        ("/api/service/{id}/instance", post(calls::deploy)),
        ("/api/service/{id}/instance/{number}", delete(calls::undeploy)),
        ("/api/clusters", get(calls::clusters)),
        ("/api/clusters/active", get(calls::active_clusters)),
    ];
    let routes = routes.into_iter();
    routes.fold(Router::new(), |all, (path, methods)| both(all, path, methods))
}

/// Whether a path belongs to this form.
pub(super) fn is_ours(path: &str) -> bool {
    path.starts_with("/api/") && path != "/api/v1" && !path.starts_with("/api/v1/")
}

/// Oakestra's dashboard is served from another port, so browsers have to be told that it may
/// read answers. Calls are authorised by a header that no browser adds by itself.
pub(super) async fn cross_origin(request: Request, next: Next) -> Response {
    if !is_ours(request.uri().path()) {
        return next.run(request).await;
    }
    let mut response = match *request.method() {
        Method::OPTIONS => ().into_response(),
        _ => next.run(request).await,
    };
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
