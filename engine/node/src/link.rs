//! The connection to the cluster: one MQTT 5 session, opened by the node with one cluster at a
//! time; which one that is, [`Way`] says.
//!
//! The session is kept by the broker while the link is down, so that what was sent to the
//! node waits for it. Presence is a retained message and a last will. The link is up when
//! the broker has confirmed the subscriptions: from then on no answer can be missed.
//!
//! Nothing here decides: messages come out decoded, and what is to be sent comes in whole.

use crate::way::Way;
use marram_protocol::MESSAGE_BYTES_MAX;
use marram_protocol::id::ChildId;
use marram_protocol::parents::Action;
use marram_protocol::topic::{Leaf, Topic, client_id};
use marram_protocol::v1::{Down, Up};
use rumqttc::mqttbytes::v5::{DisconnectReasonCode, LastWill, SubscribeReasonCode};
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet,
    PublishOptions, QoS, SessionMode, StateError, SubscribeFilter,
};
use std::time::Duration;
use tokio::sync::mpsc;

/// Seconds without traffic before a ping: two fit well into the traffic budget, and a dead
/// link is noticed within a minute and a half.
const KEEP_ALIVE_S: u16 = 60;

/// Seconds for which the broker keeps the session: an hour of outage costs no resync.
const SESSION_EXPIRY_S: u32 = 3600;

/// Requests on their way to the socket; more make the sender wait.
const REQUESTS_MAX: usize = 64;

/// Reports that the broker has not confirmed; more wait. The client makes room for all at
/// its start: its default of 65 535 takes 16 MiB.
const UNCONFIRMED_MAX: u16 = 64;

/// An orderly goodbye takes no longer; after that the last will speaks.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

/// A packet is a message and its topic and properties.
const PACKET_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 1024;

/// What happens on the link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Ready: say hello, and that this cluster would be better if it is not the one.
    Up(Option<ChildId>),
    /// Gone; it is being tried again.
    Down,
    /// The cluster speaks about desired state.
    Desired(Down),
    /// The cluster speaks about streams.
    Stream(Down),
}

/// Sends, from any task.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    client: AsyncClient,
    node: ChildId,
}

/// Why something was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Codec(#[from] marram_protocol::v1::CodecError),
    #[error("the queue to the cluster is full or closed: {0}")]
    Queue(String),
}

impl Sender {
    /// Sends without waiting. Telemetry may be lost, a report must not be: then the link is
    /// to be made anew, which tells everything again.
    pub(crate) fn try_send(&self, message: &Up) -> Result<(), SendError> {
        let (leaf, options) = way(message);
        let topic = Topic { node: self.node, leaf }.to_string();
        let sent = self.client.try_publish(topic, message.encode()?, options);
        sent.map_err(|error| SendError::Queue(error.to_string()))
    }

    /// Sends, and waits while the queue is full: for streams, whose tasks can wait.
    pub(crate) async fn send(&self, message: &Up) -> Result<(), SendError> {
        let (leaf, options) = way(message);
        let topic = Topic { node: self.node, leaf }.to_string();
        let sent = self.client.publish(topic, message.encode()?, options).await;
        sent.map_err(|error| SendError::Queue(error.to_string()))
    }

    fn subscribe(&self) -> Result<(), SendError> {
        let filter = |leaf: Leaf| {
            let topic = Topic { node: self.node, leaf }.to_string();
            SubscribeFilter::new(topic, QoS::AtLeastOnce)
        };
        let filters = [filter(Leaf::Desired), filter(Leaf::StreamIn)];
        let asked = self.client.try_subscribe_many(filters);
        asked.map_err(|error| SendError::Queue(error.to_string()))
    }

    /// Says goodbye, and waits until it is heard; the last will is not needed then. `events`
    /// are the link's, which ends with this.
    pub(crate) async fn goodbye(&self, incarnation: u64, events: &mut mpsc::Receiver<LinkEvent>) {
        let offline = Up::Presence { online: false, incarnation };
        let farewell = async {
            self.send(&offline).await?;
            let left = self.client.disconnect().await;
            left.map_err(|error| SendError::Queue(error.to_string()))
        };
        // Nobody else takes events now, and a link that cannot tell them does not send.
        let ended = async { while events.recv().await.is_some() {} };
        let said = async { tokio::join!(farewell, ended).0 };
        match tokio::time::timeout(GOODBYE_TIME_MAX, said).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "no goodbye to the cluster"),
            Err(_) => tracing::debug!("no goodbye to the cluster: it took too long"),
        }
    }
}

