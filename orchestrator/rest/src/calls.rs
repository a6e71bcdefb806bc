//! The calls that root and cluster answer alike, under `/api/v1/`.

mod exec;
mod explain;
mod instances;
mod logs;
mod nodes;
mod operations;
mod tree;

pub use logs::endless;

use crate::front::{Front, Sight};
use crate::link::Link;
use crate::problem::ok;
use crate::refusal::Refusal;
use axum::Router;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use marram_protocol::id::InstanceId;
use serde_json::{Value, json};
use std::str::FromStr;
use std::sync::Arc;

/// All of them.
pub fn routes<F: Front>() -> Router<F> {
    let routes: [(&str, MethodRouter<F>); 12] = [
        ("/api/v1/instances", get(instances::instances::<F>)),
        ("/api/v1/instances/{id}", get(instances::instance::<F>)),
        ("/api/v1/instances/{id}/explain", get(explain::explain::<F>)),
        ("/api/v1/instances/{id}/logs", get(logs::logs::<F>)),
        ("/api/v1/instances/{id}/exec", get(exec::exec::<F>)),
        ("/api/v1/clusters", get(tree::clusters::<F>)),
        ("/api/v1/clusters/{id}", get(tree::cluster::<F>)),
        ("/api/v1/nodes", get(nodes::nodes::<F>)),
        ("/api/v1/nodes/{id}", get(nodes::node::<F>)),
        ("/api/v1/operations", post(operations::operate::<F>)),
        ("/api/v1/foreign", get(tree::foreign::<F>)),
        ("/api/v1/foreign/{id}/adopt", post(tree::adopt::<F>)),
    ];
    routes.into_iter().fold(Router::new(), |all, (path, methods)| both(all, path, methods))
}

/// A path with and without a slash at the end.
pub fn both<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    path: &str,
    methods: MethodRouter<S>,
) -> Router<S> {
    router.route(path, methods.clone()).route(&format!("{path}/"), methods)
}

/// An id in a path; what is none names nothing.
///
/// # Errors
/// It is none.
pub fn parse<T: FromStr>(what: &'static str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| Refusal::not_found(what, text))
}

/// The way to an instance that the caller may see.
async fn route<F: Front>(
    front: &F,
    caller: F::Caller,
    id: InstanceId,
) -> Result<Arc<Link>, Refusal> {
    let look = move |sight: &dyn Sight<F::Caller>| {
        instances::seen(sight, &caller, id)?;
        let link = sight.tier().route(id).and_then(|child| sight.link(child));
        link.ok_or_else(|| {
            Refusal::Busy(format!("instance {id} is on no child that is connected now"))
        })
    };
    front.look(look).await?
}

/// A list.
pub fn items(items: Vec<Value>) -> Response {
    ok(&json!({"items": items}))
}
