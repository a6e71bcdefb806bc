//! Puppets as nodes of a real cluster, over real connections, in one thread of this process.

use crate::progress;
use crate::puppet::Puppet;
use anyhow::Context;
use marram_engine_core::{Input, Now};
use marram_protocol::topic::{Leaf, Topic, client_id};
use marram_protocol::v1::{Down, Telemetry, Up};
use rumqttc::mqttbytes::v5::{LastWill, SubscribeFilter};
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, PublishOptions, QoS,
};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often a node that has nothing new tells its telemetry and is heard of by MQTT, as
/// `marram-node` does.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(60);
const KEEP_ALIVE_S: u16 = 60;

/// Longest wait for the cluster to take a connection.
const CONNECT_S_MAX: u64 = 40;

/// What a node has on its way to the cluster, as in `marram-node`.
const QUEUE_MAX: u16 = 64;

/// Nodes in a thread of this process, from one number up to another.
pub(crate) struct Crowd {
    orders: mpsc::Sender<(u32, u32)>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Crowd {
    pub(crate) fn new(port: u16) -> Self {
        let (orders, taken) = mpsc::channel(2);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let ended = runtime.block_on(crowd(port, taken));
            if let Err(error) = &ended {
                // What waits for these nodes would only say that they are not there.
                progress(&format!("the crowd broke up: {error:#}"));
            }
            ended
        });
        Self { orders, thread }
    }

    pub(crate) fn add(&self, from: u32, to: u32) -> anyhow::Result<()> {
        self.orders.try_send((from, to)).context("the crowd has left")
    }

    /// Tells if a node was lost on the way.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        drop(self.orders);
        self.thread.join().ok().context("the crowd's thread broke")?
    }
}

/// Runs nodes until there are no more orders, or until one loses its connection.
async fn crowd(port: u16, mut orders: mpsc::Receiver<(u32, u32)>) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut nodes = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((from, to)) = order else { return Ok(()) };
                for number in from..to {
                    let (node, events) = Node::new(port, number, started)?;
                    // Spread over the time between two heartbeats, as they are where nodes
                    // start by themselves.
                    let first = HEARTBEAT / (to - from) * (number - from);
                    nodes.spawn(node.run(events, first));
                }
            }
            Some(ended) = nodes.join_next() => {
                return ended?.context("a simulated node lost its cluster");
            }
        }
    }
}

/// A node as its cluster sees it.
struct Node {
    puppet: Puppet,
    client: AsyncClient,
    started: Instant,
}

/// The node has no restarts, so any number is as good.
const INCARNATION: u64 = 1;

impl Node {
    fn new(port: u16, number: u32, started: Instant) -> anyhow::Result<(Self, EventLoop)> {
        let puppet = Puppet::new(number, now(started)?)?;
        let id = puppet.id();
        let mut options = MqttOptions::new(client_id(id), ("127.0.0.1", port));
        let presence = Topic { node: id, leaf: Leaf::Presence }.to_string();
        let offline = Up::Presence { online: false, incarnation: INCARNATION }.encode()?;
        options
            .set_keep_alive(KEEP_ALIVE_S)
            .set_clean_start(true)
            .set_session_expiry_interval(Some(3600))
            .set_outgoing_inflight_upper_limit(QUEUE_MAX)
            .set_network_options(network())
            .set_last_will(LastWill::new(presence, offline, QoS::AtLeastOnce, true, None));
        let (client, events) =
            AsyncClient::builder(options).capacity(usize::from(QUEUE_MAX)).try_build()?;
        Ok((Self { puppet, client, started }, events))
    }

    async fn run(mut self, mut events: EventLoop, first: Duration) -> anyhow::Result<()> {
        let mut heartbeat = tokio::time::interval_at(Instant::now() + first, HEARTBEAT);
        loop {
            // Polling again goes on where it was given up.
            tokio::select! {
                event = events.poll() => match event? {
                    Event::Incoming(Packet::ConnAck(_)) => self.arrive()?,
                    Event::Incoming(Packet::SubAck(_)) => self.handle(Input::LinkUp { preferred: None })?,
                    Event::Incoming(Packet::Publish(message)) => {
                        self.handle(Input::Parent(Down::decode(&message.payload)?))?;
                    }
                    _ => {}
                },
                _ = heartbeat.tick() => self.handle(Input::Telemetry(Telemetry {
                    incarnation: INCARNATION,
                    cpu_permille: 20,
                    memory_used_mib: 300,
                    disk_free_mib: 10_000,
                    ..Telemetry::default()
                }))?,
            }
        }
    }

    fn handle(&mut self, input: Input) -> anyhow::Result<()> {
        for message in self.puppet.handle(now(self.started)?, input) {
            let (leaf, options) = match message {
                Up::Telemetry(_) => (Leaf::Telemetry, PublishOptions::at_most_once()),
                _ => (Leaf::Report, PublishOptions::at_least_once()),
            };
            self.say(leaf, &message, options)?;
        }
        Ok(())
    }

    fn arrive(&self) -> anyhow::Result<()> {
        let online = Up::Presence { online: true, incarnation: INCARNATION };
        self.say(Leaf::Presence, &online, PublishOptions::at_least_once().retained())?;
        let filters = [Leaf::Desired, Leaf::StreamIn].map(|leaf| {
            let topic = Topic { node: self.puppet.id(), leaf }.to_string();
            SubscribeFilter::new(topic, QoS::AtLeastOnce)
        });
        Ok(self.client.try_subscribe_many(filters)?)
    }

    fn say(&self, leaf: Leaf, message: &Up, options: PublishOptions) -> anyhow::Result<()> {
        let topic = Topic { node: self.puppet.id(), leaf }.to_string();
        Ok(self.client.try_publish(topic, message.encode()?, options)?)
    }
}

/// All come at once, on a machine that has other things to do.
fn network() -> NetworkOptions {
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_S_MAX);
    network
}

fn now(started: Instant) -> anyhow::Result<Now> {
    let mono_ms = u64::try_from(started.elapsed().as_millis())?;
    Ok(Now { mono_ms, unix_ms: 1_800_000_000_000 + mono_ms })
}
