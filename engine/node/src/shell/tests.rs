//! A whole node between a cluster that is made of a bare endpoint and a backend with moods.

use super::*;
use crate::backends::watched;
use crate::moody::{Mood, Moody};
use marram_broker::{
    AllowAll, Broker, Config as BrokerConfig, ConnectionEvent, LocalClient, LocalItem, Qos, Reason,
};
use marram_protocol::id::ServiceId;
use marram_protocol::state::InstanceState;
use marram_protocol::topic::{Leaf, Topic};
use marram_protocol::v1::{Generation, Resources, ServiceSpec, Workload};
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const NODE: ChildId = ChildId([9; 12]);
const EPOCH: u64 = 3;

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(40), future).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// What the node takes for its cluster.
struct Cluster {
    address: SocketAddr,
    broker: Broker,
    heard: LocalClient,
}

impl Cluster {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let broker = Broker::new(BrokerConfig::default(), Arc::new(AllowAll));
        let heard = broker.local_with_events();
        heard.subscribe(&["nodes/+/report", "nodes/+/telemetry"]).unwrap();
        let serves = broker.clone();
        tokio::spawn(async move { serves.serve(listener, std::future::pending()).await });
        Self { address, broker, heard }
    }

    fn tell(&self, message: &Down) {
        let topic = Topic { node: NODE, leaf: Leaf::Desired }.to_string();
        let bytes = message.encode().unwrap().into();
        self.broker.try_publish(&topic, bytes, Qos::AtLeastOnce, false, None).unwrap();
    }

    /// Waits for a message for which `find` has something to say.
    async fn hear<T>(&mut self, what: &str, find: impl Fn(Up) -> Option<T>) -> T {
        soon(what, async {
            loop {
                if let LocalItem::Message(message) = self.heard.recv().await
                    && let Some(found) = find(Up::decode(&message.payload).unwrap())
                {
                    return found;
                }
            }
        })
        .await
    }

    async fn hello(&mut self) -> Generation {
        let hello = |up| match up {
            Up::Hello(hello) => Some(hello.generation),
            _ => None,
        };
        self.hear("hello", hello).await
    }

    async fn state(&mut self, id: InstanceId, state: InstanceState) {
        let shows = |up| match up {
            Up::Observed { statuses, .. } => {
                statuses.iter().any(|s| s.instance == id && s.state == state).then_some(())
            }
            _ => None,
        };
        self.hear(state.name(), shows).await;
    }

    async fn disconnected(&mut self) -> Reason {
        soon("a disconnection", async {
            loop {
                let item = self.heard.recv().await;
                if let LocalItem::Event(ConnectionEvent::Disconnected { reason, .. }) = item {
                    return reason;
                }
            }
        })
        .await
    }

    fn welcome(&self) {
        self.tell(&Down::Welcome { epoch: EPOCH, unix_ms: 1 });
    }

    /// The next change on top of generation `base`.
    fn change(&self, base: u64, upserts: Vec<Workload>, removes: Vec<InstanceId>) {
        let at = |number| Generation { epoch: EPOCH, number };
        let (base, generation) = (if base == 0 { Generation::default() } else { at(base) }, base);
        let generation = at(generation + 1);
        self.tell(&Down::Change { base, generation, upserts, removes });
    }
}

fn id(number: u32) -> InstanceId {
    InstanceId { service: ServiceId([1; 12]), number }
}

fn workload(number: u32) -> Workload {
    let spec = ServiceSpec {
        virtualization: "moody".into(),
        image: "x".into(),
        resources: Resources::default(),
        stop_grace_s: 1,
        ..ServiceSpec::default()
    };
    Workload { instance: id(number), revision: 1, name: format!("w{number}"), spec }
}