/// Where a message goes, and with what promise.
fn way(message: &Up) -> (Leaf, PublishOptions) {
    match message {
        Up::Presence { .. } => (Leaf::Presence, PublishOptions::at_least_once().retained()),
        Up::Telemetry(_) => (Leaf::Telemetry, PublishOptions::at_most_once()),
        Up::StreamData { .. } | Up::StreamEnd { .. } | Up::StreamCredit { .. } => {
            (Leaf::StreamOut, PublishOptions::at_least_once())
        }
        Up::Hello(_)
        | Up::Observed { .. }
        | Up::Resync(_)
        | Up::Fetch { .. }
        | Up::Summary(_)
        | Up::Claim(_)
        | Up::Clusters { .. }
        | Up::Operated { .. }
        | Up::Missed { .. } => (Leaf::Report, PublishOptions::at_least_once()),
    }
}

/// The receiving side; driven by [`Link::run`].
pub(crate) struct Link {
    sender: Sender,
    events: EventLoop,
    way: Way,
    /// The cluster that the session is with.
    url: String,
    incarnation: u64,
    /// The subscriptions are confirmed.
    up: bool,
}

/// How a connection ended.
enum End {
    /// Nobody listens to this link any more, or goodbye was said.
    Over,
    /// By itself, for this reason.
    Lost(String),
    /// By the rules of who is whose cluster.
    Left(&'static str),
}

impl Link {
    /// Makes the session's two ends; nothing is connected yet.
    pub(crate) fn new(way: Way, node: ChildId, incarnation: u64) -> anyhow::Result<(Self, Sender)> {
        let url = way.url().to_owned();
        let options = options(way.address(&url)?, node, incarnation)?;
        let (client, events) = AsyncClient::builder(options).capacity(REQUESTS_MAX).try_build()?;
        let sender = Sender { client, node };
        let link = Self { sender: sender.clone(), events, way, url, incarnation, up: false };
        Ok((link, sender))
    }

    /// Keeps the link up until nobody listens to its events any more, or until goodbye was
    /// said.
    pub(crate) async fn run(mut self, events: mpsc::Sender<LinkEvent>) {
        let mut told = String::new();
        loop {
            match self.way.poll() {
                Some(Action::Dial(url)) => {
                    let end = match self.turn_to(url) {
                        Ok(()) => self.serve(&events, &mut told).await,
                        Err(error) => End::Lost(error.to_string()),
                    };
                    // What waits to be sent goes out first on the next connection.
                    self.events.clean();
                    let was_up = std::mem::take(&mut self.up);
                    let why = match end {
                        End::Over => return,
                        End::Lost(why) => {
                            self.way.lost(was_up);
                            why
                        }
                        End::Left(why) => why.to_owned(),
                    };
                    if was_up && events.send(LinkEvent::Down).await.is_err() {
                        return;
                    }
                    if told != why {
                        tracing::warn!(%why, "no link to the cluster; trying again and again");
                        told = why;
                    }
                }
                // Probes are the way's own, and there is nothing to leave.
                Some(Action::Leave(_) | Action::Probe(_)) => {}
                None => tokio::select! {
                    () = self.way.due() => {}
                    () = events.closed() => return,
                },
            }
        }
    }

    /// Another cluster is another session, and what waits for the old one is not for it.
    fn turn_to(&mut self, url: String) -> anyhow::Result<()> {
        if self.url != url {
            self.events.clean();
            self.events.reset_session_state();
            let address = self.way.address(&url)?;
            self.events.options = options(address, self.sender.node, self.incarnation)?;
            self.url = url;
        }
        Ok(())
    }

