//! The calls of Oakestra's form, one function each.

use super::super::{Rest, bearer};
use super::answer::{
    Answer, Caller, Error, ServiceCaller, doubly_encoded, not_authenticated, object, raw,
};
use super::{logs, objects};
use crate::auth::{Access, PASSWORD_BYTES_MAX, RefreshError};
use crate::catalog::{Draft, Service};
use crate::clock::unix_s;
use crate::refusal::Refusal;
use crate::shell::View;
use crate::view;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use marram_protocol::id::{ApplicationId, InstanceId, ServiceId};
use marram_protocol::sla::SLA_BYTES_MAX;
use marram_rest::body;
use marram_rest::server::Peer;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};

/// A login: names and a password, with room for what else clients send along.
const LOGIN_BYTES_MAX: usize = 4 * PASSWORD_BYTES_MAX;

/// The one organization there is.
const ORGANIZATION: &str = "root";

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
    #[serde(default)]
    organization_name: String,
    #[serde(default)]
    organization: String,
}

pub(super) async fn login(
    State(rest): State<Rest>,
    Extension(Peer(from)): Extension<Peer>,
    body: Body,
) -> Answer {
    let bytes = body::read(body, LOGIN_BYTES_MAX).await?;
    let login: Login = serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::BadRequest(format!("the body is no login: {error}")))?;
    for name in [login.organization_name, login.organization] {
        if !name.is_empty() && name != ORGANIZATION {
            return Err(Refusal::not_found("organization", name).into());
        }
    }
    let (now_ms, now_s) = (rest.clock.now().mono_ms, unix_s());
    // It listens on TCP only.
    let from = from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let tokens = rest.auth.login(from, &login.username, &login.password, now_ms, now_s).await?;
    Ok(object(&json!({"refresh_token": tokens.refresh, "token": tokens.access})))
}

pub(super) async fn refresh(State(rest): State<Rest>, headers: HeaderMap) -> Answer {
    match rest.auth.refresh(bearer(&headers), unix_s()) {
        Ok(token) => Ok(object(&json!({"token": token}))),
        Err(RefreshError::Token(error)) => Ok(not_authenticated(&error)),
        Err(RefreshError::Refused(refusal)) => Err(refusal.into()),
    }
}

pub(super) async fn applications(State(rest): State<Rest>, Caller(access): Caller) -> Answer {
    access.require_admin()?;
    let all = rest.handle.read(move |view| list_applications(view, &access, None)).await?;
    Ok(doubly_encoded(&all))
}

pub(super) async fn applications_of(
    State(rest): State<Rest>,
    Caller(access): Caller,
    Path(user): Path<String>,
) -> Answer {
    if !access.may(&user) {
        return Err(Refusal::Unauthorized(user).into());
    }
    let all = rest.handle.read(move |view| list_applications(view, &access, Some(&user))).await?;
    Ok(doubly_encoded(&all))
}

pub(super) async fn create_application(
    State(rest): State<Rest>,
    Caller(access): Caller,
    body: Body,
) -> Answer {
    let draft = Draft::parse(&body::read(body, SLA_BYTES_MAX).await?)?;
    rest.handle.create(access.clone(), draft).await?;
    // All of the user's applications, not only the new one: clients search in it.
    let look = move |view: &View<'_>| list_applications(view, &access, Some(access.user()));
    Ok(doubly_encoded(&rest.handle.read(look).await?))
}

fn list_applications(view: &View<'_>, access: &Access, owner: Option<&str>) -> Value {
    let all = view.catalog.applications(access);
    let wanted = all.filter(|application| owner.is_none_or(|owner| application.owner == owner));
    let members = |id| view.catalog.members(id);
    wanted.map(|one| objects::application(one, members(one.id))).collect()
}

pub(super) async fn application(
    State(rest): State<Rest>,
    Caller(access): Caller,
    Path(id): Path<String>,
) -> Answer {
    let id = application_id(&id)?;
    let look = move |view: &View<'_>| {
        let found = view.catalog.application(&access, id)?;
        Ok::<_, Refusal>(objects::application(found, view.catalog.members(id)))
    };
    Ok(doubly_encoded(&rest.handle.read(look).await??))
}

pub(super) async fn delete_application(
    State(rest): State<Rest>,
    Caller(access): Caller,
    Path(id): Path<String>,
) -> Answer {
    rest.handle.remove_application(access, application_id(&id)?).await?;
    Ok(object(&json!({"message": "Application Deleted"})))
}

pub(super) async fn services(
    State(rest): State<Rest>,
    ServiceCaller(access): ServiceCaller,
) -> Answer {
    access.require_admin()?;
    let look = move |view: &View<'_>| -> Result<Value, Refusal> {
        view.catalog.services(&access).map(|service| encode_service(view, service)).collect()
    };
    Ok(doubly_encoded(&rest.handle.read(look).await??))
}

