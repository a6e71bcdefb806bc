//! A further program beside an instance's own, over a WebSocket.
//!
//! Binary frames; the first byte says what the rest is:
//!
//! | byte | direction | rest |
//! |---|---|---|
//! | 0 | to the server | input; empty closes it |
//! | 1 | to the client | standard output |
//! | 2 | to the client | standard error |
//! | 3 | to the client | the end, as JSON: `code`, `signal` or `error` |
//! | 4 | to the server | size of the terminal, as JSON: `rows`, `columns` |
//!
//! Invariant: no more than one frame of the client is held. While the program does not take it
//! the socket is not read, and TCP holds up the client; that it has gone shows then when a ping
//! cannot be sent.

use super::{parse, route};
use crate::front::{Caller, Front};
use crate::link::{Inlet, Piece, Stream};
use crate::problem::{Answer, Problem};
use crate::refusal::Refusal;
use crate::server::stopped;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{
    CHUNK_BYTES_MAX, ExitCause, Output, StreamEnd, StreamFault, StreamRequest,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest frame of a client. Longer input comes in several.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Arguments of a program, as many as a document may name.
const ARGUMENTS_MAX: usize = 512;

/// All arguments together: they travel in one message.
const ARGUMENT_BYTES_MAX: usize = 64 * 1024;

/// A ping, so that either side notices when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(30);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const END: u8 = 3;
const RESIZE: u8 = 4;

/// What the query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    argv: Vec<String>,
    terminal: Option<(u16, u16)>,
}

pub(super) async fn exec<F: Front>(
    State(front): State<F>,
    Caller(caller): Caller<F>,
    Path(id): Path<String>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let instance: InstanceId = parse("instance", &id)?;
    let bad = |error: String| Problem::from(Refusal::BadRequest(error));
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let Wish { argv, terminal } = wish(query)?;
    let place = front.gate().watcher()?;
    let link = route(&front, caller, instance).await?;
    let upgrade = upgrade.map_err(|error| bad(error.body_text()))?;
    let stream = link.open(StreamRequest::Exec { instance, argv, terminal }).await?;
    let upgrade = upgrade
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .read_buffer_size(CHUNK_BYTES_MAX);
    let stopping = front.gate().stopping.clone();
    Ok(upgrade.on_upgrade(async move |mut socket| {
        // Whatever ends first ends the stream, and dropping it ends the program.
        let end = tokio::select! {
            end = copy(stream, &mut socket) => end,
            () = stopped(stopping) => Some(json!({"error": "the program is stopping"})),
        };
        if let Some(end) = end {
            let frame = [&[END], end.to_string().as_bytes()].concat();
            // A client that has gone needs no goodbye.
            drop(socket.send(Message::Binary(frame.into())).await);
            drop(socket.send(Message::Close(None)).await);
        }
        drop(place);
    }))
}

fn wish(query: Vec<(String, String)>) -> Result<Wish, Refusal> {
    let number = |key: &str, text: &str| {
        let wrong = |_| Refusal::BadRequest(format!("{key} must be 0 to 65535, got {text:?}"));
        text.parse::<u16>().map_err(wrong)
    };
    let mut wish = Wish::default();
    let (mut tty, mut rows, mut columns) = (false, 24, 80);
    for (key, value) in query {
        match key.as_str() {
            "arg" => wish.argv.push(value),
            "tty" => match value.as_str() {
                "true" => tty = true,
                "false" => tty = false,
                _ => {
                    let why = format!("tty must be true or false, got {value:?}");
                    return Err(Refusal::BadRequest(why));
                }
            },
            "rows" => rows = number("rows", &value)?,
            "columns" => columns = number("columns", &value)?,
            _ => {}
        }
    }
    let bytes: usize = wish.argv.iter().map(String::len).sum();
    let count = wish.argv.len();
    if count == 0 || count > ARGUMENTS_MAX || bytes > ARGUMENT_BYTES_MAX {
        return Err(Refusal::BadRequest(format!(
            "1 to {ARGUMENTS_MAX} arguments of together at most {ARGUMENT_BYTES_MAX} bytes are \
             needed, got {count} of {bytes}"
        )));
    }
    wish.terminal = tty.then_some((rows, columns));
    Ok(wish)
}

