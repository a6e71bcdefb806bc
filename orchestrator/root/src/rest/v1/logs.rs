//! Kept output of an instance, and with `follow` what comes.
//!
//! The bytes stream from the node through the tiers into this response; how fast they are
//! read decides how fast they are sent.

use super::super::Rest;
use super::caller::Caller;
use super::calls::parse;
use super::events::response;
use crate::shell::{Piece, Stream, refusal};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{StreamEnd, StreamRequest};
use marram_rest::problem::Answer;
use marram_rest::server::stopped;
use serde::Deserialize;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// So long the response waits for the first output, to be able to say by its status that
/// there is none to be had. An instance may be silent for longer.
const FIRST_TIME_MAX: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
pub(super) struct Options {
    tail: Option<u32>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn logs(
    State(rest): State<Rest>,
    Caller(access): Caller,
    Path(id): Path<String>,
    Query(options): Query<Options>,
) -> Answer {
    let instance: InstanceId = parse("instance", &id)?;
    let place = rest.watcher()?;
    let link = rest.handle.read(move |view| view.route(&access, instance)).await??;
    let Options { tail: tail_lines, follow } = options;
    let mut stream = link.open(StreamRequest::Logs { instance, tail_lines, follow }).await?;
    let first = tokio::time::timeout(FIRST_TIME_MAX, stream.next()).await.ok();
    if let Some(Piece::End(StreamEnd::Fault(fault, why))) = first {
        return Err(refusal(fault, &why).into());
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        // Whatever ends first ends the stream, and dropping it ends it on the node.
        tokio::select! {
            () = copy(stream, first, &sender) => {}
            () = sender.closed() => {}
            () = stopped(rest.stopping) => {}
        }
        drop(place);
    });
    Ok(response("application/octet-stream", Body::from_stream(ReceiverStream::new(receiver))))
}

async fn copy(
    mut stream: Stream,
    first: Option<Piece>,
    sender: &mpsc::Sender<Result<Bytes, io::Error>>,
) {
    let mut next = first;
    loop {
        let piece = match next.take() {
            Some(piece) => piece,
            None => stream.next().await,
        };
        let sent = match piece {
            Piece::Data(_, bytes) => sender.send(Ok(bytes.into())).await,
            // A response that breaks off tells the client that there was more.
            Piece::End(StreamEnd::Fault(_, why)) => {
                drop(sender.send(Err(io::Error::other(why))).await);
                return;
            }
            Piece::End(StreamEnd::Done | StreamEnd::Exited(_)) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}
