//! Why an instance is where it is, or nowhere: every tier on the way says its part.
//!
//! This tier's own part is read from its books; the rest comes from below at that moment. Who
//! cannot be reached is named in its place, so that there is always an answer.

use super::instances::seen;
use super::parse;
use crate::front::{Caller, Front, Sight};
use crate::lines;
use crate::link::{Link, collect_some};
use crate::problem::{Answer, ok};
use crate::refusal::Refusal;
use axum::extract::{Path, State};
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{Missed, StreamRequest};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// So long the tiers below may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// All lines: some KiB for each tier, and there are few.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// What this tier has to say, and whom to ask for the rest.
struct Own {
    name: String,
    state: &'static str,
    path: Vec<Value>,
    link: Option<Arc<Link>>,
    missed: Vec<Missed>,
}

pub(super) async fn explain<F: Front>(
    State(front): State<F>,
    Caller(caller): Caller<F>,
    Path(id): Path<String>,
) -> Answer {
    let instance: InstanceId = parse("instance", &id)?;
    let own = front.look(move |sight| own::<F>(sight, &caller, instance)).await??;
    let mut path = own.path;
    if let Some(link) = own.link {
        let (lines, lost) = below(&link, instance).await;
        path.extend(lines);
        path.extend(lost.map(|why| json!({"tier": null, "unreachable": why})));
    }
    let missed = own.missed.iter().map(|missed| {
        json!({
            "unix_ms": missed.unix_ms,
            "state": missed.state.name(),
            "detail": missed.detail,
        })
    });
    Ok(ok(&json!({
        "instance_id": instance.to_string(),
        "name": own.name,
        "state": own.state,
        "path": path,
        "missed": missed.collect::<Vec<_>>(),
    })))
}

fn own<F: Front>(
    sight: &dyn Sight<F::Caller>,
    caller: &F::Caller,
    id: InstanceId,
) -> Result<Own, Refusal> {
    let view = seen(sight, caller, id)?;
    let tier = sight.tier();
    let own = lines::explanation(tier, F::ROLE, id);
    let own = own.ok_or_else(|| Refusal::not_found("instance", id))?;
    let link = tier.route(id).and_then(|child| sight.link(child));
    let lost = link.is_none().then(|| lines::unreachable(tier, id)).flatten();
    Ok(Own {
        name: view.name,
        state: view.state.name(),
        path: [Some(own), lost].into_iter().flatten().collect(),
        link,
        missed: sight.missed(id),
    })
}

/// What the tiers below say, and why they do not say more.
async fn below(link: &Arc<Link>, instance: InstanceId) -> (Vec<Value>, Option<String>) {
    let until = Instant::now() + ANSWER_TIME_MAX;
    let open = link.open(StreamRequest::Explain { instance });
    let stream = match tokio::time::timeout_at(until, open).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(refusal)) => return (Vec::new(), Some(refusal.detail())),
        Err(_) => return (Vec::new(), Some("it did not answer in time".to_owned())),
    };
    let (bytes, end) = collect_some(stream, ANSWER_BYTES_MAX, until).await;
    let mut lines = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(line @ Value::Object(_)) => lines.push(line),
            _ => return (lines, Some("what it answered is no list of objects".to_owned())),
        }
    }
    (lines, end.err().map(|refusal| refusal.detail()))
}
