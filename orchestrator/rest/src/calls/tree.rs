//! The clusters of the whole tree, and those that come from another one.

use super::{items, parse};
use crate::front::{Caller, Front, Sight};
use crate::problem::{Answer, ok};
use crate::refusal::Refusal;
use crate::tree::{self, Tree};
use axum::extract::{Path, State};
use marram_protocol::id::ChildId;
use serde_json::Value;

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
