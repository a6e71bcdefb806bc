//! A cluster with a child cluster: desired state and streams through both, and other parents.

#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod common;

use common::*;
use marram_protocol::desired::{Desired, Step};
use marram_protocol::id::ChildId;
use marram_protocol::state::InstanceState;
use marram_protocol::v1::*;
use marram_tunnel::{ChildConnection, Dialer, ParentConnection};
use tempfile::TempDir;

/// A child cluster made of the bare tunnel.
struct Child {
    id: ChildId,
    connection: ParentConnection,
}

impl Child {
    async fn connect(cluster: &Cluster, generation: Generation) -> Self {
        let address = cluster.children.expect("it takes clusters");
        let dialer = Dialer::new(&format!("http://{address}")).unwrap();
        let connection = soon("the connection", dialer.connect()).await.unwrap();
        let child = Self { id: ChildId([3; 12]), connection };
        let amounts = Resources { memory_mib: 1024, cpu_millicores: 4000, ..Resources::default() };
        let summary = Summary {
            nodes: 1,
            capacity: amounts,
            largest_free: amounts,
            architectures: vec!["amd64".into()],
            virtualizations: vec!["container".into()],
            ..Summary::default()
        };
        child
            .say(Up::Hello(Hello {
                child: child.id,
                kind: ChildKind::Cluster,
                name: "below".into(),
                version: "0.0.0".into(),
                incarnation: 1,
                generation,
                summary,
                facts: Vec::new(),
                tree: 0,
                preferred: None,
                address: String::new(),
                node_address: String::new(),
                labels: Vec::new(),
            }))
            .await;
        for message in Up::snapshot(generation, &[], 100) {
            child.say(message).await;
        }
        child
    }

    async fn say(&self, message: Up) {
        self.connection.sender.send(&message).await.unwrap();
    }

    async fn hear(&mut self) -> Down {
        soon("the cluster", self.connection.receiver.recv()).await.unwrap().expect("connected")
    }

    /// Follows the cluster until the workload is there.
    async fn follow(&mut self) -> Generation {
        let mut desired = Desired::default();
        loop {
            match desired.receive(self.hear().await) {
                Step::Ask(up) => self.say(*up).await,
                Step::Applied { .. } if desired.workloads().contains_key(&instance()) => {
                    return desired.generation();
                }
                _ => {}
            }
        }
    }

    async fn stream(&mut self) -> Down {
        loop {
            let message = self.hear().await;
            if let Down::StreamOpen { .. } | Down::StreamCredit { .. } | Down::StreamData { .. } =
                message
            {
                return message;
            }
        }
    }
}

async fn welcomed(parent: &mut Parent) -> (ChildConnection, Hello) {
    let (up, hello, _) = parent.child().await;
    up.sender.send(&Down::Welcome { epoch: AT.epoch, unix_ms: 0 }).await.unwrap();
    (up, hello)
}

async fn deploy(up: &ChildConnection) {
    let base = Generation::default();
    let change = Down::Change { base, generation: AT, upserts: vec![workload()], removes: vec![] };
    up.sender.send(&change).await.unwrap();
}

#[tokio::test]
async fn desired_state_and_streams_go_through_a_cluster_to_a_cluster_below() {
    let dir = TempDir::new().unwrap();
    let mut parent = Parent::start().await;
    let more = "[children]\nlisten = '127.0.0.1:0'";
    let cluster = Cluster::start_with(dir.path(), parent.address, &Broker::Embedded, more).await;
    let (mut up, hello) = welcomed(&mut parent).await;
    let address = cluster.children.unwrap();
    assert_eq!(hello.address, format!("http://{address}"));
    assert_eq!(hello.node_address, format!("mqtt://{}", cluster.mqtt));
    let mut child = Child::connect(&cluster, Generation::default()).await;
    loop {
        if let Up::Summary(summary) = heard(&mut up, "a summary").await
            && summary.nodes == 1
        {
            break;
        }
    }
    deploy(&up).await;
    let held = child.follow().await;
    let scope = Scope::Change;
    child.say(Up::Observed { generation: held, scope, statuses: vec![running()] }).await;
    observed(&mut up, InstanceState::Running).await;

    let request =
        StreamRequest::Exec { instance: instance(), argv: vec!["cat".into()], terminal: None };
    let stream = StreamId(9);
    up.sender.send(&Down::StreamOpen { stream, request: request.clone() }).await.unwrap();
    up.sender.send(&Down::StreamCredit { stream, bytes: 1000 }).await.unwrap();
    let Down::StreamOpen { stream: ours, request: asked } = child.stream().await else { panic!() };
    assert_eq!(asked, request);
    assert_eq!(child.stream().await, Down::StreamCredit { stream: ours, bytes: 1000 });
    child.say(Up::StreamCredit { stream: ours, bytes: 5000 }).await;
    assert_eq!(stream_message(&mut up).await, Up::StreamCredit { stream, bytes: 5000 });
    let bytes = b"moin".to_vec();
    up.sender.send(&Down::StreamData { stream, bytes: bytes.clone() }).await.unwrap();
    assert_eq!(child.stream().await, Down::StreamData { stream: ours, bytes: bytes.clone() });
    let output = Output::Stdout;
    child.say(Up::StreamData { stream: ours, output, bytes: bytes.clone() }).await;
    assert_eq!(stream_message(&mut up).await, Up::StreamData { stream, output, bytes });

    // The way to the child is gone, and with it the stream.
    drop(child);
    let Up::StreamEnd { stream: over, end } = stream_message(&mut up).await else { panic!() };
    assert!(over == stream && matches!(end, StreamEnd::Fault(StreamFault::Unreachable, _)));
    cluster.stop().await;
}

#[tokio::test]
async fn a_parent_that_stays_away_is_replaced_and_gone_back_to() {
    let dir = TempDir::new().unwrap();
    let (mut first, mut second) = (Parent::start().await, Parent::start().await);
    let text = format!(
        "parent = {{ url = 'http://{}', alternates = ['http://{}'], failover_patience_s = 1, \
         failback_hysteresis_s = 1 }}",
        first.address, second.address
    );
    let cluster = Cluster::start_by(dir.path(), &text, &Broker::Embedded).await;
    let kin = |id: u8| {
        let ancestor = Ancestor { id: ChildId([id; 12]), name: "p".into(), ..Ancestor::default() };
        Down::Kin(Kin { tree: 5, rooted: true, path: vec![ancestor], ..Kin::default() })
    };
    let (up, hello) = welcomed(&mut first).await;
    assert_eq!(hello.preferred, None);
    up.sender.send(&kin(1)).await.unwrap();
    let known = dir.path().join("state/parents.json");
    let mut tries = tokio::time::interval(std::time::Duration::from_millis(10));
    soon("what is known of parents", async {
        while !known.exists() {
            tries.tick().await;
        }
    })
    .await;
    let address = first.address;
    drop((up, first));
    let (up, hello) = welcomed(&mut second).await;
    assert_eq!(hello.preferred, Some(ChildId([1; 12])));
    up.sender.send(&kin(2)).await.unwrap();
    let mut first = Parent::start_at(address).await;
    let (_up, hello) = welcomed(&mut first).await;
    assert_eq!((hello.preferred, hello.tree), (None, 5));
    drop(up);
    cluster.stop().await;
}
