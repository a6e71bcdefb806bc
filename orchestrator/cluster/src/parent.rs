//! The way up: dials the parent, keeps dialling, and carries messages.
//!
//! Two queues lead up: state, which goes first, and output of streams, which waits. A parent
//! that does not take state is cut off and told everything when it is back, so that nothing
//! grows without bound.

use marram_protocol::v1::{Down, Up};
use marram_tunnel::{Backoff, Dialer, ParentConnection, SendError, Sender};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// State that waits for a slow connection: the snapshot of a full cluster takes 50 messages.
const CONTROL_QUEUE_MAX: usize = 512;

/// Output that waits: a quarter of a MiB of the longest pieces.
const STREAM_QUEUE_MAX: usize = 16;

/// A connection that has lasted this long was a good one: the next pause is a short one.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// What the shell hears of its parent.
#[derive(Debug)]
pub(crate) enum ParentEvent {
    /// There is a connection.
    Up(ParentLink),
    /// It said something on the connection of that number.
    Said(u64, Down),
    /// That connection is gone.
    Gone(u64),
}

/// The shell's end of a connection. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct ParentLink {
    /// Tells this connection from earlier ones.
    pub(crate) serial: u64,
    /// For state.
    pub(crate) control: mpsc::Sender<Up>,
    /// For output of streams.
    pub(crate) streams: mpsc::Sender<Up>,
}

/// Connects and connects again, until dropped or until nobody listens.
pub(crate) async fn keep(dialer: Dialer, events: mpsc::Sender<ParentEvent>) {
    let mut backoff = Backoff::default();
    // A parent that is away for days is no news every minute.
    let mut told = None;
    for serial in 1.. {
        match dialer.connect().await {
            Ok(connection) => {
                told = None;
                tracing::info!(parent = dialer.url(), "connected");
                let since = Instant::now();
                let why = carry(connection, serial, &events).await;
                tracing::warn!(parent = dialer.url(), "disconnected: {why}");
                if since.elapsed() >= WELL_AFTER {
                    backoff.reset();
                }
                if events.send(ParentEvent::Gone(serial)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    tracing::warn!("{error}; trying again and again");
                }
                told = Some(error);
            }
        }
        // Without randomness all siblings come back together, which a parent survives.
        let random = getrandom::u64().unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(backoff.next_ms(random))).await;
    }
}

/// Serves one connection, and says why it ended.
async fn carry(
    connection: ParentConnection,
    serial: u64,
    events: &mpsc::Sender<ParentEvent>,
) -> String {
    let ParentConnection { sender, mut receiver } = connection;
    let (control, from_shell) = mpsc::channel(CONTROL_QUEUE_MAX);
    let (streams, from_streams) = mpsc::channel(STREAM_QUEUE_MAX);
    let link = ParentLink { serial, control, streams };
    if events.send(ParentEvent::Up(link)).await.is_err() {
        return "this cluster is stopping".to_owned();
    }
    let listen = async {
        loop {
            match receiver.recv().await {
                Ok(Some(message)) => {
                    if events.send(ParentEvent::Said(serial, message)).await.is_err() {
                        return "this cluster is stopping".to_owned();
                    }
                }
                Ok(None) => return "the parent ended the connection".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    };
    // When one direction ends the connection is of no use, so the other is given up.
    tokio::select! {
        why = listen => why,
        why = speak(&sender, from_shell, from_streams) => why,
    }
}

async fn speak(
    sender: &Sender<Up>,
    mut from_shell: mpsc::Receiver<Up>,
    mut from_streams: mpsc::Receiver<Up>,
) -> String {
    loop {
        // Receiving from a queue can be given up without loss.
        let message = tokio::select! {
            biased;
            message = from_shell.recv() => message,
            Some(message) = from_streams.recv() => Some(message),
        };
        let Some(message) = message else { return "given up by this cluster".to_owned() };
        match sender.send(&message).await {
            Ok(()) => {}
            // The core keeps its messages below the limit; the parent has to be told anew.
            Err(error @ (SendError::Message(_) | SendError::Ended | SendError::Full)) => {
                return error.to_string();
            }
        }
    }
}
