//! `POST /api/v1/operations`: cordon, uncordon, drain, forget, rebalance, at any place of the
//! tree.
//!
//! Everything is resolved before anything is sent; then each that is meant is asked once, and
//! the answer says of each how it went.

use super::nodes;
use crate::body;
use crate::front::{Caller, Front};
use crate::problem::{Answer, ok};
use crate::refusal::Refusal;
use crate::targets::{Node, TARGETS_MAX, Target, Wish};
use crate::tree::Tree;
use axum::body::Body;
use axum::extract::State;
use marram_protocol::selector::Selector;
use marram_protocol::v1::{OperationEnd, Verb};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A request: [`TARGETS_MAX`] texts of the longest form.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Operations under way for one request: the tiers remember each until it is answered.
const UNDER_WAY_MAX: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    verb: String,
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    selector: String,
    #[serde(default)]
    nodes: bool,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn operate<F: Front>(
    State(front): State<F>,
    Caller(caller): Caller<F>,
    body: Body,
) -> Answer {
    front.require_operator(&caller)?;
    let body = body::read(body, BODY_BYTES_MAX).await?;
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| Refusal::BadRequest(format!("the body is no operation: {error}")))?;
    let dry_run = request.dry_run;
    let verb = request.verb.clone();
    let wish = wish(request)?;
    let targets = resolve(&front, &wish).await?;
    let items = match dry_run {
        true => targets.iter().map(|target| item(target, "matched", "")).collect(),
        false => perform(&front, targets).await?,
    };
    Ok(ok(&json!({"verb": verb, "dry_run": dry_run, "items": items})))
}

fn wish(request: Request) -> Result<Wish, Refusal> {
    let verb = match request.verb.as_str() {
        "cordon" => Verb::Cordon,
        "uncordon" => Verb::Uncordon,
        "drain" => Verb::Drain,
        "forget" => Verb::Forget,
        "rebalance" => Verb::Rebalance,
        other => {
            let other: String = other.chars().take(64).collect();
            return Err(Refusal::BadRequest(format!(
                "verb must be cordon, uncordon, drain, forget or rebalance, got {other:?}"
            )));
        }
    };
    let selector: Option<Selector> = match request.selector.as_str() {
        "" => None,
        text => {
            let wrong = |error| Refusal::BadRequest(format!("{error}"));
            Some(text.parse::<Selector>().map_err(wrong)?)
        }
    };
    let count = request.targets.len();
    if count > TARGETS_MAX {
        let why = format!("at most {TARGETS_MAX} targets are taken at once, got {count}");
        return Err(Refusal::BadRequest(why));
    }
    if count == 0 && selector.is_none() && verb != Verb::Rebalance {
        let why = "targets or a selector are needed, to say with whom".to_owned();
        return Err(Refusal::BadRequest(why));
    }
    Ok(Wish { verb, targets: request.targets, selector, nodes: request.nodes })
}

async fn resolve<F: Front>(front: &F, wish: &Wish) -> Result<Vec<Target>, Refusal> {
    let tree = front.look(|sight| Tree::of(sight.tier())).await?;
    if !wish.needs_nodes(&tree) {
        return wish.resolve(&tree, &[]);
    }
    let (nodes, missing) = nodes::ask(front).await?;
    let nodes: Vec<Node> = nodes.iter().filter_map(Node::read).collect();
    wish.resolve(&tree, &nodes).map_err(|refusal| match refusal {
        Refusal::NotFound { .. } if !missing.is_empty() => {
            let silent = missing.iter().filter_map(|one| one["cluster"]["path"].as_str());
            let silent = silent.take(8).collect::<Vec<_>>().join(", ");
            Refusal::Absent(format!("{}; these did not answer: {silent}", refusal.detail()))
        }
        refusal => refusal,
    })
}

/// Each once, some at a time, answered in the order of the targets.
async fn perform<F: Front>(front: &F, targets: Vec<Target>) -> Result<Vec<Value>, Refusal> {
    let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut under_way = JoinSet::new();
    for (number, target) in targets.into_iter().enumerate() {
        let (front, places) = (front.clone(), places.clone());
        under_way.spawn(async move {
            // Nobody closes it.
            let _place = places.acquire_owned().await.ok();
            let end = front.operate(target.order.clone()).await;
            let end = end.unwrap_or_else(|refusal| OperationEnd::Refused(refusal.detail()));
            (number, ended(&target, &end))
        });
    }
    let mut items = Vec::new();
    while let Some(done) = under_way.join_next().await {
        items.push(done.map_err(|error| Refusal::Internal(error.to_string()))?);
    }
    items.sort_by_key(|(number, _)| *number);
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

fn ended(target: &Target, end: &OperationEnd) -> Value {
    match end {
        OperationEnd::Done => item(target, "done", ""),
        OperationEnd::Unreachable(why) => item(target, "unreachable", why),
        OperationEnd::NotFound(why) => item(target, "not_found", why),
        OperationEnd::Refused(why) => item(target, "refused", why),
    }
}

fn item(target: &Target, result: &str, detail: &str) -> Value {
    json!({
        "target": target.path,
        "kind": target.kind,
        "id": target.id,
        "result": result,
        "detail": detail,
    })
}
