//! The two halves of a connection, the same at both ends but for the direction.
//!
//! Messages are encoded before they are queued and decoded after they are received, so that an
//! error is told to who can do something about it.

use marram_protocol::v1::{CodecError, Down, Up};
use std::marker::PhantomData;
use tokio::sync::{mpsc, oneshot};
use tonic::codec::Streaming;
use tonic::{Code, Status};

/// A message of one direction: [`Up`] or [`Down`], and no other.
pub trait Message: Sized + sealed::Sealed {
    /// The bytes with their envelope.
    fn to_bytes(&self) -> Result<Vec<u8>, CodecError>;
    /// Reads what [`Message::to_bytes`] wrote.
    fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for marram_protocol::v1::Up {}
    impl Sealed for marram_protocol::v1::Down {}
}

impl Message for Up {
    fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        self.encode()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::decode(bytes)
    }
}

impl Message for Down {
    fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        self.encode()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::decode(bytes)
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is no valid message; the connection is as before.
    #[error(transparent)]
    Message(#[from] CodecError),
    /// The connection has ended.
    #[error("the tunnel has ended")]
    Ended,
    /// The queue is full ([`Sender::try_send`] only); it holds `QUEUE_MESSAGES_MAX`.
    #[error("{max} messages wait to be sent already", max = crate::QUEUE_MESSAGES_MAX)]
    Full,
}

/// The half that sends. Clones send on the same connection.
#[derive(Debug)]
pub struct Sender<M> {
    queue: mpsc::Sender<Vec<u8>>,
    direction: PhantomData<fn(M)>,
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), direction: PhantomData }
    }
}

impl<M: Message> Sender<M> {
    pub(crate) fn new(queue: mpsc::Sender<Vec<u8>>) -> Self {
        Self { queue, direction: PhantomData }
    }

    /// Queues a message, and waits while the queue is full.
    pub async fn send(&self, message: &M) -> Result<(), SendError> {
        self.queue.send(message.to_bytes()?).await.map_err(|_| SendError::Ended)
    }

    /// Queues a message if there is room.
    pub fn try_send(&self, message: &M) -> Result<(), SendError> {
        self.queue.try_send(message.to_bytes()?).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Ended,
        })
    }

    /// Sends what is no message, as a faulty program would.
    #[cfg(test)]
    pub(crate) async fn raw(&self, bytes: Vec<u8>) {
        self.queue.send(bytes).await.expect("the connection is open");
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }
}

/// Why no more is received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The other side sent what is no message; it was told so.
    #[error("malformed message: {0}")]
    Message(#[from] CodecError),
    /// The other side ended the stream with a reason.
    #[error("the tunnel was refused: {0}")]
    Refused(String),
    /// The connection broke.
    #[error("the tunnel broke: {0}")]
    Broken(String),
}

/// The half that receives.
#[derive(Debug)]
pub struct Receiver<M> {
    /// `None` after the end.
    stream: Option<Streaming<Vec<u8>>>,
    /// A server can tell why it ends the stream; a client only ends it.
    refuse: Option<oneshot::Sender<Status>>,
    direction: PhantomData<fn() -> M>,
}

impl<M: Message> Receiver<M> {
    pub(crate) fn new(stream: Streaming<Vec<u8>>, refuse: Option<oneshot::Sender<Status>>) -> Self {
        Self { stream: Some(stream), refuse, direction: PhantomData }
    }

    /// The next message; `None` after the other side has ended the stream. After an error there
    /// is no more. Cancel-safe: what is not returned is not taken.
    pub async fn recv(&mut self) -> Result<Option<M>, ReceiveError> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let error = match stream.message().await {
            Ok(Some(bytes)) => match M::from_bytes(&bytes) {
                Ok(message) => return Ok(Some(message)),
                Err(error) => ReceiveError::Message(error),
            },
            Ok(None) => {
                self.stream = None;
                return Ok(None);
            }
            Err(status) => classify(&status),
        };
        self.end(&error);
        Err(error)
    }

    fn end(&mut self, error: &ReceiveError) {
        self.stream = None;
        let status = match error {
            ReceiveError::Message(CodecError::TooLong(_)) => {
                Status::out_of_range(error.to_string())
            }
            ReceiveError::Message(_) => Status::invalid_argument(error.to_string()),
            // Nobody is there to be told.
            ReceiveError::Refused(_) | ReceiveError::Broken(_) => return,
        };
        if let Some(refuse) = self.refuse.take() {
            // It fails if the connection is gone, and then there is nobody to be told either.
            drop(refuse.send(status));
        }
    }
}

/// What a status means that came in place of a message.
fn classify(status: &Status) -> ReceiveError {
    let why = status.message().to_owned();
    match status.code() {
        // tonic's own check of the length, before our decoder is asked.
        Code::OutOfRange if why.starts_with("Error, decoded message length too large") => {
            ReceiveError::Message(CodecError::TooLong(marram_protocol::MESSAGE_BYTES_MAX + 1))
        }
        Code::InvalidArgument | Code::OutOfRange | Code::Unavailable | Code::Unimplemented => {
            ReceiveError::Refused(why)
        }
        _ => ReceiveError::Broken(why),
    }
}
