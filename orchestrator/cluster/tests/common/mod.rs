//! A cluster between a parent and a node that are made of the bare protocols.
#![allow(dead_code, reason = "each test program uses a part")]

use marram_cluster::config::Config;
use marram_cluster::{Error, Ready};
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::state::InstanceState;
use marram_protocol::topic::{Leaf, Topic, client_id};
use marram_protocol::v1::*;
use marram_tunnel::{ChildConnection, Children};
use rumqttc::mqttbytes::v5::{LastWill, Packet, SubscribeFilter};
use rumqttc::{AsyncClient, Event, IncomingPacketSizeLimit, MqttOptions, PublishOptions, QoS};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// What takes longer has failed. Reconnecting after a restart takes some seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Who carries the nodes' messages.
pub(crate) enum Broker {
    Embedded,
    Mosquitto(Box<Mosquitto>),
}

impl Broker {
    /// The line of the configuration file.
    fn line(&self) -> String {
        match self {
            Self::Embedded => "mqtt_listen = '127.0.0.1:0'".to_owned(),
            Self::Mosquitto(broker) => format!("broker = 'mqtt://{}'", broker.address),
        }
    }
}

/// A broker process of the test's own.
pub(crate) struct Mosquitto {
    pub(crate) address: SocketAddr,
    _process: tokio::process::Child,
    _dir: TempDir,
}

impl Mosquitto {
    pub(crate) async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let dir = TempDir::new().unwrap();
        let config = dir.path().join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\n",
            address.port()
        );
        std::fs::write(&config, text).unwrap();
        let process = tokio::process::Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .env("PATH", "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto is installed (make setup)");
        let mut tries = tokio::time::interval(Duration::from_millis(20));
        soon("mosquitto", async {
            while TcpStream::connect(address).await.is_err() {
                tries.tick().await;
            }
        })
        .await;
        Self { address, _process: process, _dir: dir }
    }
}

/// A cluster in this process.
pub(crate) struct Cluster {
    pub(crate) mqtt: SocketAddr,
    /// Where child clusters connect.
    pub(crate) children: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), Error>>,
}

impl Cluster {
    pub(crate) async fn start(dir: &Path, parent: SocketAddr, broker: &Broker) -> Self {
        Self::start_with(dir, parent, broker, "").await
    }

    /// With more in its configuration, which ends in a table.
    pub(crate) async fn start_with(
        dir: &Path,
        parent: SocketAddr,
        broker: &Broker,
        more: &str,
    ) -> Self {
        Self::start_by(dir, &format!("parent = 'http://{parent}'\n{more}"), broker).await
    }

    pub(crate) async fn start_by(dir: &Path, more: &str, broker: &Broker) -> Self {
        let config = dir.join("cluster.toml");
        let state = dir.join("state");
        let text = format!(
            "name = 'site'\nstate_dir = '{}'\n{}\n{more}\n",
            state.display(),
            broker.line()
        );
        std::fs::write(&config, text).unwrap();
        let config = Config::read(&config).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, ready) = oneshot::channel::<Ready>();
        let run = marram_cluster::run(config, |ready| tell.send(ready).unwrap(), async {
            drop(stopped.await)
        });
        let running = tokio::spawn(run);
        let ready = soon("the cluster", ready).await.expect("the cluster starts");
        let mqtt = match broker {
            Broker::Embedded => ready.mqtt_listen.unwrap(),
            Broker::Mosquitto(broker) => broker.address,
        };
        Self { mqtt, children: ready.children_listen, stop, running }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        soon("the cluster's end", self.running).await.unwrap().unwrap();
    }
}

/// A parent that says what the test says.
pub(crate) struct Parent {
    pub(crate) address: SocketAddr,
    children: Children,
    _serving: JoinSet<()>,
}

impl Parent {
    pub(crate) async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (children, run) = marram_tunnel::serve(listener, std::future::pending());
        let mut serving = JoinSet::new();
        serving.spawn(async { run.await.unwrap() });
        Self { address, children, _serving: serving }
    }

    /// The cluster's next connection, with its hello and the end of its snapshot.
    pub(crate) async fn child(&mut self) -> (ChildConnection, Hello, Vec<InstanceStatus>) {
        let mut child = soon("the cluster's connection", self.children.next()).await.unwrap();
        let Up::Hello(hello) = heard(&mut child, "hello").await else { panic!("no hello") };
        let mut all = Vec::new();
        loop {
            let Up::Observed { scope, statuses, .. } = heard(&mut child, "a snapshot").await else {
                panic!("no snapshot");
            };
            all.extend(statuses);
            if matches!(scope, Scope::Snapshot { last: true, .. }) {
                return (child, hello, all);
            }
        }
    }
}

