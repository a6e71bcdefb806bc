//! The task of one child's connection: carries messages between the tunnel and the shell.
//!
//! ```text
//!  tunnel ──Up──► stream output ──► inboxes of clients
//!                 all else      ──► shell
//!  tunnel ◄─Down─ control queue of the shell, first
//!                 queue of clients, when that is empty
//! ```

use super::link::{CLIENT_QUEUE_MAX, CONTROL_QUEUE_MAX, Link};
use super::{ChildEvent, Children, Outlet};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Down, Hello, Up};
use marram_tunnel::{ChildConnection, Receiver, SendError, Sender};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// From an open stream to the hello on it.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);

/// Serves one child until its connection ends. `serial` tells this connection from others.
pub async fn serve_child(connection: ChildConnection, children: Children, serial: u64) {
    let ChildConnection { sender, mut receiver, peer } = connection;
    let Some(hello) = hello(&mut receiver, peer).await else { return };
    let child = hello.child;
    tracing::info!(cluster = hello.name, id = %child, %peer, "connected");
    let (control, from_shell) = mpsc::channel(CONTROL_QUEUE_MAX);
    let (clients, from_clients) = mpsc::channel(CLIENT_QUEUE_MAX);
    let link = Arc::new(Link::new(child, serial, clients));
    let outlet = Outlet { control, link: link.clone() };
    let up = ChildEvent::Up { outlet, hello: Up::Hello(hello) };
    if children.events.send(up).await.is_err() {
        return;
    }
    // When one direction ends the connection is of no use, so the other is given up.
    tokio::select! {
        () = listen(receiver, &link, &children, child) => {}
        () = speak(&sender, from_shell, from_clients) => {}
    }
    link.close();
    tracing::info!(id = %child, "disconnected");
    // An error says that the shell is gone.
    drop(children.events.send(ChildEvent::Gone { child, serial }).await);
}

async fn hello(receiver: &mut Receiver<Up>, peer: SocketAddr) -> Option<Hello> {
    let why = match tokio::time::timeout(HELLO_TIME_MAX, receiver.recv()).await {
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

async fn listen(mut receiver: Receiver<Up>, link: &Link, children: &Children, child: ChildId) {
    loop {
        let message = match receiver.recv().await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => return tracing::warn!(id = %child, %error, "connection ended"),
        };
        if matches!(&message, Up::Hello(hello) if hello.child != child) {
            return tracing::warn!(id = %child, "cut off: it calls itself by another id");
        }
        let Some(message) = link.deliver(message) else { continue };
        let said = ChildEvent::Said { child, serial: link.serial, message };
        if children.events.send(said).await.is_err() {
            return;
        }
    }
}

async fn speak(
    sender: &Sender<Down>,
    mut from_shell: mpsc::Receiver<Down>,
    mut from_clients: mpsc::Receiver<Down>,
) {
    loop {
        let message = tokio::select! {
            biased;
            message = from_shell.recv() => message,
            Some(message) = from_clients.recv() => Some(message),
        };
        // The shell has let go of this connection.
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
