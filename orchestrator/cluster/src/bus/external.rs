//! A client of a broker elsewhere, which connects again by itself.
//!
//! The session begins anew with every connection: nodes are asked to say hello again, which
//! brings more than a broker's queue would have kept.

use super::{Bus, BusEvent, COMMAND_EXPIRY, Lost, filters, message};
use marram_protocol::MESSAGE_BYTES_MAX;
use marram_protocol::id::ChildId;
use marram_protocol::topic::Topic;
use marram_tunnel::Backoff;
use rumqttc::mqttbytes::v5::{Packet, PublishProperties, SubscribeFilter, SubscribeReasonCode};
use rumqttc::{AsyncClient, Event, EventLoop, IncomingPacketSizeLimit, MqttOptions};
use rumqttc::{NetworkOptions, PublishOptions, QoS};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Longest packet: the longest message with its topic and properties.
const PACKET_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 8 * 1024;

/// Messages that wait for the broker, and events that wait for the shell.
const QUEUE_MAX: usize = 256;

/// Not acknowledged by the broker at most.
const INFLIGHT_MAX: u16 = 64;

/// Seconds without a word after which the broker is asked whether it is there.
const KEEP_ALIVE_S: u16 = 20;

/// A connection that has lasted this long was a good one: its loss is a first failure.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// The cluster's client.
#[derive(Debug)]
pub(crate) struct External {
    client: AsyncClient,
    events: mpsc::Receiver<BusEvent>,
}

impl External {
    /// A client for the broker; the future carries its messages and has to be run.
    pub(crate) fn new(
        id: ChildId,
        host: &str,
        port: u16,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), rumqttc::ClientBuildError> {
        let packet_bytes = u32::try_from(PACKET_BYTES_MAX).unwrap_or(u32::MAX);
        let mut options = MqttOptions::new(format!("cluster-{id}"), (host, port));
        // What follows an acknowledgement would wait for the broker's, some 40 ms.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options
            .set_network_options(network)
            .set_keep_alive(KEEP_ALIVE_S)
            .set_clean_start(true)
            .set_max_packet_size(Some(packet_bytes))
            .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(packet_bytes))
            .set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
        let (client, event_loop) = AsyncClient::builder(options).capacity(QUEUE_MAX).try_build()?;
        let (sender, events) = mpsc::channel(QUEUE_MAX);
        let carrier = Carrier { client: client.clone(), events: sender, up: None };
        Ok((Self { client, events }, carrier.run(event_loop)))
    }
}

impl Bus for External {
    async fn next(&mut self) -> BusEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The carrier ends with the program only.
            None => std::future::pending().await,
        }
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) -> Result<(), Lost> {
        let seconds = u32::try_from(COMMAND_EXPIRY.as_secs()).unwrap_or(u32::MAX);
        let properties = PublishProperties {
            message_expiry_interval: Some(seconds),
            ..PublishProperties::default()
        };
        let options = PublishOptions::at_least_once().properties(properties);
        let topic = topic.to_string();
        self.client.try_publish(topic.as_str(), bytes, options).map_err(|_| Lost(topic))
    }
}

/// Drives the client.
struct Carrier {
    client: AsyncClient,
    events: mpsc::Sender<BusEvent>,
    /// Since when messages come and go.
    up: Option<Instant>,
}

impl Carrier {
    async fn run(mut self, mut event_loop: EventLoop) {
        let mut backoff = Backoff::default();
        let mut told = String::new();
        loop {
            let failed = match event_loop.poll().await {
                Ok(Event::Incoming(packet)) => self.incoming(packet, &mut told).await,
                Ok(Event::Outgoing(_) | Event::Auth(_)) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            let Err(why) = failed else { continue };
            // A connection on which not all went well is given up: only a new one is asked for
            // subscriptions again. What waits to be sent goes out first on that.
            event_loop.clean();
            if told != why {
                tracing::warn!("the broker is not there: {why}");
                told = why;
            }
            if let Some(since) = self.up.take() {
                // A shorter one was perhaps ended by another cluster with this one's id.
                if since.elapsed() >= WELL_AFTER {
                    backoff.reset();
                }
                if self.events.send(BusEvent::Down).await.is_err() {
                    return;
                }
            }
            // Without randomness all clusters of a broker come back together.
            let random = getrandom::u64().unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(backoff.next_ms(random))).await;
        }
    }

    async fn incoming(&mut self, packet: Packet, told: &mut String) -> Result<(), String> {
        let event = match packet {
            Packet::ConnAck(_) => {
                let all = filters().map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
                return self
                    .client
                    .try_subscribe_many(all.collect::<Vec<_>>())
                    .map_err(|error| error.to_string());
            }
            Packet::SubAck(ack) => {
                let granted =
                    |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                if let Some(refused) = ack.return_codes.iter().find(|code| !granted(code)) {
                    return Err(format!("it refuses to tell of nodes: {refused:?}"));
                }
                told.clear();
                self.up = Some(Instant::now());
                BusEvent::Up
            }
            Packet::Publish(publish) => {
                let Ok(topic) = std::str::from_utf8(&publish.topic) else { return Ok(()) };
                match message(topic, publish.payload.clone(), publish.retain) {
                    Some(event) => event,
                    None => return Ok(()),
                }
            }
            Packet::Disconnect(disconnect) => {
                return Err(format!("it said goodbye: {:?}", disconnect.reason_code));
            }
            _ => return Ok(()),
        };
        // An error says that the shell is gone, and this task goes with it.
        self.events.send(event).await.map_err(|_| "this cluster is stopping".to_owned())
    }
}

#[cfg(test)]
mod tests;
