//! Takes HTTP connections over TCP or a Unix socket, within limits of number and time.
//!
//! Why not the framework's own loop: it has no limit on connections and none on how long a
//! client may take for the head of a request.

mod patient;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use patient::Patient;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at once, streams included. Further ones wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 256;

/// From a connection's start, or the end of a request on it, to the head of the next one.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Head of a request: a token, a path and what browsers add.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What clients may still finish once the program is asked to end.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(5);

/// After a failed accept, as when file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where somebody calls from; nowhere to be told over a Unix socket.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub Option<IpAddr>);

/// Where connections come from.
pub trait Listener: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one, and who is at its other end. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Peer)> {
        let (stream, peer) = Self::accept(self).await?;
        // Answers are written whole, and what is typed into a shell must not wait.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "connection lost while it was taken");
        }
        Ok((stream, Peer(Some(peer.ip()))))
    }
}

impl Listener for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Peer)> {
        Ok((Self::accept(self).await?.0, Peer(None)))
    }
}

/// Resolves when the program is asked to end.
pub async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error says that whoever would tell is gone, which means the same.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Serves until `stopping` turns true, then lets requests finish for a moment.
pub async fn serve<L: Listener>(listener: L, router: Router, stopping: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let asked = stopping.clone();
    let stop = stopped(stopping);
    tokio::pin!(stop);
    loop {
        // All three can be given up without loss.
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (stream, peer, place) = accept(&listener, &room) => {
                let serving = connection(stream, peer, router.clone(), asked.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_TIME_MAX, finished).await.is_err() {
        tracing::info!("clients still connected at the end were cut off");
    }
}

async fn accept<L: Listener>(
    listener: &L,
    room: &Arc<Semaphore>,
) -> (L::Stream, Peer, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            // Nobody closes this semaphore.
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    stopping: watch::Receiver<bool>,
) {
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        inner.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), service)
        .with_upgrades();
    tokio::pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        () = stopped(stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(?peer, %error, "connection ended");
    }
}
