//! Instances, all that the caller may see.

use super::{items, parse};
use crate::front::{Caller, Front, Sight};
use crate::problem::{Answer, ok};
use crate::refusal::Refusal;
use crate::view::{InstanceView, instance as view, instance_json};
use axum::extract::{Path, State};
use marram_protocol::id::InstanceId;
use serde_json::Value;

pub(super) async fn instances<F: Front>(
    State(front): State<F>,
    Caller(caller): Caller<F>,
) -> Answer {
    let look = move |sight: &dyn Sight<F::Caller>| -> Vec<Value> {
        let ids = sight.tier().instances().keys();
        ids.filter_map(|id| Some(instance_json(&seen(sight, &caller, *id).ok()?))).collect()
    };
    Ok(items(front.look(look).await?))
}

pub(super) async fn instance<F: Front>(
    State(front): State<F>,
    Caller(caller): Caller<F>,
    Path(id): Path<String>,
) -> Answer {
    let id: InstanceId = parse("instance", &id)?;
    let found = front.look(move |sight| seen(sight, &caller, id)).await??;
    Ok(ok(&instance_json(&found)))
}

/// An instance that the caller may see.
pub(super) fn seen<C>(
    sight: &dyn Sight<C>,
    caller: &C,
    id: InstanceId,
) -> Result<InstanceView, Refusal> {
    let application = sight.permit(caller, id)?;
    view(sight.tier(), application, id).ok_or_else(|| Refusal::not_found("instance", id))
}
