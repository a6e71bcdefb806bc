//! The clusters of the whole tree, and those that come from another one.

use super::{items, parse};
use crate::front::{Caller, Front, Sight};
use crate::problem::{Answer, json_response, ok};
use crate::refusal::Refusal;
use crate::tree::{self, Tree};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use marram_orchestrator_core::Foreign;
use marram_protocol::id::ChildId;
use marram_protocol::v1::ChildKind;
use serde_json::{Value, json};

pub(super) async fn clusters<F: Front>(State(front): State<F>, _: Caller<F>) -> Answer {
    let look = |sight: &dyn Sight<F::Caller>| -> Vec<Value> {
        let (tier, tree) = (sight.tier(), Tree::of(sight.tier()));
        let all = tree.branches.iter();
        all.map(|branch| tree::cluster(tier, &tree, branch, sight.now())).collect()
    };
    Ok(items(front.look(look).await?))
}

pub(super) async fn cluster<F: Front>(
    State(front): State<F>,
    _: Caller<F>,
    Path(id): Path<String>,
) -> Answer {
    let id: ChildId = parse("cluster", &id)?;
    let look = move |sight: &dyn Sight<F::Caller>| {
        let (tier, tree) = (sight.tier(), Tree::of(sight.tier()));
        let branch = tree.get(id)?;
        Some(tree::cluster(tier, &tree, branch, sight.now()))
    };
    let found = front.look(look).await?;
    Ok(ok(&found.ok_or_else(|| Refusal::not_found("cluster", id))?))
}

/// Children of another tree, which are refused until an operator takes them.
pub(super) async fn foreign<F: Front>(State(front): State<F>, _: Caller<F>) -> Answer {
    let look = |sight: &dyn Sight<F::Caller>| -> Vec<Value> {
        sight.tier().foreign().map(|found| foreign_json(&found)).collect()
    };
    Ok(items(front.look(look).await?))
}

fn foreign_json(foreign: &Foreign) -> Value {
    let kind = match foreign.kind {
        ChildKind::Node => "node",
        ChildKind::Cluster => "cluster",
    };
    json!({
        "id": foreign.id,
        "kind": kind,
        "name": foreign.name,
        "tree": format!("{:016x}", foreign.tree),
        "seen_unix_ms": foreign.seen_unix_ms,
        "released": foreign.released,
    })
}

pub(super) async fn adopt<F: Front>(
    State(front): State<F>,
    Caller(caller): Caller<F>,
    Path(id): Path<String>,
) -> Answer {
    front.require_operator(&caller)?;
    let id: ChildId = parse("foreign child", &id)?;
    let is_there = move |sight: &dyn Sight<F::Caller>| sight.tier().foreign().any(|f| f.id == id);
    if !front.look(is_there).await? {
        return Err(Refusal::not_found("foreign child", id).into());
    }
    front.adopt(id).await?;
    Ok(json_response(StatusCode::ACCEPTED, &json!({"id": id})))
}
