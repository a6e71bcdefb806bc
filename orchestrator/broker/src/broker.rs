//! The broker as its embedder holds it: a handle that clones cheaply.
//!
//! See [`crate::serve`] for listening and [`crate::local`] for clients without a socket.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep_until;

use crate::auth::Authorizer;
use crate::codec::Qos;
use crate::config::Config;
use crate::core::{Link, Message, Refusal, Stats, topic};
use crate::local::LocalClient;
use crate::reason::Reason;
use crate::shared::Shared;

/// An embedded broker. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
}

/// Why a message of the embedder was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic is empty, too long, or has wildcards.
    #[error("topic '{0}' cannot be published to")]
    Topic(String),
    /// The payload is larger than any packet may be.
    #[error("payload of {bytes} bytes is larger than {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest allowed.
        bytes_max: usize,
    },
    /// There is no room for another retained message.
    #[error("no room for another retained message")]
    RetainedFull,
    /// The client's own queue is full with what it has not received yet.
    #[error("own queue is full; receive before publishing to oneself")]
    OwnQueueFull,
    /// An in-process client has no room ([`Broker::try_publish`] only).
    #[error("an in-process client has no room")]
    Busy,
}

impl Broker {
    /// A broker without connections. Nothing runs until it is served.
    pub fn new(config: Config, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { shared: Arc::new(Shared::new(config, authorizer)) }
    }

    /// A client inside this process. It gets messages from its first subscription on.
    pub fn local(&self) -> LocalClient {
        LocalClient::new(self.clone(), false)
    }

    /// A client inside this process that also gets a [`crate::ConnectionEvent`] for every client
    /// that comes or goes, in one order with the messages: a client's "connected" stands before
    /// the first message of that connection, its "disconnected" behind the last. It begins with a
    /// "connected" for each client that is there already. Events are never dropped.
    pub fn local_with_events(&self) -> LocalClient {
        LocalClient::new(self.clone(), true)
    }

    /// Publishes under the embedder's own authority: no authorizer is asked.
    ///
    /// Waits while an in-process subscriber has no room for a QoS 1 message. Queues of clients on
    /// connections never make it wait: what does not fit there is dropped and counted. A message
    /// with `expiry` is dropped wherever it still waits when that is over. An empty payload with
    /// `retain` removes the retained message.
    pub async fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        qos: Qos,
        retain: bool,
        expiry: Option<Duration>,
    ) -> Result<(), PublishError> {
        let message = self.message(topic, payload, qos, expiry)?;
        self.publish_from(None, message, retain).await
    }

    /// As [`Broker::publish`], but gives [`PublishError::Busy`] instead of waiting.
    pub fn try_publish(
        &self,
        topic: &str,
        payload: Bytes,
        qos: Qos,
        retain: bool,
        expiry: Option<Duration>,
    ) -> Result<(), PublishError> {
        let message = self.message(topic, payload, qos, expiry)?;
        self.attempt(None, message, retain)
    }

    /// Cuts a client's connection at once; an MQTT 5 client is told the reason. Its will is
    /// published and its session goes on as after any lost connection. False if it has none.
    pub fn disconnect(&self, client_id: &str, reason: Reason) -> bool {
        let now = self.shared.now();
        self.shared.with(|core| core.kick(now, client_id, reason))
    }

    /// Counters and present sizes.
    pub fn stats(&self) -> Stats {
        self.shared.with(|core| core.snapshot())
    }

    pub(crate) async fn publish_from(
        &self,
        from: Option<Link>,
        message: Message,
        retain: bool,
    ) -> Result<(), PublishError> {
        loop {
            let mut room = pin!(self.shared.room.notified());
            // Registered before the attempt, so that room made right after it is not missed.
            room.as_mut().enable();
            match self.attempt(from, message.clone(), retain) {
                Err(PublishError::Busy) => room.await,
                result => return result,
            }
        }
    }

    fn attempt(
        &self,
        from: Option<Link>,
        message: Message,
        retain: bool,
    ) -> Result<(), PublishError> {
        let now = self.shared.now();
        match self.shared.with(|core| core.publish(now, from, message, retain)) {
            // An in-process client's link holds as long as the client does.
            Ok(_) | Err(Refusal::Gone) => Ok(()),
            Err(Refusal::Busy) => Err(PublishError::Busy),
            Err(Refusal::OwnQueue) => Err(PublishError::OwnQueueFull),
            Err(Refusal::Retained) => Err(PublishError::RetainedFull),
        }
    }

    pub(crate) fn message(
        &self,
        topic: &str,
        payload: Bytes,
        qos: Qos,
        expiry: Option<Duration>,
    ) -> Result<Message, PublishError> {
        if !topic::is_topic(topic) {
            return Err(PublishError::Topic(topic.to_owned()));
        }
        let (bytes, bytes_max) = (payload.len(), self.shared.config.packet_bytes_max);
        if bytes > bytes_max {
            return Err(PublishError::TooLarge { bytes, bytes_max });
        }
        let span = expiry.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        let expires_at = span.map(|span| self.shared.now().saturating_add(span));
        Ok(Message { topic: topic.into(), payload, qos, expires_at, properties: Box::default() })
    }

    /// Does what is due by time, for ever. Every listener runs one; they do not disturb each other.
    pub(crate) async fn run_timers(&self) {
        loop {
            let mut changed = pin!(self.shared.timer_changed.notified());
            changed.as_mut().enable();
            let now = self.shared.now();
            let next = self.shared.with(|core| {
                core.handle_timeout(now);
                core.poll_timeout()
            });
            match next {
                None => changed.await,
                Some(at) => {
                    // Both arms are cancel-safe: nothing is taken from either.
                    tokio::select! {
                        () = changed => {}
                        () = sleep_until(self.shared.instant(at)) => {}
                    }
                }
            }
        }
    }
}
