//! A cluster that does what it is told at once, on the real tunnel; and tests of the
//! connection itself.

use crate::harness::{PATIENCE, TestRoot, document};
use marram_protocol::desired::{Desired, Step};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{
    CREDIT_BYTES, ChildKind, Down, ExitCause, Generation, Hello, InstanceStatus, NodeRef,
    OperationEnd, Output, Resources, Scope, StreamEnd, StreamFault, StreamId, StreamRequest,
    Summary, Up,
};
use marram_tunnel::Dialer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Input that the program `slow` takes by itself.
pub(crate) const SLOW_BYTES: u32 = 300;

/// A cluster of one node that runs everything.
pub(crate) struct FakeCluster {
    /// Things that happen to the cluster from outside.
    orders: mpsc::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) enum Order {
    /// The node tells of an instance.
    Status(InstanceStatus),
    /// Output for followers of logs.
    Output(Vec<u8>),
    /// The program `slow` takes more input; it is the first stream of the connection.
    Grant(u32),
    /// Anything.
    Say(Box<Up>),
    /// The connection is gone.
    Leave,
}

pub(crate) fn id(number: u8) -> ChildId {
    ChildId([number; 12])
}

pub(crate) fn status(instance: InstanceId, state: InstanceState) -> InstanceStatus {
    let node = NodeRef { id: id(200), name: "n1".into(), address: "127.0.0.1".into() };
    InstanceStatus {
        instance,
        revision: 1,
        state,
        detail: String::new(),
        restarts: 0,
        exit: None,
        since_unix_ms: 1_795_342_753_280,
        node: Some(node),
    }
}

pub(crate) fn hello(number: u8, name: &str, generation: Generation) -> Up {
    let capacity = Resources {
        memory_mib: 16_000,
        cpu_millicores: 8000,
        storage_mib: 100_000,
        ..Resources::default()
    };
    Up::Hello(Hello {
        child: id(number),
        kind: ChildKind::Cluster,
        name: name.into(),
        version: "0.1.0".into(),
        incarnation: 1,
        generation,
        summary: Summary {
            nodes: 1,
            capacity,
            reserved: Resources::default(),
            largest_free: capacity,
            architectures: vec!["amd64".into()],
            virtualizations: vec!["container".into(), "docker".into(), "native".into()],
            location: "48.1,11.5,1000".into(),
            ..Summary::default()
        },
        facts: Vec::new(),
        tree: 0,
        preferred: None,
        address: String::new(),
        node_address: String::new(),
        labels: Vec::new(),
    })
}