    /// Serves one connection.
    async fn serve(&mut self, events: &mpsc::Sender<LinkEvent>, told: &mut String) -> End {
        loop {
            let polled = {
                // Not given up between two words of the rules: it connects in here.
                let mut polling = std::pin::pin!(self.events.poll());
                loop {
                    if let Some(Action::Leave(why)) = self.way.poll() {
                        return End::Left(why);
                    }
                    tokio::select! {
                        polled = &mut polling => break polled,
                        () = self.way.due() => {}
                        () = events.closed() => return End::Over,
                    }
                }
            };
            let heard = match polled {
                Ok(Event::Incoming(packet)) => self.incoming(packet),
                Ok(Event::Outgoing(_) | Event::Auth(_)) => continue,
                Err(ConnectionError::RequestsDone) => return End::Over,
                Err(error) => Err(why_lost(&error)),
            };
            match heard {
                Ok(None) => {}
                Ok(Some(event)) => {
                    match &event {
                        LinkEvent::Up(_) => told.clear(),
                        LinkEvent::Desired(message) => self.way.heard(message),
                        LinkEvent::Down | LinkEvent::Stream(_) => {}
                    }
                    if events.send(event).await.is_err() {
                        return End::Over;
                    }
                }
                Err(why) => return End::Lost(why),
            }
        }
    }

    /// What a packet means. An error is why this connection is of no use.
    fn incoming(&mut self, packet: Packet) -> Result<Option<LinkEvent>, String> {
        match packet {
            Packet::ConnAck(_) => {
                self.events.options.set_clean_start(false);
                let online = Up::Presence { online: true, incarnation: self.incarnation };
                let asked = self.sender.try_send(&online).and_then(|()| self.sender.subscribe());
                asked.map(|()| None).map_err(|error| error.to_string())
            }
            Packet::SubAck(ack) => {
                let granted =
                    |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                match ack.return_codes.iter().find(|code| !granted(code)) {
                    None => {
                        self.up = true;
                        tracing::info!(cluster = self.url, "linked");
                        Ok(Some(LinkEvent::Up(self.way.up())))
                    }
                    Some(code) => Err(format!("the broker lets nothing be heard: {code:?}")),
                }
            }
            Packet::Publish(publish) => Ok(self.message(&publish.topic, &publish.payload)),
            _ => Ok(None),
        }
    }

    fn message(&self, topic: &[u8], payload: &[u8]) -> Option<LinkEvent> {
        let topic = String::from_utf8_lossy(topic);
        let leaf = topic.parse::<Topic>().map(|t| t.leaf);
        match (leaf, Down::decode(payload)) {
            (Ok(Leaf::Desired), Ok(message)) => Some(LinkEvent::Desired(message)),
            (Ok(Leaf::StreamIn), Ok(message)) if self.up => Some(LinkEvent::Stream(message)),
            // It waited at the broker while the link was down, and whoever asked was told that
            // it failed: what was to be run then must not be run now.
            (Ok(Leaf::StreamIn), Ok(_)) => None,
            (_, Err(error)) => {
                tracing::warn!(%topic, %error, "a message was refused");
                None
            }
            (_, Ok(_)) => {
                tracing::warn!(%topic, "a message came on an unexpected topic");
                None
            }
        }
    }
}

fn why_lost(error: &ConnectionError) -> String {
    match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. })
            if *reason_code == DisconnectReasonCode::SessionTakenOver =>
        {
            "another node has connected with this node's id; was its state directory copied?".into()
        }
        error => error.to_string(),
    }
}

/// The session with one cluster, for a client that has just started.
fn options(address: (String, u16), node: ChildId, incarnation: u64) -> anyhow::Result<MqttOptions> {
    let mut options = MqttOptions::new(client_id(node), address);
    options.set_keep_alive(KEEP_ALIVE_S);
    options.set_session_mode(SessionMode::Persistent);
    // A client that has just started knows nothing of an older session, and the standard
    // forbids it to go on with one; from the first connection on it does know.
    options.set_clean_start(true);
    options.set_session_expiry_interval(Some(SESSION_EXPIRY_S));
    options.set_max_packet_size(Some(u32::try_from(PACKET_BYTES_MAX)?));
    options.set_outgoing_inflight_upper_limit(UNCONFIRMED_MAX);
    // A report that follows an acknowledgement would wait for the broker's, some 40 ms.
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let offline = Up::Presence { online: false, incarnation }.encode()?;
    let topic = Topic { node, leaf: Leaf::Presence }.to_string();
    options.set_last_will(LastWill::new(topic, offline, QoS::AtLeastOnce, true, None));
    Ok(options)
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("node", &self.sender.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
