//! The server's event stream, read in a thread so that the reader can also wait for a time.
//!
//! Why a thread: a blocking read cannot be given a deadline without losing what it read; a
//! channel can. The thread ends with the process or when nobody listens any more.
//!
//! A stream that breaks is opened again: the server begins each with everything there is, so
//! nothing is missed. How long the server may stay away is the listener's decision.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::sse::{Event, Parser};

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A stream is open; what follows begins with everything there is.
    Opened,
    /// An event.
    Event(Event),
    /// No server, or the stream broke; it is being tried again.
    Lost(String),
    /// It cannot go on, for example because the login has run out.
    Failed(Error),
}

/// Events that wait to be handled: a screenful; more only makes the thread wait.
const QUEUE_MAX: usize = 64;

/// Pause before a broken stream is opened again.
const RETRY_MS: u64 = 250;

/// Bytes of one read: a few events.
const READ_BYTES: usize = 16 * 1024;

/// Starts to listen.
pub(crate) fn listen(client: &Client) -> Result<Receiver<Heard>, Error> {
    let (sender, receiver) = sync_channel(QUEUE_MAX);
    let client = client.clone();
    std::thread::Builder::new()
        .name("events".into())
        .spawn(move || run(&client, &sender))
        .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))?;
    Ok(receiver)
}

fn run(client: &Client, sender: &SyncSender<Heard>) {
    loop {
        let heard = match follow(client, sender) {
            Ok(Gone) => return,
            Err(error @ (Error::Unreachable { .. } | Error::Timeout(_))) => {
                Heard::Lost(error.to_string())
            }
            Err(error) => Heard::Failed(error),
        };
        let over = matches!(heard, Heard::Failed(_));
        if sender.send(heard).is_err() || over {
            return;
        }
        std::thread::sleep(Duration::from_millis(RETRY_MS));
    }
}

/// Nobody listens any more.
struct Gone;

fn follow(client: &Client, sender: &SyncSender<Heard>) -> Result<Gone, Error> {
    let mut stream = client.stream("/api/v1/events")?;
    if sender.send(Heard::Opened).is_err() {
        return Ok(Gone);
    }
    let mut parser = Parser::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = stream.read(&mut buffer).map_err(|error| client.lost(&error))?;
        if read == 0 {
            return Err(Error::Unreachable {
                server: client.peer(),
                reason: "it ended the event stream".into(),
            });
        }
        parser.push(&buffer[..read]).map_err(|error| Error::Failed(error.to_string()))?;
        while let Some(event) = parser.next() {
            if sender.send(Heard::Event(event)).is_err() {
                return Ok(Gone);
            }
        }
    }
}