/// The next message of the cluster.
pub(crate) async fn heard(child: &mut ChildConnection, what: &str) -> Up {
    soon(what, child.receiver.recv()).await.unwrap().expect("the connection is open")
}

/// Waits until an instance is in a state at the parent.
pub(crate) async fn observed(child: &mut ChildConnection, state: InstanceState) -> InstanceStatus {
    loop {
        let message = heard(child, state.name()).await;
        if let Up::Observed { statuses, .. } = message
            && let Some(status) = statuses.into_iter().find(|status| status.state == state)
        {
            return status;
        }
    }
}

/// The next message of the cluster about a stream.
pub(crate) async fn stream_message(child: &mut ChildConnection) -> Up {
    loop {
        let message = heard(child, "output of a stream").await;
        if let Up::StreamData { .. } | Up::StreamEnd { .. } | Up::StreamCredit { .. } = message {
            return message;
        }
    }
}

/// A node made of a bare MQTT client.
pub(crate) struct Node {
    pub(crate) id: ChildId,
    pub(crate) incarnation: u64,
    pub(crate) client: AsyncClient,
    desired: mpsc::Receiver<Down>,
    streams: mpsc::Receiver<Down>,
    driving: JoinSet<()>,
}

impl Node {
    /// Connects and subscribes; says nothing yet but that it is there.
    pub(crate) async fn connect(broker: SocketAddr, id: ChildId, incarnation: u64) -> Self {
        let presence = |online| Up::Presence { online, incarnation }.encode().unwrap();
        let topic = |leaf| Topic { node: id, leaf }.to_string();
        let mut options = MqttOptions::new(client_id(id), (broker.ip().to_string(), broker.port()));
        let will =
            LastWill::new(topic(Leaf::Presence), presence(false), QoS::AtLeastOnce, true, None);
        options
            .set_clean_start(true)
            .set_last_will(will)
            .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Unlimited);
        let (client, mut events) = AsyncClient::builder(options).capacity(64).build();
        let (to_desired, desired) = mpsc::channel(1024);
        let (to_streams, streams) = mpsc::channel(1024);
        let (ready, subscribed) = oneshot::channel();
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            let mut ready = Some(ready);
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        if let Some(ready) = ready.take() {
                            ready.send(()).unwrap();
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic: Topic =
                            std::str::from_utf8(&publish.topic).unwrap().parse().unwrap();
                        let queue = match topic.leaf {
                            Leaf::Desired => &to_desired,
                            _ => &to_streams,
                        };
                        queue.send(Down::decode(&publish.payload).unwrap()).await.unwrap();
                    }
                    Ok(_) => {}
                    // As a program that has died: it does not come back.
                    Err(_) => return,
                }
            }
        });
        let filters = [Leaf::Desired, Leaf::StreamIn]
            .map(|leaf| SubscribeFilter::new(topic(leaf), QoS::AtLeastOnce));
        client.subscribe_many(filters).await.unwrap();
        soon("the subscription", subscribed).await.unwrap();
        let node = Self { id, incarnation, client, desired, streams, driving };
        let retained = PublishOptions::at_least_once().retained();
        node.client.publish(topic(Leaf::Presence), presence(true), retained).await.unwrap();
        node
    }

    pub(crate) async fn hello(&self, generation: Generation) {
        let amounts = Resources {
            memory_mib: 1024,
            cpu_millicores: 4000,
            storage_mib: 4096,
            ..Resources::default()
        };
        let summary = Summary {
            nodes: 1,
            capacity: amounts,
            largest_free: amounts,
            architectures: vec!["amd64".into()],
            virtualizations: vec!["container".into()],
            ..Summary::default()
        };
        self.say(Up::Hello(Hello {
            child: self.id,
            kind: ChildKind::Node,
            name: "board".into(),
            version: "0.0.0".into(),
            incarnation: self.incarnation,
            generation,
            summary,
            facts: vec![("address".into(), "127.0.0.1".into())],
            tree: 0,
            preferred: None,
            address: String::new(),
            node_address: String::new(),
            labels: Vec::new(),
        }))
        .await;
    }

    /// Publishes on the topic where the message belongs.
    pub(crate) async fn say(&self, message: Up) {
        let leaf = match &message {
            Up::Presence { .. } => Leaf::Presence,
            Up::Telemetry(_) => Leaf::Telemetry,
            Up::StreamData { .. } | Up::StreamEnd { .. } | Up::StreamCredit { .. } => {
                Leaf::StreamOut
            }
            _ => Leaf::Report,
        };
        self.publish(Topic { node: self.id, leaf }, message.encode().unwrap()).await;
    }

    pub(crate) async fn publish(&self, topic: Topic, bytes: Vec<u8>) {
        let options = PublishOptions::at_least_once();
        self.client.publish(topic.to_string(), bytes, options).await.unwrap();
    }

    pub(crate) async fn snapshot(&self, generation: Generation, statuses: Vec<InstanceStatus>) {
        for message in Up::snapshot(generation, &statuses, 100) {
            self.say(message).await;
        }
    }

    pub(crate) async fn report(&self, generation: Generation, status: InstanceStatus) {
        let scope = Scope::Change;
        self.say(Up::Observed { generation, scope, statuses: vec![status] }).await;
    }

    pub(crate) async fn desired(&mut self) -> Down {
        soon("a desired state", self.desired.recv()).await.expect("the node is connected")
    }

    /// The first of the kind that is waited for; the way there depends on who was quicker.
    pub(crate) async fn told(&mut self, is: impl Fn(&Down) -> bool) -> Down {
        loop {
            let message = self.desired().await;
            if is(&message) {
                return message;
            }
        }
    }

    pub(crate) async fn stream(&mut self) -> Down {
        soon("a stream's message", self.streams.recv()).await.expect("the node is connected")
    }

    /// Dies without a word.
    pub(crate) async fn die(mut self) {
        self.driving.shutdown().await;
    }
}

