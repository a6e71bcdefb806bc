//! Orchestrators with many children: real clusters under a root, and under one cluster nodes
//! that say all that a node says and run nothing.

use crate::gauges::{Gauge, port, pss_mib};
use crate::progress;
use crate::scenes;
use crate::table::{Promise, Table};
use anyhow::Context;
use marram_e2e::{Api, Site, Tier, programs, wait_for};
use marram_protocol::id::ChildId;
use marram_protocol::topic::{Leaf, Topic, client_id};
use marram_protocol::v1::{ChildKind, Generation, Hello, Resources, Scope, Summary, Telemetry, Up};
use rumqttc::mqttbytes::v5::{LastWill, SubscribeFilter};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS};
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Clusters under the root, and nodes under a cluster, that the budgets speak of.
const CLUSTERS: usize = 10;
const NODES: u32 = 10;

/// As many nodes make the cost of one visible beside everything else.
const MANY_NODES: u32 = 210;

/// Every node is heard of once in this time.
const WINDOW: Duration = HEARTBEAT;

/// Until what an arrival takes for a moment is given back.
const CALM: Duration = Duration::from_secs(4);

/// How often a node that has nothing new tells its telemetry and is heard of by MQTT, as
/// `marram-node` does.
const HEARTBEAT: Duration = Duration::from_secs(60);
const KEEP_ALIVE_S: u16 = 60;

/// What a node has on its way to the cluster: it says four things at once when it arrives.
const QUEUE_MAX: u16 = 16;

pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let site = Site::start("[containerd]\nenabled = false\n")?;
    let api = site.api()?;
    let crowd = Crowd::new(port(&site, "cluster", "mqtt_listen")?);
    progress("ten nodes");
    // The site has a real node too.
    crowd.add(1, NODES)?;
    nodes(&api, NODES)?;
    scenes::settle(&site)?;
    let cluster = site.pid(Tier::Cluster)?;
    let with_ten = ten_nodes(table, cluster)?;

    progress("two hundred nodes more");
    crowd.add(NODES, MANY_NODES)?;
    nodes(&api, MANY_NODES)?;
    std::thread::sleep(CALM);
    let each_kib = (pss_mib(cluster)? - with_ten) * 1024.0 / f64::from(MANY_NODES - NODES);
    nodes(&api, MANY_NODES)?;
    table.promised(
        Promise {
            what: "each further idle node in a cluster, connection included",
            budget: "≤ 32 KiB",
            known: "rumqttd alone 50 to 75 KiB a client",
        },
        &[(each_kib, 32.0)],
        format!("{each_kib:.1} KiB ({} nodes, no encryption yet)", MANY_NODES - NODES),
    );
    crowd.end()?;

    progress("ten clusters");
    ten_clusters(table, &site, &api)
}

/// The first cluster must be alone: several processes of one program share its code, and each
/// would count a part of it only. Returns its memory.
fn ten_nodes(table: &mut Table, cluster: u32) -> anyhow::Result<f64> {
    std::thread::sleep(CALM);
    let gauge = Gauge::start(cluster)?;
    std::thread::sleep(WINDOW);
    let processor = gauge.end()?.processor_percent;
    let memory = pss_mib(cluster)?;
    table.promised(
        Promise {
            what: "cluster with embedded broker, 10 nodes idle: memory",
            budget: "≤ 8 MiB",
            known: "Oakestra's stack about 0.5 GB in 12 processes",
        },
        &[(memory, 8.0)],
        format!("{memory:.2} MiB"),
    );
    table.promised(
        Promise {
            what: "cluster, the same: processor", budget: "≤ 0.2 % of one core", known: ""
        },
        &[(processor, 0.2)],
        format!("{processor:.3} %"),
    );
    Ok(memory)
}

