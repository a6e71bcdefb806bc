//! Kept output of an instance, and with `follow` what comes.
//!
//! The bytes stream from the node through the tiers into this response; how fast they are
//! read decides how fast they are sent.

use super::{parse, route};
use crate::front::{Caller, Front};
use crate::link::{Piece, Stream, refusal};
use crate::problem::Answer;
use crate::server::stopped;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{StreamEnd, StreamRequest};
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

pub(super) async fn logs<F: Front>(
    State(front): State<F>,
    Caller(caller): Caller<F>,
    Path(id): Path<String>,
    Query(options): Query<Options>,
) -> Answer {
    let instance: InstanceId = parse("instance", &id)?;
    let place = front.gate().watcher()?;
    let link = route(&front, caller, instance).await?;
    let Options { tail: tail_lines, follow } = options;
    let mut stream = link.open(StreamRequest::Logs { instance, tail_lines, follow }).await?;
    let first = tokio::time::timeout(FIRST_TIME_MAX, stream.next()).await.ok();
    if let Some(Piece::End(StreamEnd::Fault(fault, why))) = first {
        return Err(refusal(fault, &why).into());
    }
    let (sender, receiver) = mpsc::channel(1);
    let stopping = front.gate().stopping.clone();
    tokio::spawn(async move {
        // Whatever ends first ends the stream, and dropping it ends it on the node.
        tokio::select! {
            () = copy(stream, first, &sender) => {}
            () = sender.closed() => {}
            () = stopped(stopping) => {}
        }
        drop(place);
    });
    Ok(endless("application/octet-stream", Body::from_stream(ReceiverStream::new(receiver))))
}

/// A body without an end that nobody may keep.
pub fn endless(content_type: &'static str, body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
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
