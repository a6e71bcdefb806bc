//! The parent's end: takes connections and hands out the streams that children open on them.

use crate::codec::Raw;
use crate::connection::{Connection, Peer};
use crate::halves::{Receiver, Sender};
use crate::{CONNECTIONS_MAX, KEEPALIVE, PATH, PROBE_PATH, QUEUE_MESSAGES_MAX, WINDOW_BYTES};
use marram_protocol::MESSAGE_BYTES_MAX;
use marram_protocol::v1::{Down, Up};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Children that have opened a stream and were not taken yet; more wait.
const WAITING_MAX: usize = 16;

/// After a failed accept, as when file descriptors are used up: they do not come back sooner
/// by asking at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long children may take to go after the shutdown; their owner drops their connections.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(2);

/// A child's stream.
#[derive(Debug)]
pub struct ChildConnection {
    /// To the child.
    pub sender: Sender<Down>,
    /// From the child.
    pub receiver: Receiver<Up>,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// The streams that children open.
#[derive(Debug)]
pub struct Children {
    waiting: mpsc::Receiver<ChildConnection>,
}

impl Children {
    /// The next child; `None` once the server has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<ChildConnection> {
        self.waiting.recv().await
    }
}

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
#[error("the tunnel's server failed: {0}")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves children on `listener` until `shutdown`. The future does the work and has to be run.
pub fn serve(
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> (Children, impl Future<Output = Result<(), ServeError>> + Send) {
    serve_while(listener, Arc::new(AtomicBool::new(true)), shutdown)
}

/// As [`serve`], for a parent that may have no way to the root itself: who asks whether it would
/// be served well here is told what `well` holds then.
pub fn serve_while(
    listener: TcpListener,
    well: Arc<AtomicBool>,
    shutdown: impl Future<Output = ()> + Send,
) -> (Children, impl Future<Output = Result<(), ServeError>> + Send) {
    let (open, waiting) = mpsc::channel(WAITING_MAX);
    (Children { waiting }, run(listener, Tunnel { open, well }, shutdown))
}

async fn run(
    listener: TcpListener,
    tunnel: Tunnel,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    // One is on its way to the server, the others wait in the listener's backlog.
    let (accepted, connections) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(1)
        .serve_with_incoming_shutdown(tunnel, ReceiverStream::new(connections), async {
            // A sender that is dropped means the same.
            drop(stopped.await);
        });
    let mut server = std::pin::pin!(server);
    // All arms are dropped together, so none of them has to be cancel-safe.
    tokio::select! {
        result = &mut server => return Ok(result?),
        () = accept(&listener, accepted) => {}
        () = shutdown => {}
    }
    drop(listener);
    drop(stop);
    match tokio::time::timeout(SHUTDOWN_TIME_MAX, server).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            tracing::info!("children still connected at the end of the tunnel's server");
            Ok(())
        }
    }
}

/// Takes connections as long as there is room; ends when the server has.
async fn accept(listener: &TcpListener, accepted: mpsc::Sender<Result<Connection, Infallible>>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((io, address)) => {
                if let Err(error) = io.set_nodelay(true) {
                    tracing::debug!(%address, %error, "connection lost while it was taken");
                    continue;
                }
                if accepted.send(Ok(Connection::new(io, address, permit))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a tunnel's connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What tonic generates for a service, for the one method there is.
#[derive(Debug, Clone)]
struct Tunnel {
    open: mpsc::Sender<ChildConnection>,
    well: Arc<AtomicBool>,
}

impl Service<http::Request<Body>> for Tunnel {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let tunnel = self.clone();
        Box::pin(async move {
            if request.uri().path() == PROBE_PATH {
                let status = match tunnel.well.load(Ordering::Relaxed) {
                    true => Status::ok(""),
                    false => Status::unavailable("there is no way to the root from here now"),
                };
                return Ok(status.into_http());
            }
            if request.uri().path() != PATH {
                let path: String = request.uri().path().chars().take(64).collect();
                let status = Status::unimplemented(format!("no method {path:?}, there is {PATH}"));
                return Ok(status.into_http());
            }
            let mut grpc = tonic::server::Grpc::new(Raw)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(Open(tunnel), request).await)
        })
    }
}

/// The method.
struct Open(Tunnel);

impl Service<Request<Streaming<Vec<u8>>>> for Open {
    type Response = Response<Outgoing>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        let open = self.0.open.clone();
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned();
            let Some(peer) = peer else {
                return Err(Status::internal("a connection without an address"));
            };
            let (queue, messages) = mpsc::channel(QUEUE_MESSAGES_MAX);
            let (refuse, refused) = oneshot::channel();
            let child = ChildConnection {
                sender: Sender::new(queue),
                receiver: Receiver::new(request.into_inner(), Some(refuse)),
                peer: peer.address,
            };
            if open.send(child).await.is_err() {
                return Err(Status::unavailable("this parent is shutting down"));
            }
            peer.opened();
            Ok(Response::new(Outgoing { messages, refused: Some(refused) }))
        })
    }
}

/// What goes to the child: messages, and at the end the reason if there is one.
struct Outgoing {
    messages: mpsc::Receiver<Vec<u8>>,
    /// `None` once the receiving half is gone or has told its reason.
    refused: Option<oneshot::Receiver<Status>>,
}

impl Stream for Outgoing {
    type Item = Result<Vec<u8>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(refused) = &mut self.refused
            && let Poll::Ready(reason) = Pin::new(refused).poll(cx)
        {
            self.refused = None;
            if let Ok(status) = reason {
                self.messages.close();
                return Poll::Ready(Some(Err(status)));
            }
        }
        self.messages.poll_recv(cx).map(|message| message.map(Ok))
    }
}