fn ten_clusters(table: &mut Table, site: &Site, api: &Api) -> anyhow::Result<()> {
    let _clusters: Vec<Cluster> =
        (1..CLUSTERS).map(|number| Cluster::start(site, number)).collect::<Result<_, _>>()?;
    let connected = || {
        let clusters = api.items("clusters");
        clusters.iter().filter(|cluster| cluster["connected"] == true).count() == CLUSTERS
    };
    wait_for("all clusters at the root", || connected().then_some(()))?;
    std::thread::sleep(CALM);
    let root = site.pid(Tier::Root)?;
    let gauge = Gauge::start(root)?;
    std::thread::sleep(WINDOW);
    let processor = gauge.end()?.processor_percent;
    let memory = pss_mib(root)?;
    table.promised(
        Promise {
            what: "root, 10 clusters idle, REST serving: memory",
            budget: "≤ 8 MiB",
            known: "Ankaios server 5.38 MiB; Oakestra 619 MB",
        },
        &[(memory, 8.0)],
        format!("{memory:.2} MiB"),
    );
    table.noted("root, the same: processor", format!("{processor:.3} % of one core"));
    Ok(())
}

/// Waits until the root knows of so many nodes in all.
fn nodes(api: &Api, count: u32) -> anyhow::Result<()> {
    let sum = || -> u64 { api.items("clusters").iter().filter_map(|c| c["nodes"].as_u64()).sum() };
    scenes::calmly("all nodes at the root", || (sum() == u64::from(count)).then_some(()))
}

/// A further cluster of the site's root; ends with this value.
struct Cluster(Child);

