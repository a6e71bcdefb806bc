//! Nodes, asked of the clusters at the moment somebody wants to see them.
//!
//! Who runs a site looks at nodes now and then; what travels up all the time is sums only.
//! Clusters are asked at once, and one that does not answer is named beside those that do.

use super::super::Rest;
use super::caller::Caller;
use crate::refusal::Refusal;
use crate::shell::{Link, collect};
use axum::extract::{Path, State};
use marram_protocol::id::ChildId;
use marram_protocol::v1::StreamRequest;
use marram_rest::problem::{Answer, ok};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// So long a cluster may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Answer of one cluster: 10 000 nodes with 800 bytes each.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) async fn nodes(State(rest): State<Rest>, caller: Caller) -> Answer {
    let (items, missing) = ask(&rest, &caller).await?;
    Ok(ok(&json!({"items": items, "missing": missing})))
}

pub(super) async fn node(
    State(rest): State<Rest>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer {
    let wanted: ChildId = super::calls::parse("node", &id)?;
    let (items, missing) = ask(&rest, &caller).await?;
    let is_wanted = |node: &Value| node["node_id"].as_str() == Some(&wanted.to_string());
    match items.into_iter().find(is_wanted) {
        Some(node) => Ok(ok(&node)),
        None if missing.is_empty() => Err(Refusal::not_found("node", wanted).into()),
        None => {
            Err(Refusal::Busy("a cluster that may know the node does not answer".into()).into())
        }
    }
}

/// Nodes, and clusters that did not answer.
async fn ask(rest: &Rest, _: &Caller) -> Result<(Vec<Value>, Vec<Value>), Refusal> {
    let clusters = rest.handle.read(|view| view.links()).await?;
    let until = Instant::now() + ANSWER_TIME_MAX;
    let mut asked = JoinSet::new();
    for (name, link) in clusters {
        asked.spawn(async move {
            let answer = ask_one(&link, until).await;
            (link.child(), name, answer)
        });
    }
    let (mut items, mut missing) = (Vec::new(), Vec::new());
    while let Some(answered) = asked.join_next().await {
        let (id, name, answer) = answered.map_err(|error| Refusal::Internal(error.to_string()))?;
        let cluster = json!({"id": id, "name": name});
        match answer {
            Ok(nodes) => items.extend(nodes.into_iter().map(|mut node| {
                node["cluster"] = cluster.clone();
                node
            })),
            Err(why) => missing.push(json!({"cluster": cluster, "reason": why.detail()})),
        }
    }
    let name = |node: &Value| node["name"].as_str().unwrap_or_default().to_owned();
    items.sort_by_key(name);
    Ok((items, missing))
}

async fn ask_one(link: &Arc<Link>, until: Instant) -> Result<Vec<Value>, Refusal> {
    let late = |_| Refusal::Busy("the cluster did not answer in time".to_owned());
    let open = link.open(StreamRequest::Children);
    let stream = tokio::time::timeout_at(until, open).await.map_err(late)??;
    let bytes = collect(stream, ANSWER_BYTES_MAX, until).await?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let objects = lines.map(|line| match serde_json::from_slice(line) {
        Ok(node @ Value::Object(_)) => Ok(node),
        _ => Err(Refusal::Internal("the cluster's answer is no list of objects".to_owned())),
    });
    objects.collect()
}
