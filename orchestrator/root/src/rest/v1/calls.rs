//! The calls of the clean form that answer at once.

use super::super::Rest;
use super::objects;
use crate::catalog::Draft;
use crate::refusal::Refusal;
use crate::shell::{Applied, View};
use crate::view;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use marram_protocol::id::{ApplicationId, InstanceId, ServiceId};
use marram_protocol::sla::SLA_BYTES_MAX;
use marram_rest::body;
use marram_rest::calls::{items, parse};
use marram_rest::front::Caller;
use marram_rest::problem::{Answer, json_response, ok};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// A root that takes longer for a look at its state is not ready.
const READY_TIME_MAX: Duration = Duration::from_secs(2);

/// `{"replicas": N}`, with room for how a client may write it.
const SCALE_BODY_BYTES_MAX: usize = 1024;

/// The process runs and answers.
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// The owner of the state answers too.
pub(super) async fn ready(State(rest): State<Rest>) -> Response {
    let look = rest.handle.read(|_| ());
    let well = !*rest.gate.stopping.borrow()
        && tokio::time::timeout(READY_TIME_MAX, look).await.is_ok_and(|answer| answer.is_ok());
    match well {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

/// For everybody: a client that cannot log in wants to know with whom it speaks.
pub(super) async fn version() -> Response {
    ok(&json!({"name": "marram-root", "version": env!("CARGO_PKG_VERSION"), "api": "v1"}))
}

pub(super) async fn apply(
    State(rest): State<Rest>,
    Caller(access): Caller<Rest>,
    body: Body,
) -> Answer {
    let draft = Draft::parse(&body::read(body, SLA_BYTES_MAX).await?)?;
    let applied = rest.handle.apply(access.clone(), draft).await?;
    let look = move |view: &View<'_>| -> Result<Value, Refusal> {
        applied.iter().map(|one| encode_applied(view, &access, one)).collect()
    };
    Ok(ok(&json!({"applications": rest.handle.read(look).await??})))
}

fn encode_applied(
    view: &View<'_>,
    access: &crate::auth::Access,
    applied: &Applied,
) -> Result<Value, Refusal> {
    let application = view.catalog.application(access, applied.application)?;
    let services = applied.services.iter().map(|one| {
        let service = view.catalog.service(access, one.service)?;
        Ok(json!({
            "service_id": service.id,
            "name": service.name,
            "namespace": service.namespace,
            "instances": one.instances.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "created": one.created,
        }))
    });
    Ok(json!({
        "application_id": application.id,
        "name": application.name,
        "namespace": application.namespace,
        "services": services.collect::<Result<Vec<_>, Refusal>>()?,
    }))
}

pub(super) async fn applications(State(rest): State<Rest>, Caller(access): Caller<Rest>) -> Answer {
    let look = move |view: &View<'_>| -> Vec<Value> {
        let all = view.catalog.applications(&access);
        all.map(|one| objects::application(one, view.catalog.members(one.id))).collect()
    };
    Ok(items(rest.handle.read(look).await?))
}

pub(super) async fn application(
    State(rest): State<Rest>,
    Caller(access): Caller<Rest>,
    Path(id): Path<String>,
) -> Answer {
    let id: ApplicationId = parse("application", &id)?;
    let look = move |view: &View<'_>| {
        let found = view.catalog.application(&access, id)?;
        Ok::<_, Refusal>(objects::application(found, view.catalog.members(id)))
    };
    Ok(ok(&rest.handle.read(look).await??))
}

pub(super) async fn delete_application(
    State(rest): State<Rest>,
    Caller(access): Caller<Rest>,
    Path(id): Path<String>,
) -> Answer {
    rest.handle.remove_application(access, parse("application", &id)?).await?;
    Ok(accepted(&json!({})))
}

pub(super) async fn services(State(rest): State<Rest>, Caller(access): Caller<Rest>) -> Answer {
    let look = move |view: &View<'_>| -> Result<Vec<Value>, Refusal> {
        view.catalog.services(&access).map(|service| encode_service(view, service)).collect()
    };
    Ok(items(rest.handle.read(look).await??))
}

pub(super) async fn service(
    State(rest): State<Rest>,
    Caller(access): Caller<Rest>,
    Path(id): Path<String>,
) -> Answer {
    let id: ServiceId = parse("service", &id)?;
    let look = move |view: &View<'_>| encode_service(view, view.catalog.service(&access, id)?);
    Ok(ok(&rest.handle.read(look).await??))
}

fn encode_service(view: &View<'_>, service: &crate::catalog::Service) -> Result<Value, Refusal> {
    let next = view.catalog.next_instance_number(service.id);
    objects::service(service, next, view::ids_of(view.tier, service.id))
}

pub(super) async fn delete_service(
    State(rest): State<Rest>,
    Caller(access): Caller<Rest>,
    Path(id): Path<String>,
) -> Answer {
    rest.handle.remove_service(access, parse("service", &id)?).await?;
    Ok(accepted(&json!({})))
}

pub(super) async fn deploy(
    State(rest): State<Rest>,
    Caller(access): Caller<Rest>,
    Path(id): Path<String>,
) -> Answer {
    let instance = rest.handle.deploy(access, parse("service", &id)?).await?;
    Ok(accepted(&json!({"instance_id": instance.to_string()})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    replicas: u32,
}

/// All at once: one transaction, and one change of desired state for each child.
pub(super) async fn scale(
    State(rest): State<Rest>,
    Caller(access): Caller<Rest>,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let id: ServiceId = parse("service", &id)?;
    let body = body::read(body, SCALE_BODY_BYTES_MAX).await?;
    let Scale { replicas } = serde_json::from_slice(&body)
        .map_err(|error| Refusal::BadRequest(format!("the body is no scale: {error}")))?;
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let scaled = rest.handle.scale(access, id, replicas).await?;
    let texts = |ids: &[InstanceId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(accepted(&json!({
        "service_id": id,
        "replicas": scaled.instances.len(),
        "instances": texts(&scaled.instances),
        "added": texts(&scaled.added),
        "removed": texts(&scaled.removed),
    })))
}

pub(super) async fn delete_instance(
    State(rest): State<Rest>,
    Caller(access): Caller<Rest>,
    Path(id): Path<String>,
) -> Answer {
    rest.handle.remove_instance(access, parse("instance", &id)?).await?;
    Ok(accepted(&json!({})))
}

fn accepted(value: &Value) -> Response {
    json_response(StatusCode::ACCEPTED, value)
}
