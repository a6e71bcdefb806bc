//! Listening: accepts, and gives every connection a task of its own.
//!
//! The handshake, that of the transport included, happens inside the task and under one time
//! limit, so a client that says nothing keeps nobody waiting.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use crate::auth::PeerIdentity;
use crate::broker::Broker;
use crate::config::SHUTDOWN_MS_MAX;
use crate::connection;
use crate::endpoint::Endpoint;
use crate::shared::Shared;

/// How long to wait before accepting again when the system has no more descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What stands between TCP and MQTT: nothing, or TLS.
pub trait Transport: Send + Sync + 'static {
    /// The stream that MQTT runs over.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Makes an accepted socket a stream and tells who is at its other end. Runs inside the
    /// connection's own task; the broker limits its time.
    fn accept(
        &self,
        socket: TcpStream,
    ) -> impl Future<Output = io::Result<(Self::Io, PeerIdentity)>> + Send;
}

/// Plain TCP: for loopback, and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Transport for Plain {
    type Io = TcpStream;

    async fn accept(&self, socket: TcpStream) -> io::Result<(TcpStream, PeerIdentity)> {
        Ok((socket, PeerIdentity::Anonymous))
    }
}

impl Broker {
    /// Serves plain TCP until `shutdown` is done. See [`Broker::serve_with`].
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.serve_with(listener, Arc::new(Plain), shutdown).await;
    }

    /// Serves a listener until `shutdown` is done; then every client is told and let go.
    ///
    /// Several listeners may be served at once. When the first of them shuts down the whole broker
    /// does: no further client is let in on any.
    pub async fn serve_with<T: Transport>(
        &self,
        listener: TcpListener,
        transport: Arc<T>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut tasks = JoinSet::new();
        tokio::pin!(shutdown);
        {
            let timers = self.run_timers();
            tokio::pin!(timers);
            loop {
                // Every arm is cancel-safe: accepting and joining lose nothing when dropped, and
                // the other two are polled on where they were.
                tokio::select! {
                    () = &mut shutdown => break,
                    () = &mut timers => {}
                    accepted = listener.accept() => match accepted {
                        Ok((socket, address)) => {
                            self.spawn(&mut tasks, Arc::clone(&transport), socket, address);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept a connection");
                            sleep(ACCEPT_RETRY).await;
                        }
                    },
                    Some(ended) = tasks.join_next(), if !tasks.is_empty() => report(ended),
                }
            }
        }
        drop(listener);
        let now = self.shared.now();
        self.shared.with(|core| core.shut_down(now));
        let until = Instant::now() + Duration::from_millis(SHUTDOWN_MS_MAX);
        // Those still in their handshake have nothing to be told.
        while self.shared.open.load(Ordering::Relaxed) > 0 {
            match timeout_at(until, tasks.join_next()).await {
                Ok(Some(ended)) => report(ended),
                Ok(None) | Err(_) => break,
            }
        }
        tasks.shutdown().await;
    }

    /// Serves one stream whose other end is known already, until it ends or the broker stops.
    pub async fn serve_stream<S>(&self, io: S, peer: PeerIdentity)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let until = self.shared.now() + self.shared.config.handshake_ms_max;
        let endpoint = Endpoint::new(Arc::clone(&self.shared), peer, None, until);
        connection::run(io, endpoint, Arc::clone(&self.shared)).await;
    }

    fn spawn<T: Transport>(
        &self,
        tasks: &mut JoinSet<()>,
        transport: Arc<T>,
        socket: TcpStream,
        address: SocketAddr,
    ) {
        let shared = Arc::clone(&self.shared);
        let Some(place) = Place::take(&shared) else {
            tracing::warn!(%address, max = shared.config.connections_max, "too many connections");
            shared.with(|core| core.stats.connections_refused += 1);
            return;
        };
        tasks.spawn(async move {
            let _place = place;
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%address, %error, "socket gone before it was served");
                return;
            }
            let until = shared.now() + shared.config.handshake_ms_max;
            let (io, peer) = match timeout_at(shared.instant(until), transport.accept(socket)).await
            {
                Ok(Ok(accepted)) => accepted,
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "handshake failed");
                    return;
                }
                Err(_) => {
                    tracing::debug!(%address, "handshake took too long");
                    return;
                }
            };
            let endpoint = Endpoint::new(Arc::clone(&shared), peer, Some(address), until);
            let reason = connection::run(io, endpoint, shared).await;
            tracing::debug!(%address, %reason, "connection ended");
        });
    }
}

/// One of the places that connections may take; given back when it is dropped.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let before = shared.connections.fetch_add(1, Ordering::Relaxed);
        // Made in any case, so that the count is taken back when there is no place.
        let place = Self(Arc::clone(shared));
        (before < shared.config.connections_max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's task never panics; if it does, that is a bug that must be seen.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
