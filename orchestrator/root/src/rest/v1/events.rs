//! Changes of instances as they come: `text/event-stream`.
//!
//! ```text
//!  event: instance   one for each that is there
//!  event: ready      from here on it is news
//!  event: instance   it is other than before
//!  event: removed    it is gone
//! ```
//!
//! A watcher that reads too slowly is not fed from an ever longer queue: it is told again
//! what is there, and what of it is gone.

use super::super::Rest;
use crate::auth::Access;
use crate::refusal::Refusal;
use crate::shell::{Change, View};
use crate::view::InstanceView;
use axum::body::{Body, Bytes};
use axum::extract::State;
use marram_protocol::id::InstanceId;
use marram_rest::calls::endless;
use marram_rest::front::Caller;
use marram_rest::problem::Answer;
use marram_rest::server::stopped;
use marram_rest::view::instance_json;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// A line that says nothing, so that either side notices when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events on their way to the connection.
const QUEUE_MAX: usize = 16;

type Sender = mpsc::Sender<Result<Bytes, Infallible>>;

pub(super) async fn events(State(rest): State<Rest>, Caller(access): Caller<Rest>) -> Answer {
    let place = rest.gate.watcher()?;
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let (all, changes) = look(&rest, &access).await?;
    tokio::spawn(async move {
        let stopping = stopped(rest.gate.stopping.clone());
        // Whatever ends first ends the stream; nothing of it has to be kept.
        tokio::select! {
            _ = follow(&rest, &access, &sender, all, changes) => {}
            () = stopping => {}
        }
        drop(place);
    });
    Ok(endless("text/event-stream", Body::from_stream(ReceiverStream::new(receiver))))
}

type Snapshot = (Vec<InstanceView>, broadcast::Receiver<Arc<Change>>);

/// All instances, and every change after that moment.
async fn look(rest: &Rest, access: &Access) -> Result<Snapshot, Refusal> {
    let access = access.clone();
    rest.handle.read(move |view: &View<'_>| (view.instances(&access), view.subscribe())).await
}

/// Ends when the client has gone, or the root.
async fn follow(
    rest: &Rest,
    access: &Access,
    sender: &Sender,
    all: Vec<InstanceView>,
    mut changes: broadcast::Receiver<Arc<Change>>,
) -> Option<()> {
    let mut known = BTreeSet::new();
    tell_all(sender, all, &mut known).await?;
    send(sender, "ready", &json!({})).await?;
    loop {
        let change = match tokio::time::timeout(HEARTBEAT, changes.recv()).await {
            Err(_) => {
                sender.send(Ok(Bytes::from_static(b":\n\n"))).await.ok()?;
                continue;
            }
            Ok(Ok(change)) => change,
            Ok(Err(broadcast::error::RecvError::Lagged(_))) => {
                let (all, later) = look(rest, access).await.ok()?;
                changes = later;
                tell_all(sender, all, &mut known).await?;
                continue;
            }
            Ok(Err(broadcast::error::RecvError::Closed)) => return None,
        };
        if !access.may(&change.owner) {
            continue;
        }
        match &change.now {
            Some(view) => {
                known.insert(change.id);
                send(sender, "instance", &instance_json(view)).await?;
            }
            None => {
                known.remove(&change.id);
                removed(sender, change.id).await?;
            }
        }
    }
}

/// Tells what is there, and what was there and is not.
async fn tell_all(
    sender: &Sender,
    all: Vec<InstanceView>,
    known: &mut BTreeSet<InstanceId>,
) -> Option<()> {
    let now: BTreeSet<InstanceId> = all.iter().map(|view| view.id).collect();
    let gone: Vec<InstanceId> = known.difference(&now).copied().collect();
    for id in gone {
        removed(sender, id).await?;
    }
    for view in &all {
        send(sender, "instance", &instance_json(view)).await?;
    }
    *known = now;
    Some(())
}

async fn removed(sender: &Sender, id: InstanceId) -> Option<()> {
    send(sender, "removed", &json!({"instance_id": id.to_string()})).await
}

async fn send(sender: &Sender, event: &str, data: &Value) -> Option<()> {
    // JSON on one line: it has no line ends of its own.
    let text = format!("event: {event}\ndata: {data}\n\n");
    sender.send(Ok(Bytes::from(text))).await.ok()
}

#[cfg(test)]
mod tests;
