//! Nodes of the whole tree, asked of their clusters at the moment somebody wants to see them.
//!
//! Who runs a site looks at nodes now and then; what travels up all the time is sums only.
//! Clusters are asked side by side, and one that does not answer is named beside those that do.

use super::parse;
use crate::front::{Caller, Front, Sight};
use crate::link::{Link, collect};
use crate::problem::{Answer, ok};
use crate::refusal::Refusal;
use crate::tree::{self, Tree};
use axum::extract::{Path, State};
use marram_protocol::id::ChildId;
use marram_protocol::v1::StreamRequest;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// So long all clusters together may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Answer of one cluster: 10 000 nodes with 800 bytes each.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Clusters asked at once: a quarter of the streams that one connection carries.
const ASKED_MAX: usize = 8;

pub(super) async fn nodes<F: Front>(State(front): State<F>, _: Caller<F>) -> Answer {
    let (items, missing) = ask(&front).await?;
    Ok(ok(&json!({"items": items, "missing": missing})))
}

pub(super) async fn node<F: Front>(
    State(front): State<F>,
    _: Caller<F>,
    Path(id): Path<String>,
) -> Answer {
    let wanted: ChildId = parse("node", &id)?;
    let (items, missing) = ask(&front).await?;
    let is_wanted = |node: &Value| node["node_id"].as_str() == Some(&wanted.to_string());
    match items.into_iter().find(is_wanted) {
        Some(node) => Ok(ok(&node)),
        None if missing.is_empty() => Err(Refusal::not_found("node", wanted).into()),
        None => {
            Err(Refusal::Busy("a cluster that may know the node does not answer".into()).into())
        }
    }
}

/// A cluster to be asked.
struct Asked {
    cluster: Value,
    id: ChildId,
    link: Option<Arc<Link>>,
}

/// Nodes, and clusters that did not answer.
pub(super) async fn ask<F: Front>(front: &F) -> Result<(Vec<Value>, Vec<Value>), Refusal> {
    let (mut items, clusters) = front.look(survey::<F>).await?;
    let until = Instant::now() + ANSWER_TIME_MAX;
    let places = Arc::new(Semaphore::new(ASKED_MAX));
    let mut asked = JoinSet::new();
    let mut missing = Vec::new();
    for Asked { cluster, id, link } in clusters {
        let Some(link) = link else {
            missing.push(json!({"cluster": cluster, "reason": "it is not connected"}));
            continue;
        };
        let places = places.clone();
        asked.spawn(async move {
            // Nobody closes it.
            let _place = places.acquire_owned().await.ok();
            (cluster, ask_one(&link, id, until).await)
        });
    }
    while let Some(answered) = asked.join_next().await {
        let (cluster, answer) = answered.map_err(|error| Refusal::Internal(error.to_string()))?;
        match answer {
            Ok(nodes) => items.extend(nodes.into_iter().map(|mut node| {
                node["cluster"] = cluster.clone();
                node
            })),
            Err(why) => missing.push(json!({"cluster": cluster, "reason": why.detail()})),
        }
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    items.sort_by_key(|node| (text(&node["name"]), text(&node["cluster"]["path"])));
    Ok((items, missing))
}

/// This tier's own nodes, and the clusters to be asked for theirs.
fn survey<F: Front>(sight: &dyn Sight<F::Caller>) -> (Vec<Value>, Vec<Asked>) {
    let (tier, tree) = (sight.tier(), Tree::of(sight.tier()));
    let own = json!({"id": tree.own, "name": tree.name, "path": ""});
    let mut nodes = tree::own_nodes(tier);
    nodes.iter_mut().for_each(|node| node["cluster"] = own.clone());
    let asked = tree.branches.iter().map(|branch| {
        let card = &branch.card;
        Asked {
            cluster: json!({"id": card.id, "name": card.name, "path": branch.path()}),
            id: card.id,
            link: sight.link(branch.via).filter(|_| card.connected),
        }
    });
    (nodes, asked.collect())
}

async fn ask_one(
    link: &Arc<Link>,
    cluster: ChildId,
    until: Instant,
) -> Result<Vec<Value>, Refusal> {
    let late = |_| Refusal::Busy("the cluster did not answer in time".to_owned());
    let open = link.open(StreamRequest::ChildrenOf { cluster });
    let stream = tokio::time::timeout_at(until, open).await.map_err(late)??;
    let bytes = collect(stream, ANSWER_BYTES_MAX, until).await?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let objects = lines.map(|line| match serde_json::from_slice(line) {
        Ok(child @ Value::Object(_)) => Ok(child),
        _ => Err(Refusal::Internal("the cluster's answer is no list of objects".to_owned())),
    });
    let mut children = objects.collect::<Result<Vec<Value>, Refusal>>()?;
    // Its clusters are in the tree already.
    children.retain(|child| child.get("node_id").is_some());
    Ok(children)
}