struct Node {
    give: watch::Sender<Order>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Node {
    fn start(dir: &Path, cluster: SocketAddr, moody: &Moody, order: Order) -> Self {
        Self::with(dir, cluster, Some(moody), order, None)
    }

    fn with(
        dir: &Path,
        cluster: SocketAddr,
        moody: Option<&Moody>,
        order: Order,
        ready: Option<PathBuf>,
    ) -> Self {
        let file = dir.join("node.toml");
        let state = dir.display();
        let text = format!("state_dir = '{state}'\ncluster = 'mqtt://{cluster}'\nname = 'n'\n");
        std::fs::write(&file, text).unwrap();
        let config = Config::read(&file).unwrap();
        let mounted = moody.map(|moody| watched(Arc::new(moody.clone())));
        let mounted = mounted.into_iter().collect();
        let mut shell = Shell::with(config, mounted, NODE, ready).unwrap();
        shell.drain_spare = Duration::from_millis(300);
        let (give, orders) = watch::channel(order);
        Self { give, running: tokio::spawn(shell.run(orders)) }
    }

    async fn stop(self) {
        self.give.send_replace(Order::Stop);
        soon("the node's end", self.running).await.unwrap().unwrap();
    }
}

/// A node that runs one workload.
async fn running(dir: &Path, cluster: &mut Cluster, moody: &Moody) -> Node {
    let node = Node::start(dir, cluster.address, moody, Order::Run);
    cluster.hello().await;
    cluster.welcome();
    cluster.change(0, vec![workload(0)], vec![]);
    cluster.state(id(0), InstanceState::Running).await;
    node
}

#[tokio::test]
async fn an_ended_program_leaves_workloads_and_takes_them_up_again() {
    let (dir, moody) = (tempfile::tempdir().unwrap(), Moody::new(Mood::Well));
    let mut cluster = Cluster::start().await;
    let node = running(dir.path(), &mut cluster, &moody).await;
    node.stop().await;
    assert_eq!(cluster.disconnected().await, Reason::Normal);
    assert_eq!((moody.held(), moody.starts()), (1, 1));
    let node = Node::start(dir.path(), cluster.address, &moody, Order::Run);
    let held = cluster.hello().await;
    assert_eq!(held, Generation { epoch: EPOCH, number: 1 });
    cluster.welcome();
    cluster.state(id(0), InstanceState::Running).await;
    assert_eq!(moody.starts(), 1, "it was not started again");
    cluster.change(1, vec![], vec![id(0)]);
    cluster.state(id(0), InstanceState::Undeployed).await;
    assert_eq!(moody.held(), 0);
    node.stop().await;
}

#[tokio::test]
async fn a_backend_that_hangs_holds_up_nothing_else() {
    let (dir, moody) = (tempfile::tempdir().unwrap(), Moody::new(Mood::Well));
    let mut cluster = Cluster::start().await;
    let node = running(dir.path(), &mut cluster, &moody).await;
    moody.be(Mood::Hangs);
    soon("a sample", moody.usages().changed()).await.unwrap();
    // It says no to what it cannot serve, while the sample waits.
    let mut other = workload(1);
    other.spec.virtualization = "none".into();
    cluster.change(1, vec![other], vec![]);
    let asked = Instant::now();
    cluster.state(id(1), InstanceState::Refused).await;
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    node.stop().await;
}

#[tokio::test]
async fn a_drain_ends_even_if_a_backend_does_not_answer() {
    let (dir, moody) = (tempfile::tempdir().unwrap(), Moody::new(Mood::Well));
    let mut cluster = Cluster::start().await;
    running(dir.path(), &mut cluster, &moody).await.stop().await;
    moody.be(Mood::Away);
    let node = Node::start(dir.path(), cluster.address, &moody, Order::Drain);
    let error = soon("the drain's end", node.running).await.unwrap().unwrap_err().to_string();
    assert!(error.contains(&id(0).to_string()) && error.contains("moody"), "{error}");
    assert_eq!(moody.held(), 1);
    // And one that can be done is done.
    moody.be(Mood::Well);
    let node = Node::start(dir.path(), cluster.address, &moody, Order::Drain);
    soon("the drain's end", node.running).await.unwrap().unwrap();
    assert_eq!(moody.held(), 0);
}

#[tokio::test]
async fn a_cluster_that_forgot_the_node_hears_hello_again() {
    let (dir, moody) = (tempfile::tempdir().unwrap(), Moody::new(Mood::Well));
    let mut cluster = Cluster::start().await;
    let node = running(dir.path(), &mut cluster, &moody).await;
    cluster.tell(&Down::Rejected { reason: "who are you".into() });
    cluster.hello().await;
    cluster.state(id(0), InstanceState::Running).await;
    node.stop().await;
}

#[tokio::test]
async fn a_disk_that_fails_does_not_keep_the_program_from_ending() {
    let (dir, moody) = (tempfile::tempdir().unwrap(), Moody::new(Mood::Well));
    let mut cluster = Cluster::start().await;
    let node = running(dir.path(), &mut cluster, &moody).await;
    std::fs::remove_dir_all(dir.path().join("ledger")).unwrap();
    cluster.change(1, vec![workload(1)], vec![]);
    node.stop().await;
    assert_eq!(moody.starts(), 1, "nothing was done that is not written down");
}

#[tokio::test]
async fn a_node_without_backends_is_ready_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start().await;
    let ready = dir.path().join("ready");
    let node = Node::with(dir.path(), cluster.address, None, Order::Run, Some(ready.clone()));
    cluster.hello().await;
    assert_eq!(std::fs::read_to_string(ready).unwrap(), "ready=true\n");
    node.stop().await;
}
