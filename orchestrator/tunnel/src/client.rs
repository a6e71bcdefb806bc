//! The child's end: dials its parent and opens the stream. When to dial again is the caller's.

use crate::codec::Raw;
use crate::halves::{Receiver, Sender};
use crate::{KEEPALIVE, OPEN_TIME_MAX, PATH, PROBE_PATH, QUEUE_MESSAGES_MAX, WINDOW_BYTES};
use marram_protocol::MESSAGE_BYTES_MAX;
use marram_protocol::v1::{Down, Up};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::{PathAndQuery, Scheme};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Why there is no stream to the parent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Not of the form that a parent's address has.
    #[error("{0:?} is no parent's address, write http://HOST:PORT")]
    Url(String),
    /// Nobody is there.
    #[error("cannot connect to {url}: {why}")]
    Connect {
        /// The parent.
        url: String,
        /// What the system says.
        why: String,
    },
    /// Somebody is there, and it is no parent or takes nobody.
    #[error("{url} does not open a tunnel: {why}")]
    Open {
        /// The parent.
        url: String,
        /// In its own words.
        why: String,
    },
    /// It took longer than [`OPEN_TIME_MAX`].
    #[error("{url} did not open a tunnel within {} s", OPEN_TIME_MAX.as_secs())]
    Slow {
        /// The parent.
        url: String,
    },
}

/// Knows where the parent is.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    url: String,
}

/// A stream to the parent.
#[derive(Debug)]
pub struct ParentConnection {
    /// To the parent.
    pub sender: Sender<Up>,
    /// From the parent.
    pub receiver: Receiver<Down>,
}

impl Dialer {
    /// For a parent at `http://HOST:PORT`. Nothing is sent yet.
    pub fn new(url: &str) -> Result<Self, DialError> {
        let wrong = || DialError::Url(url.chars().take(100).collect());
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
        let uri = endpoint.uri();
        let plain = uri.scheme() == Some(&Scheme::HTTP)
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.port_u16().is_some_and(|port| port > 0)
            && uri.path() == "/"
            && uri.query().is_none()
            && !url.contains('@');
        if !plain {
            return Err(wrong());
        }
        let endpoint = endpoint
            .connect_timeout(OPEN_TIME_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        Ok(Self { endpoint, url: url.to_owned() })
    }

    /// Where the parent is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Connects and opens the stream, or says why not, within [`OPEN_TIME_MAX`].
    pub async fn connect(&self) -> Result<ParentConnection, DialError> {
        tokio::time::timeout(OPEN_TIME_MAX, self.open())
            .await
            .map_err(|_| DialError::Slow { url: self.url.clone() })?
    }

    /// Whether a stream to there would be of use; none is opened.
    ///
    /// # Errors
    /// Why not: nobody is there, or nobody who has a way to the root.
    pub async fn probe(&self) -> Result<(), DialError> {
        let asked = async {
            let mut grpc = self.channel().await?;
            let request = Request::new(tokio_stream::empty::<Vec<u8>>());
            let path = PathAndQuery::from_static(PROBE_PATH);
            let answer = grpc.streaming(request, path, Raw).await;
            answer.map(drop).map_err(|status| self.refused(&status))
        };
        tokio::time::timeout(OPEN_TIME_MAX, asked)
            .await
            .map_err(|_| DialError::Slow { url: self.url.clone() })?
    }

    fn refused(&self, status: &Status) -> DialError {
        DialError::Open { url: self.url.clone(), why: status.message().to_owned() }
    }

    async fn channel(&self) -> Result<Grpc<Channel>, DialError> {
        let channel = self.endpoint.connect().await.map_err(|error| DialError::Connect {
            url: self.url.clone(),
            why: innermost(&error),
        })?;
        let mut grpc: Grpc<Channel> = Grpc::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let unready = |error| self.refused(&Status::unavailable(innermost(&error)));
        grpc.ready().await.map_err(unready)?;
        Ok(grpc)
    }

    async fn open(&self) -> Result<ParentConnection, DialError> {
        let mut grpc = self.channel().await?;
        let (queue, messages) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let request = Request::new(ReceiverStream::new(messages));
        let path = PathAndQuery::from_static(PATH);
        let response = grpc.streaming(request, path, Raw).await;
        let response = response.map_err(|status| self.refused(&status))?;
        let receiver = Receiver::new(response.into_inner(), None);
        Ok(ParentConnection { sender: Sender::new(queue), receiver })
    }
}

/// The cause at the bottom: the outer errors only say "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_of_parents_are_taken() {
        for good in ["http://127.0.0.1:10001", "http://localhost:1/", "http://[::1]:10001"] {
            assert_eq!(Dialer::new(good).unwrap().url(), good);
        }
        for bad in [
            "",
            "127.0.0.1:10001",
            "https://127.0.0.1:10001",
            "mqtt://127.0.0.1:10001",
            "http://127.0.0.1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://:10001",
            "http://a:1/path",
            "http://a:1/?q",
            "http://me@a:1",
            "http://a b:1",
        ] {
            assert_eq!(Dialer::new(bad).unwrap_err(), DialError::Url(bad.into()), "{bad}");
        }
    }
}