impl FakeCluster {
    pub(crate) fn start(tunnel: SocketAddr, number: u8, name: &str) -> Self {
        let (orders, receiver) = mpsc::channel(64);
        let name = name.to_owned();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(run(tunnel, number, &name, receiver));
        });
        Self { orders, thread: Some(thread) }
    }

    pub(crate) fn order(&self, order: Order) {
        self.orders.blocking_send(order).ok().unwrap();
    }

    pub(crate) fn leave(mut self) {
        // It may have left already, with the root.
        drop(self.orders.blocking_send(Order::Leave));
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Cluster {
    up: marram_tunnel::Sender<Up>,
    desired: Desired,
    statuses: BTreeMap<InstanceId, InstanceStatus>,
    followers: Vec<StreamId>,
}

async fn run(tunnel: SocketAddr, number: u8, name: &str, mut orders: mpsc::Receiver<Order>) {
    let dialer = Dialer::new(&format!("http://{tunnel}")).unwrap();
    let connection = dialer.connect().await.unwrap();
    let mut receiver = connection.receiver;
    let mut cluster = Cluster {
        up: connection.sender,
        desired: Desired::default(),
        statuses: BTreeMap::new(),
        followers: Vec::new(),
    };
    cluster.say(hello(number, name, Generation::default())).await;
    cluster.report(Scope::Snapshot { first: true, last: true }, Vec::new()).await;
    loop {
        tokio::select! {
            message = receiver.recv() => match message {
                Ok(Some(message)) => cluster.hear(message).await,
                _ => return,
            },
            order = orders.recv() => match order {
                Some(Order::Status(status)) => {
                    cluster.statuses.insert(status.instance, status.clone());
                    cluster.report(Scope::Change, vec![status]).await;
                }
                Some(Order::Output(bytes)) => {
                    for stream in cluster.followers.clone() {
                        cluster.output(stream, bytes.clone()).await;
                    }
                }
                Some(Order::Grant(bytes)) => {
                    cluster.say(Up::StreamCredit { stream: StreamId(1), bytes }).await;
                }
                Some(Order::Say(message)) => cluster.say(*message).await,
                Some(Order::Leave) | None => return,
            },
        }
    }
}

impl Cluster {
    async fn say(&self, message: Up) {
        // The root may have gone already.
        drop(self.up.send(&message).await);
    }

    async fn report(&self, scope: Scope, statuses: Vec<InstanceStatus>) {
        let generation = self.desired.generation();
        self.say(Up::Observed { generation, scope, statuses }).await;
    }

    async fn output(&self, stream: StreamId, bytes: Vec<u8>) {
        self.say(Up::StreamData { stream, output: Output::Stdout, bytes }).await;
    }

    async fn end(&self, stream: StreamId, end: StreamEnd) {
        self.say(Up::StreamEnd { stream, end }).await;
    }

    async fn hear(&mut self, message: Down) {
        match message {
            Down::Welcome { epoch, .. } => self.desired.welcome(epoch),
            Down::StreamOpen { stream, request } => self.open(stream, request).await,
            // What is typed comes back, and its end ends the program.
            Down::StreamData { stream, bytes } if bytes.is_empty() => {
                self.end(stream, StreamEnd::Exited(ExitCause::Code(7))).await;
            }
            Down::StreamData { stream, bytes } => self.output(stream, bytes).await,
            Down::StreamResize { stream, rows, columns } => {
                self.output(stream, format!("{rows}x{columns}").into_bytes()).await;
            }
            Down::StreamClose { stream } => self.followers.retain(|open| *open != stream),
            Down::StreamCredit { .. } | Down::Rejected { .. } => {}
            Down::Operate { operation, child, .. } => {
                let end = match child.as_deref() {
                    Some("c8c8c8c8c8c8c8c8c8c8c8c8") => OperationEnd::Done,
                    other => OperationEnd::NotFound(format!("c1 has no child {other:?}")),
                };
                self.say(Up::Operated { operation, end }).await;
            }
            other => match self.desired.receive(other) {
                Step::Ask(question) => self.say(*question).await,
                Step::Applied { changed, whole } => {
                    self.follow(changed.into_iter().collect()).await;
                    if whole {
                        let all = self.statuses.values().cloned().collect();
                        self.report(Scope::Snapshot { first: true, last: true }, all).await;
                    }
                }
                Step::Ignored | Step::TooMany(_) => {}
            },
        }
    }

    async fn follow(&mut self, changed: Vec<InstanceId>) {
        for instance in changed {
            let wanted = self.desired.workloads().contains_key(&instance);
            let states: &[InstanceState] = match wanted {
                true => &[InstanceState::NodeScheduled, InstanceState::Running],
                false => &[InstanceState::Undeployed],
            };
            for state in states {
                let status = status(instance, *state);
                self.statuses.insert(instance, status.clone());
                self.report(Scope::Change, vec![status]).await;
            }
            if !wanted {
                self.statuses.remove(&instance);
            }
        }
    }

    async fn open(&mut self, stream: StreamId, request: StreamRequest) {
        match request {
            StreamRequest::Explain { instance } => {
                let line = format!("{{\"instance\":\"{instance}\"}}\n");
                self.output(stream, line.into_bytes()).await;
                self.end(stream, StreamEnd::Done).await;
            }
            StreamRequest::Children | StreamRequest::ChildrenOf { .. } => {
                let line = format!("{{\"node_id\":\"{}\",\"name\":\"n1\"}}\n", id(200));
                self.output(stream, line.into_bytes()).await;
                self.end(stream, StreamEnd::Done).await;
            }
            StreamRequest::Logs { instance, tail_lines, follow } => {
                let lines = ["one\n", "two\n", "three\n"];
                let skip = tail_lines.map_or(0, |tail| 3 - usize::try_from(tail).unwrap().min(3));
                let text = format!("{instance}\n{}", lines[skip..].concat());
                self.output(stream, text.into_bytes()).await;
                match follow {
                    true => self.followers.push(stream),
                    false => self.end(stream, StreamEnd::Done).await,
                }
            }
            StreamRequest::Exec { argv, .. } if argv[0] == "missing" => {
                let why = "looking for the program: \"missing\" is nowhere".to_owned();
                self.end(stream, StreamEnd::Fault(StreamFault::NotFound, why)).await;
            }
            StreamRequest::Exec { argv, terminal, .. } => {
                self.output(stream, format!("{argv:?} {terminal:?}").into_bytes()).await;
                let bytes = if argv[0] == "slow" { SLOW_BYTES } else { CREDIT_BYTES };
                self.say(Up::StreamCredit { stream, bytes }).await;
            }
        }
    }
}

#[test]
fn a_silent_cluster_is_unknown_and_its_instances_too() {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    root.admin.post("/api/v1/apply", document("shop", &["web"])).expect(200);
    let running = |reply: &crate::harness::Reply| reply.text.contains("\"state\":\"running\"");
    let all = root.admin.until("/api/v1/instances", running).json();
    let path = format!("/api/v1/instances/{}", all["items"][0]["instance_id"].as_str().unwrap());
    cluster.leave();
    let lost = root.admin.until(&path, |reply| !running(reply)).json();
    assert_eq!(lost["state"], "unknown");
    assert_eq!(lost["oakestra_state"], "NODE_SCHEDULED");
    assert_eq!(lost["cluster"]["name"], "c1");
    assert_eq!(root.admin.get("/api/clusters/active").json(), serde_json::json!([]));
    assert_eq!(root.admin.get("/api/clusters/").json()[0]["active"], false);
    // The same cluster with an empty disk: told everything again, and it runs again.
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    root.admin.until(&path, running);
    // A second connection of the same cluster takes the place of the first.
    let second = FakeCluster::start(root.tunnel, 1, "c1");
    cluster_ends(cluster);
    root.admin.until(&path, running);
    assert_eq!(root.admin.get("/api/clusters/").json().as_array().unwrap().len(), 1);
    second.leave();
}

fn cluster_ends(mut cluster: FakeCluster) {
    let deadline = std::time::Instant::now() + PATIENCE;
    let thread = cluster.thread.take().unwrap();
    while !thread.is_finished() {
        assert!(std::time::Instant::now() < deadline, "the first connection was not ended");
        std::thread::yield_now();
    }
    thread.join().unwrap();
}

#[test]
fn a_connection_that_does_not_say_hello_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(async {
        let dialer = Dialer::new(&format!("http://{}", root.tunnel)).unwrap();
        let mut connection = dialer.connect().await.unwrap();
        connection.sender.send(&Up::Presence { online: true, incarnation: 1 }).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, connection.receiver.recv()).await.unwrap();
        assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
        // One that changes its name half-way is ended too.
        let mut connection = dialer.connect().await.unwrap();
        for number in [1, 2] {
            let hello = hello(number, "c", Generation::default());
            connection.sender.send(&hello).await.unwrap();
        }
        let ended = async { while let Ok(Some(_)) = connection.receiver.recv().await {} };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
    });
    assert_eq!(root.admin.get("/api/v1/clusters").json()["items"].as_array().unwrap().len(), 1);
}
