//! The endpoint inside this program, spoken to without a socket.

use super::access::OwnTopics;
use super::{Bus, BusEvent, COMMAND_EXPIRY, Lost, filters, message};
use marram_broker::{Broker, Config, ConnectionEvent, LocalClient, LocalItem, Qos, SubscribeError};
use marram_protocol::id::ChildId;
use marram_protocol::topic::{Topic, node_of_client};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Bytes that may wait for one node: the specifications that it fetches at once are some
/// hundred KiB as a rule, and this is as much as a small board takes in a few seconds.
const NODE_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The cluster's own client of its own endpoint.
#[derive(Debug)]
pub(crate) struct Embedded {
    broker: Broker,
    client: LocalClient,
    told_up: bool,
    /// The present connection of each node.
    connections: BTreeMap<ChildId, u64>,
}

impl Embedded {
    pub(crate) fn new() -> Result<Self, SubscribeError> {
        let config = Config { queue_bytes_max: NODE_QUEUE_BYTES_MAX, ..Config::default() };
        let broker = Broker::new(config, Arc::new(OwnTopics));
        let client = broker.local_with_events();
        for filter in filters() {
            client.subscribe(&[&filter])?;
        }
        Ok(Self { broker, client, told_up: false, connections: BTreeMap::new() })
    }

    /// Serves nodes until `shutdown`; has to be run.
    pub(crate) fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let broker = self.broker.clone();
        async move { broker.serve(listener, shutdown).await }
    }

    fn connection(&mut self, event: &ConnectionEvent) -> Option<BusEvent> {
        match event {
            ConnectionEvent::Connected { client_id, connection, .. } => {
                let node = node_of_client(client_id)?;
                self.connections.insert(node, *connection);
                None
            }
            ConnectionEvent::Disconnected { client_id, connection, reason, .. } => {
                let node = node_of_client(client_id)?;
                // A connection that was taken over ends after its successor began.
                if self.connections.get(&node) != Some(connection) {
                    return None;
                }
                self.connections.remove(&node);
                tracing::info!(id = %node, "node disconnected: {reason}");
                Some(BusEvent::Gone(node))
            }
        }
    }
}

impl Bus for Embedded {
    async fn next(&mut self) -> BusEvent {
        if !std::mem::replace(&mut self.told_up, true) {
            return BusEvent::Up;
        }
        loop {
            let event = match self.client.recv().await {
                LocalItem::Message(m) => message(&m.topic, m.payload, m.retain),
                LocalItem::Event(event) => self.connection(&event),
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) -> Result<(), Lost> {
        let topic = topic.to_string();
        let dropped = self.broker.stats().messages_dropped;
        let result = self.broker.try_publish(
            &topic,
            bytes.into(),
            Qos::AtLeastOnce,
            false,
            Some(COMMAND_EXPIRY),
        );
        // The endpoint drops what does not fit and counts it; nothing else runs meanwhile.
        if result.is_err() || self.broker.stats().messages_dropped > dropped {
            return Err(Lost(topic));
        }
        Ok(())
    }
}
