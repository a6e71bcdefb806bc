//! A client inside this process: no socket, no encoding, the same rules of routing.
//!
//! Back-pressure: its queue is bounded ([`crate::Config::local_messages_max`] and
//! [`crate::Config::local_bytes_max`]). When it is full, QoS 0 messages to it are dropped and
//! counted; a QoS 1 message is not taken at all, its publisher waits (a client on a connection is
//! not read from meanwhile) until half of the queue was received. So an embedder that receives
//! slowly slows its nodes down and loses nothing that was sent with QoS 1.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::broker::{Broker, PublishError};
use crate::codec::{Qos, RetainHandling};
use crate::core::{ConnectionEvent, Ending, Link, Pull, SubscribeInput};
use crate::reason::Reason;

/// An in-process client. Its subscriptions end when it is dropped.
#[derive(Debug)]
pub struct LocalClient {
    broker: Broker,
    link: Link,
}

/// What an in-process client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalItem {
    /// A message of one of its subscriptions.
    Message(LocalMessage),
    /// A client came or went (with [`Broker::local_with_events`] only).
    Event(ConnectionEvent),
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalMessage {
    /// Where it was published.
    pub topic: Arc<str>,
    /// Its content, shared with the other receivers.
    pub payload: Bytes,
    /// The QoS it came with.
    pub qos: Qos,
    /// Whether it is the retained message that a new subscription brings along.
    pub retain: bool,
}

/// Why a filter was not subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot subscribe to '{filter}': {reason}")]
pub struct SubscribeError {
    /// The filter.
    pub filter: String,
    /// [`Reason::Filter`] or [`Reason::Quota`].
    pub reason: Reason,
}

impl LocalClient {
    pub(crate) fn new(broker: Broker, events: bool) -> Self {
        let link = broker.shared.with(|core| core.connect_local(events));
        Self { broker, link }
    }

    /// Subscribes to filters at QoS 1, shared ones (`$share/group/filter`) included. Retained
    /// messages come along. No authorizer is asked. On an error the filters before the failing
    /// one are subscribed to.
    pub fn subscribe(&self, filters: &[&str]) -> Result<(), SubscribeError> {
        let now = self.broker.shared.now();
        for &filter in filters {
            let input = SubscribeInput {
                filter,
                qos: Qos::AtLeastOnce,
                // What is published through this client it knows already. A shared message must
                // reach some member, though, and this may be the only one.
                no_local: !filter.starts_with("$share/"),
                retain_as_published: false,
                retain_handling: RetainHandling::Always,
                id: 0,
            };
            self.broker
                .shared
                .with(|core| core.subscribe(now, self.link, &input))
                .map_err(|reason| SubscribeError { filter: filter.to_owned(), reason })?;
        }
        Ok(())
    }

    /// Ends subscriptions; those that do not exist are passed over.
    pub fn unsubscribe(&self, filters: &[&str]) {
        for filter in filters {
            self.broker.shared.with(|core| core.unsubscribe(self.link, filter));
        }
    }

    /// Publishes as [`Broker::publish`] does; the client does not get its own message back, unless
    /// by a shared subscription.
    pub async fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        qos: Qos,
        retain: bool,
        expiry: Option<Duration>,
    ) -> Result<(), PublishError> {
        let message = self.broker.message(topic, payload, qos, expiry)?;
        self.broker.publish_from(Some(self.link), message, retain).await
    }

    /// Waits for the next message or event. Cancel-safe: what is not returned stays queued.
    pub async fn recv(&mut self) -> LocalItem {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next message or event if there is one already.
    pub fn try_recv(&mut self) -> Option<LocalItem> {
        let now = self.broker.shared.now();
        item(self.broker.shared.with(|core| core.pull(now, self.link)))
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<LocalItem> {
        let now = self.broker.shared.now();
        let waiting = Some((self.link, cx.waker()));
        let pulled = self.broker.shared.with_waker(waiting, |core| core.pull(now, self.link));
        item(pulled).map_or(Poll::Pending, Poll::Ready)
    }
}

fn item(pulled: Pull) -> Option<LocalItem> {
    match pulled {
        Pull::Send { pending, .. } => Some(LocalItem::Message(LocalMessage {
            topic: Arc::clone(&pending.message.topic),
            payload: pending.message.payload.clone(),
            qos: pending.qos,
            retain: pending.retain,
        })),
        Pull::Event(event) => Some(LocalItem::Event(event)),
        // Its session lives as long as the client itself.
        Pull::Empty | Pull::Closed(_) => None,
    }
}

impl Drop for LocalClient {
    fn drop(&mut self) {
        let now = self.broker.shared.now();
        let ending = Ending::Clean { expiry_s: None };
        self.broker.shared.with(|core| core.disconnect(now, self.link, ending));
    }
}