/// Copies both ways; says how the program ended, or nothing if the client has gone.
async fn copy(mut stream: Stream, socket: &mut WebSocket) -> Option<Value> {
    let input = stream.input();
    // Input of the client that the program has not taken.
    let mut held = Bytes::new();
    loop {
        // All of them can be given up without loss.
        tokio::select! {
            piece = stream.next() => match piece {
                Piece::Data(output, bytes) => {
                    let kind = match output {
                        Output::Stdout => STDOUT,
                        Output::Stderr => STDERR,
                    };
                    let frame = [&[kind], bytes.as_slice()].concat();
                    socket.send(Message::Binary(frame.into())).await.ok()?;
                }
                Piece::End(end) => return Some(ending(end)),
            },
            sent = input.send(&held), if !held.is_empty() => match sent {
                Ok(count) => held = held.slice(count..),
                Err(refusal) => return Some(json!({"error": refusal.detail()})),
            },
            message = tokio::time::timeout(HEARTBEAT, hear(socket, held.is_empty())) => match message {
                Err(_) => socket.send(Message::Ping(Bytes::new())).await.ok()?,
                Ok(Some(Ok(Message::Binary(frame)))) => {
                    match take(&input, frame).await {
                        Ok(more) => held = more,
                        Err(refusal) => return Some(json!({"error": refusal.detail()})),
                    }
                }
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(Some(Ok(Message::Text(_)))) => {
                    return Some(json!({"error": "frames must be binary"}));
                }
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return None,
            },
        }
    }
}

/// What the client says next; nothing while it is not its turn.
async fn hear(socket: &mut WebSocket, turn: bool) -> Option<Result<Message, axum::Error>> {
    match turn {
        true => socket.recv().await,
        false => std::future::pending().await,
    }
}

#[derive(Deserialize)]
struct Size {
    rows: u16,
    columns: u16,
}

/// Takes a frame of the client; gives back the input in it.
async fn take(input: &Inlet, frame: Bytes) -> Result<Bytes, Refusal> {
    match frame.split_first() {
        Some((&STDIN, [])) => input.close().await.map(|()| Bytes::new()),
        Some((&STDIN, _)) => Ok(frame.slice(1..)),
        Some((&RESIZE, size)) => {
            let Size { rows, columns } = serde_json::from_slice(size)
                .map_err(|error| Refusal::BadRequest(format!("no terminal's size: {error}")))?;
            input.resize(rows, columns).await.map(|()| Bytes::new())
        }
        _ => Err(Refusal::BadRequest("a frame must begin with 0 (input) or 4 (size)".to_owned())),
    }
}

fn ending(end: StreamEnd) -> Value {
    match end {
        StreamEnd::Exited(ExitCause::Code(code)) => json!({"code": code}),
        StreamEnd::Exited(ExitCause::Signal(signal)) => json!({"signal": signal}),
        StreamEnd::Exited(ExitCause::OutOfMemory) => {
            json!({"error": "the program was ended for its memory limit"})
        }
        StreamEnd::Exited(ExitCause::Lost) => json!({"error": "the program was lost"}),
        StreamEnd::Done => json!({"error": "the stream ended without an exit code"}),
        StreamEnd::Fault(fault, why) => {
            let what = match fault {
                StreamFault::NotFound => "not found",
                StreamFault::Unsupported => "not supported there",
                StreamFault::Unreachable => "not reachable",
                StreamFault::TooMany => "too much at once",
                StreamFault::Failed => "failed",
            };
            json!({"error": format!("{what}: {why}")})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &[(&str, &str)]) -> Result<Wish, Refusal> {
        wish(query.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
    }

    #[test]
    fn arguments_keep_their_order_and_a_terminal_has_a_size() {
        let wish = of(&[("arg", "sh"), ("tty", "true"), ("arg", "-c"), ("rows", "50")]).unwrap();
        assert_eq!(wish.argv, ["sh", "-c"]);
        assert_eq!(wish.terminal, Some((50, 80)));
        assert_eq!(of(&[("arg", "sh"), ("rows", "50")]).unwrap().terminal, None);
    }

    #[test]
    fn senseless_wishes_are_refused() {
        for bad in [
            &[][..],
            &[("arg", "sh"), ("tty", "yes")],
            &[("arg", "sh"), ("rows", "-1")],
            &[("arg", "sh"), ("columns", "65536")],
            &[("arg", "x"); 513],
        ] {
            assert_eq!(of(bad).unwrap_err().status(), 400);
        }
        let long = "x".repeat(ARGUMENT_BYTES_MAX + 1);
        assert_eq!(of(&[("arg", &long)]).unwrap_err().status(), 400);
    }
}