impl Cluster {
    fn start(site: &Site, number: usize) -> anyhow::Result<Self> {
        let folder = site.folder().join(format!("further-{number}"));
        fs::create_dir(&folder)?;
        let config = folder.join("cluster.toml");
        let text = format!(
            "name = \"further-{number}\"\nparent = \"http://127.0.0.1:{}\"\n\
             mqtt_listen = \"127.0.0.1:0\"\nstate_dir = \"{}\"\n",
            port(site, "root", "tunnel_listen")?,
            folder.display()
        );
        fs::write(&config, text)?;
        let child = Command::new(programs()?.join("marram-cluster"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(File::create(folder.join("log"))?)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Ended already is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Nodes in a thread of this process, from one number up to another.
struct Crowd {
    orders: mpsc::Sender<(u32, u32)>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Crowd {
    fn new(port: u16) -> Self {
        let (orders, taken) = mpsc::channel(2);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(crowd(port, taken))
        });
        Self { orders, thread }
    }

    fn add(&self, from: u32, to: u32) -> anyhow::Result<()> {
        self.orders.try_send((from, to)).context("the crowd has left")
    }

    /// Tells if a node was lost on the way.
    fn end(self) -> anyhow::Result<()> {
        drop(self.orders);
        self.thread.join().ok().context("the crowd's thread broke")?
    }
}

/// Runs nodes until there are no more orders, or until one loses its connection.
async fn crowd(port: u16, mut orders: mpsc::Receiver<(u32, u32)>) -> anyhow::Result<()> {
    let mut nodes = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((from, to)) = order else { return Ok(()) };
                for number in from..to {
                    let (node, events) = Node::new(port, number)?;
                    nodes.spawn(node.run(events));
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
    id: ChildId,
    number: u32,
    client: AsyncClient,
}

/// The node has no restarts, so any number is as good.
const INCARNATION: u64 = 1;

impl Node {
    fn new(port: u16, number: u32) -> anyhow::Result<(Self, EventLoop)> {
        let mut bytes = [9; 12];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let id = ChildId(bytes);
        let mut options = MqttOptions::new(client_id(id), ("127.0.0.1", port));
        let presence = Topic { node: id, leaf: Leaf::Presence }.to_string();
        let offline = Up::Presence { online: false, incarnation: INCARNATION }.encode()?;
        options
            .set_keep_alive(KEEP_ALIVE_S)
            .set_clean_start(true)
            .set_session_expiry_interval(Some(3600))
            .set_outgoing_inflight_upper_limit(QUEUE_MAX)
            .set_last_will(LastWill::new(presence, offline, QoS::AtLeastOnce, true, None));
        let (client, events) =
            AsyncClient::builder(options).capacity(usize::from(QUEUE_MAX)).try_build()?;
        Ok((Self { id, number, client }, events))
    }

    async fn run(self, mut events: EventLoop) -> anyhow::Result<()> {
        // Spread over the time between two heartbeats, as they are where nodes start by
        // themselves.
        let first = HEARTBEAT / MANY_NODES * self.number;
        let mut heartbeat = tokio::time::interval_at(Instant::now() + first, HEARTBEAT);
        let mut sequence = 0;
        loop {
            // Polling again goes on where it was given up.
            tokio::select! {
                event = events.poll() => match event? {
                    Event::Incoming(Packet::ConnAck(_)) => self.arrive()?,
                    Event::Incoming(Packet::SubAck(_)) => self.say_hello()?,
                    _ => {}
                },
                _ = heartbeat.tick() => {
                    sequence += 1;
                    let telemetry = Telemetry {
                        incarnation: INCARNATION,
                        sequence,
                        cpu_permille: 20,
                        memory_used_mib: 300,
                        disk_free_mib: 10_000,
                        ..Telemetry::default()
                    };
                    let options = PublishOptions::at_most_once();
                    self.say(Leaf::Telemetry, &Up::Telemetry(telemetry), options)?;
                }
            }
        }
    }

    fn arrive(&self) -> anyhow::Result<()> {
        let online = Up::Presence { online: true, incarnation: INCARNATION };
        self.say(Leaf::Presence, &online, PublishOptions::at_least_once().retained())?;
        let filters = [Leaf::Desired, Leaf::StreamIn].map(|leaf| {
            let topic = Topic { node: self.id, leaf }.to_string();
            SubscribeFilter::new(topic, QoS::AtLeastOnce)
        });
        Ok(self.client.try_subscribe_many(filters)?)
    }

    fn say_hello(&self) -> anyhow::Result<()> {
        let generation = Generation::default();
        let capacity = Resources {
            memory_mib: 3800,
            cpu_millicores: 4000,
            storage_mib: 29_000,
            ..Resources::default()
        };
        let facts = [
            ("hostname", "board"),
            ("architecture", "arm64"),
            ("kernel", "6.6.31+rpt-rpi-v8"),
            ("os", "Debian GNU/Linux 12 (bookworm)"),
            ("board", "Raspberry Pi 4 Model B Rev 1.4"),
            ("cpu", "Cortex-A72"),
            ("cpus", "4"),
            ("memory_mib", "3800"),
            ("disk_mib", "29000"),
            ("cgroups", "v2"),
            ("kvm", "accessible"),
            ("address", "127.0.0.1"),
            ("backend_native", "0.1.0, healthy"),
            ("backend_containerd", "1.6.20, healthy"),
        ];
        let hello = Hello {
            child: self.id,
            kind: ChildKind::Node,
            name: format!("board-{}", self.number),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: INCARNATION,
            generation,
            summary: Summary {
                nodes: 1,
                capacity,
                largest_free: capacity,
                architectures: vec!["arm64".to_owned()],
                virtualizations: ["container", "native", "runc"].map(str::to_owned).to_vec(),
                ..Summary::default()
            },
            facts: facts.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            tree: 0,
            preferred: None,
            address: String::new(),
            node_address: String::new(),
            labels: Vec::new(),
        };
        self.say(Leaf::Report, &Up::Hello(hello), PublishOptions::at_least_once())?;
        let scope = Scope::Snapshot { first: true, last: true };
        let snapshot = Up::Observed { generation, scope, statuses: Vec::new() };
        self.say(Leaf::Report, &snapshot, PublishOptions::at_least_once())
    }

    fn say(&self, leaf: Leaf, message: &Up, options: PublishOptions) -> anyhow::Result<()> {
        let topic = Topic { node: self.id, leaf }.to_string();
        Ok(self.client.try_publish(topic, message.encode()?, options)?)
    }
}