pub(crate) fn instance() -> InstanceId {
    InstanceId { service: ServiceId([5; 12]), number: 0 }
}

pub(crate) fn workload() -> Workload {
    let spec = ServiceSpec {
        virtualization: "container".into(),
        image: "docker.io/library/nginx:latest".into(),
        resources: Resources { memory_mib: 100, ..Resources::default() },
        stop_grace_s: 10,
        ..ServiceSpec::default()
    };
    Workload { instance: instance(), revision: 0, name: "a.b.c.d".into(), spec }
}

pub(crate) fn running() -> InstanceStatus {
    InstanceStatus::bare(instance(), InstanceState::Running, 1)
}

/// Everything up to a running instance: the parent's epoch is 77.
pub(crate) struct Scene {
    pub(crate) broker: Broker,
    pub(crate) dir: TempDir,
    pub(crate) parent: Parent,
    pub(crate) up: ChildConnection,
    pub(crate) cluster: Cluster,
    pub(crate) cluster_id: ChildId,
    pub(crate) node: Node,
    /// Of the cluster's desired state for the node.
    pub(crate) held: Generation,
}

pub(crate) const AT: Generation = Generation { epoch: 77, number: 1 };

impl Scene {
    pub(crate) async fn running(broker: Broker) -> Self {
        let dir = TempDir::new().unwrap();
        let mut parent = Parent::start().await;
        let cluster = Cluster::start(dir.path(), parent.address, &broker).await;
        let (mut up, hello, statuses) = parent.child().await;
        assert_eq!((hello.kind, hello.name.as_str()), (ChildKind::Cluster, "site"));
        assert_eq!(hello.generation, Generation::default());
        assert!(statuses.is_empty());

        let mut node = Node::connect(cluster.mqtt, ChildId([7; 12]), 1).await;
        node.hello(Generation::default()).await;
        node.snapshot(Generation::default(), vec![]).await;
        // The node is seen before the parent says what it wants.
        loop {
            if let Up::Summary(summary) = heard(&mut up, "a summary").await
                && summary.nodes == 1
            {
                assert_eq!(summary.virtualizations, ["container"]);
                break;
            }
        }
        up.sender.send(&Down::Welcome { epoch: AT.epoch, unix_ms: 0 }).await.unwrap();
        let base = Generation::default();
        let upserts = vec![workload()];
        let change = Down::Change { base, generation: AT, upserts, removes: vec![] };
        up.sender.send(&change).await.unwrap();
        let held = follow(&mut node).await;
        node.report(held, running()).await;
        let status = observed(&mut up, InstanceState::Running).await;
        let seen = status.node.expect("the cluster names the node");
        assert_eq!((seen.id, seen.name.as_str()), (node.id, "board"));
        let cluster_id = hello.child;
        Self { broker, dir, parent, up, cluster, cluster_id, node, held }
    }

    pub(crate) async fn embedded() -> Self {
        Self::running(Broker::Embedded).await
    }

    pub(crate) async fn mosquitto() -> Self {
        Self::running(Broker::Mosquitto(Box::new(Mosquitto::start().await))).await
    }
}

/// Follows the cluster until the workload is there; gives the generation of it.
pub(crate) async fn follow(node: &mut Node) -> Generation {
    let mut desired = marram_protocol::desired::Desired::default();
    loop {
        match desired.receive(node.desired().await) {
            marram_protocol::desired::Step::Ask(up) => node.say(*up).await,
            marram_protocol::desired::Step::Applied { .. } => {
                if desired.workloads().contains_key(&instance()) {
                    assert_eq!(desired.workloads()[&instance()], workload());
                    return desired.generation();
                }
            }
            marram_protocol::desired::Step::Ignored => {}
            step => panic!("{step:?}"),
        }
    }
}
