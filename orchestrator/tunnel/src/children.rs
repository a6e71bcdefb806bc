//! The connections of children, as the owner of a tier's state uses them: one task for each,
//! which says hello's name, carries messages both ways and tells of the end.
//!
//! ```text
//!  tunnel ──Up──► output of streams ──► whoever opened them ([`Streams`])
//!                 all else          ──► events ──► owner of the state
//!  tunnel ◄─Down─ control queue of the owner, first
//!                 queue of streams, when that is empty
//! ```
//!
//! Why here: a root and a cluster serve child clusters in the same way, and differ only in what
//! becomes of streams.
//!
//! Invariant: no queue is without bound. A child whose control queue is full is cut off, and is
//! told everything when it is back.

use crate::server::{ChildConnection, Children};
use crate::{Receiver, SendError, Sender};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{ChildKind, Down, Hello, Up};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Messages of desired state that wait for a slow connection: a whole manifest with all its
/// specifications fits. A child that lags further is cut off, and asks again when it is back.
const CONTROL_QUEUE_MAX: usize = 512;

/// From an open stream to the hello on it.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);

/// What becomes of logs and exec on one connection.
pub trait Streams: Sized + Send + Sync + 'static {
    /// For a child that has said hello. What is put into the queue goes to the child when there
    /// is nothing more important.
    fn new(child: ChildId, queue: mpsc::Sender<Down>) -> Self;

    /// How many messages that queue holds.
    const QUEUE_MAX: usize;

    /// Takes what belongs to a stream; gives back what the owner of the state is to hear.
    fn deliver(&self, message: Up) -> Option<Up>;

    /// The connection is gone, and with it every stream.
    fn close(&self);
}

/// What connections tell the owner of the state.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "queues of them are short, and most are large")]
pub enum ChildEvent<S> {
    /// A child has said hello.
    Up {
        /// The way to it.
        outlet: Outlet<S>,
        /// Its hello.
        hello: Hello,
    },
    /// It said something else.
    Said {
        /// Which child.
        child: ChildId,
        /// On which connection.
        serial: u64,
        /// What.
        message: Up,
    },
    /// Its connection is gone.
    Gone {
        /// Which child.
        child: ChildId,
        /// Which connection.
        serial: u64,
    },
}

/// The way to a connected child. Dropping it ends the connection, once what was queued is
/// sent.
#[derive(Debug)]
pub struct Outlet<S> {
    /// Which child.
    pub child: ChildId,
    /// Tells this connection from the ones before and after it.
    pub serial: u64,
    /// Its streams.
    pub streams: Arc<S>,
    control: mpsc::Sender<Down>,
}

/// A child does not take what is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{CONTROL_QUEUE_MAX} messages wait for the child already, or it is gone")]
pub struct CutOff;

impl<S> Outlet<S> {
    /// An outlet and the queue behind it, for tests of owners.
    pub fn new(child: ChildId, serial: u64, streams: Arc<S>) -> (Self, mpsc::Receiver<Down>) {
        let (control, queue) = mpsc::channel(CONTROL_QUEUE_MAX);
        (Self { child, serial, streams, control }, queue)
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// The child does not take it: it has to be cut off.
    pub fn tell(&self, message: Down) -> Result<(), CutOff> {
        self.control.try_send(message).map_err(|_| CutOff)
    }
}

/// Gives each connection a task of its own, until the server has ended or nobody listens.
pub async fn serve_children<S: Streams>(
    mut incoming: Children,
    events: mpsc::Sender<ChildEvent<S>>,
) {
    let mut tasks = JoinSet::new();
    let mut serial = 0;
    loop {
        // Both can be given up without loss.
        tokio::select! {
            Some(connection) = incoming.next() => {
                serial += 1;
                tasks.spawn(serve_child(connection, events.clone(), serial));
            }
            Some(_) = tasks.join_next() => {}
            else => return,
        }
    }
}

/// Serves one child until its connection ends.
async fn serve_child<S: Streams>(
    connection: ChildConnection,
    events: mpsc::Sender<ChildEvent<S>>,
    serial: u64,
) {
    let ChildConnection { sender, mut receiver, peer } = connection;
    let Some(hello) = hello(&mut receiver, peer).await else { return };
    let child = hello.child;
    tracing::info!(cluster = hello.name, id = %child, %peer, "connected");
    let (queue, from_streams) = mpsc::channel(S::QUEUE_MAX);
    let streams = Arc::new(S::new(child, queue));
    let (outlet, from_owner) = Outlet::new(child, serial, streams.clone());
    if events.send(ChildEvent::Up { outlet, hello }).await.is_err() {
        return;
    }
    // When one direction ends the connection is of no use, so the other is given up.
    tokio::select! {
        () = listen(receiver, &*streams, &events, child, serial) => {}
        () = speak(&sender, from_owner, from_streams) => {}
    }
    streams.close();
    tracing::info!(id = %child, "disconnected");
    // An error says that the owner is gone.
    drop(events.send(ChildEvent::Gone { child, serial }).await);
}

async fn hello(receiver: &mut Receiver<Up>, peer: SocketAddr) -> Option<Hello> {
    let why = match tokio::time::timeout(HELLO_TIME_MAX, receiver.recv()).await {
        Ok(Ok(Some(Up::Hello(hello)))) if hello.kind != ChildKind::Cluster => {
            format!("{} is a node, and nodes connect by MQTT", hello.child)
        }
        Ok(Ok(Some(Up::Hello(mut hello)))) => {
            if !hello.facts.iter().any(|(key, _)| key == "address") {
                hello.facts.push(("address".to_owned(), peer.ip().to_string()));
            }
            return Some(hello);
        }
        Ok(Ok(Some(_))) => "it said something else first".to_owned(),
        Ok(Ok(None)) => "it left".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("nothing came within {} s", HELLO_TIME_MAX.as_secs()),
    };
    tracing::warn!(%peer, "a connection without a hello was ended: {why}");
    None
}

async fn listen<S: Streams>(
    mut receiver: Receiver<Up>,
    streams: &S,
    events: &mpsc::Sender<ChildEvent<S>>,
    child: ChildId,
    serial: u64,
) {
    loop {
        let message = match receiver.recv().await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => return tracing::warn!(id = %child, %error, "connection ended"),
        };
        if matches!(&message, Up::Hello(hello) if hello.child != child) {
            return tracing::warn!(id = %child, "cut off: it calls itself by another id");
        }
        let Some(message) = streams.deliver(message) else { continue };
        if events.send(ChildEvent::Said { child, serial, message }).await.is_err() {
            return;
        }
    }
}

async fn speak(
    sender: &Sender<Down>,
    mut from_owner: mpsc::Receiver<Down>,
    mut from_streams: mpsc::Receiver<Down>,
) {
    loop {
        let message = tokio::select! {
            biased;
            message = from_owner.recv() => message,
            Some(message) = from_streams.recv() => Some(message),
        };
        // The owner has let go of this connection.
        let Some(message) = message else { return };
        match sender.send(&message).await {
            Ok(()) => {}
            Err(SendError::Message(error)) => {
                // The core keeps its messages below the limit; a client's request that does
                // not fit ends with the connection, since its stream would never answer.
                return tracing::error!(%error, "a message to a cluster cannot be encoded");
            }
            Err(SendError::Ended | SendError::Full) => return,
        }
    }
}