pub(super) async fn services_of(
    State(rest): State<Rest>,
    ServiceCaller(access): ServiceCaller,
    Path(id): Path<String>,
) -> Answer {
    let id = application_id(&id)?;
    let look = move |view: &View<'_>| -> Result<Value, Refusal> {
        view.catalog.application(&access, id)?;
        let services = view.catalog.members(id);
        services.map(|id| encode_service(view, view.catalog.service(&access, id)?)).collect()
    };
    Ok(doubly_encoded(&rest.handle.read(look).await??))
}

pub(super) async fn service(
    State(rest): State<Rest>,
    ServiceCaller(access): ServiceCaller,
    Path(id): Path<String>,
) -> Answer {
    let id = service_id(&id)?;
    let look = move |view: &View<'_>| {
        let service = view.catalog.service(&access, id)?;
        let sources = logs::sources(view, &access, service);
        Ok::<_, Refusal>((encode_service(view, service)?, sources))
    };
    let (mut service, sources) = rest.handle.read(look).await??;
    logs::fill_in(&mut service, sources).await;
    Ok(doubly_encoded(&service))
}

fn encode_service(view: &View<'_>, service: &Service) -> Result<Value, Refusal> {
    let next = view.catalog.next_instance_number(service.id);
    objects::service(service, next, &view::instances_of(view.tier, service))
}

pub(super) async fn add_services(
    State(rest): State<Rest>,
    ServiceCaller(access): ServiceCaller,
    body: Body,
) -> Answer {
    let draft = Draft::parse(&body::read(body, SLA_BYTES_MAX).await?)?.single()?;
    let named = draft.named.ok_or_else(|| {
        let why = "applicationID is needed, to say which application the services are added to";
        Refusal::BadRequest(why.to_owned())
    })?;
    let names: Vec<String> = draft.services.iter().map(|service| service.name.clone()).collect();
    let ids = rest.handle.add_services(access, named, draft.services).await?;
    let deployed: Vec<_> =
        names.iter().map(|name| json!({"service_name": name, "status": 200})).collect();
    Ok(object(&json!({
        "job_id": ids.first().map(ToString::to_string).unwrap_or_default(),
        "deployed_services": deployed,
        "failed_services": [],
    })))
}

pub(super) async fn delete_service(
    State(rest): State<Rest>,
    ServiceCaller(access): ServiceCaller,
    Path(id): Path<String>,
) -> Answer {
    rest.handle.remove_service(access, service_id(&id)?).await?;
    Ok(object(&json!({"message": "Job deleted"})))
}

/// Some clients send the service as body, others nothing; it has never been looked at.
pub(super) async fn deploy(
    State(rest): State<Rest>,
    ServiceCaller(access): ServiceCaller,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    body::read(body, SLA_BYTES_MAX).await?;
    rest.handle.deploy(access, service_id(&id)?).await?;
    Ok(done())
}

/// `-1` stands for all instances.
pub(super) async fn undeploy(
    State(rest): State<Rest>,
    ServiceCaller(access): ServiceCaller,
    Path((id, number)): Path<(String, String)>,
) -> Answer {
    let service = service_id(&id)?;
    if number == "-1" {
        rest.handle.remove_instances(access, service).await?;
        return Ok(done());
    }
    let unknown = |_| Refusal::not_found("instance", format!("{service}.{number}"));
    let number = number.parse().map_err(unknown)?;
    rest.handle.remove_instance(access, InstanceId { service, number }).await?;
    Ok(done())
}

fn done() -> Response {
    object(&json!({"message": "ok"}))
}

pub(super) async fn clusters(State(rest): State<Rest>) -> Answer {
    list_clusters(&rest, false).await
}

pub(super) async fn active_clusters(State(rest): State<Rest>) -> Answer {
    list_clusters(&rest, true).await
}

async fn list_clusters(rest: &Rest, active_only: bool) -> Answer {
    let look = move |view: &View<'_>| -> Value {
        let all = view.tier.children().values();
        let wanted = all.filter(|child| !active_only || child.is_connected());
        let now = view.now.unix_ms;
        wanted.map(|child| objects::cluster(&view::cluster(child, now))).collect()
    };
    Ok(raw(&rest.handle.read(look).await?))
}

fn application_id(text: &str) -> Result<ApplicationId, Error> {
    Ok(text.parse().map_err(|_| Refusal::not_found("application", text))?)
}

fn service_id(text: &str) -> Result<ServiceId, Error> {
    Ok(text.parse().map_err(|_| Refusal::not_found("service", text))?)
}
