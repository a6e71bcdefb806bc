//! A cluster between a fake parent and a fake node, over the real protocols, with the embedded
//! endpoint and with Mosquitto.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::*;
use marram_cluster::NODE_UNKNOWN;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::topic::{Leaf, Topic};
use marram_protocol::v1::*;
use marram_tunnel::ReceiveError;
use serde_json::Value;

async fn from_desire_to_gone(mut scene: Scene) {
    let Scene { up, node, .. } = &mut scene;
    let next = Generation { number: AT.number + 1, ..AT };
    let removes = vec![instance()];
    let change = Down::Change { base: AT, generation: next, upserts: vec![], removes };
    up.sender.send(&change).await.unwrap();
    let removal =
        |down: &Down| matches!(down, Down::Change { removes, .. } if removes.contains(&instance()));
    let Down::Change { generation, .. } = node.told(removal).await else { panic!("no change") };
    let mut gone = running();
    gone.state = InstanceState::Undeployed;
    node.report(generation, gone).await;
    observed(up, InstanceState::Undeployed).await;
    scene.cluster.stop().await;
}

#[tokio::test]
async fn an_instance_comes_and_goes() {
    from_desire_to_gone(Scene::embedded().await).await;
}

#[tokio::test]
async fn an_instance_comes_and_goes_with_mosquitto() {
    from_desire_to_gone(Scene::mosquitto().await).await;
}

async fn a_lost_node_is_unknown_until_it_is_back(scene: Scene) {
    let Scene { mut up, node, cluster, held, .. } = scene;
    let id = node.id;
    node.die().await;
    let status = observed(&mut up, InstanceState::Unknown).await;
    assert_eq!(status.detail, "board is not connected, last heard: running");
    let mut node = Node::connect(cluster.mqtt, id, 2).await;
    node.hello(held).await;
    node.snapshot(held, vec![running()]).await;
    observed(&mut up, InstanceState::Running).await;
    node.told(|down| matches!(down, Down::Welcome { epoch, .. } if *epoch == held.epoch)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_is_lost_and_found() {
    a_lost_node_is_unknown_until_it_is_back(Scene::embedded().await).await;
}

#[tokio::test]
async fn a_node_is_lost_and_found_with_mosquitto() {
    a_lost_node_is_unknown_until_it_is_back(Scene::mosquitto().await).await;
}

#[tokio::test]
async fn a_lost_parent_is_found_again_and_told_everything() {
    let Scene { mut parent, up, cluster, cluster_id, node, held, .. } = Scene::embedded().await;
    drop(up);
    // The node is heard while there is no parent.
    let mut failed = running();
    failed.state = InstanceState::Failed;
    failed.restarts = 3;
    node.report(held, failed).await;
    let (mut up, hello, statuses) = parent.child().await;
    assert_eq!((hello.child, hello.generation), (cluster_id, AT));
    let status = match statuses.first() {
        Some(status) if status.state == InstanceState::Failed => status.clone(),
        _ => observed(&mut up, InstanceState::Failed).await,
    };
    assert_eq!(status.restarts, 3);
    cluster.stop().await;
}

#[tokio::test]
async fn a_cluster_that_restarts_knows_its_id_and_what_is_desired() {
    let scene = Scene::embedded().await;
    let Scene { broker, dir, mut parent, up, cluster, cluster_id, node, held } = scene;
    cluster.stop().await;
    drop(up);
    node.die().await;
    let cluster = Cluster::start(dir.path(), parent.address, &broker).await;
    let (mut up, hello, statuses) = parent.child().await;
    assert_eq!((hello.child, hello.generation), (cluster_id, AT));
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[0].state, InstanceState::Unknown);
    let mut node = Node::connect(cluster.mqtt, ChildId([7; 12]), 1).await;
    node.hello(held).await;
    node.snapshot(held, vec![running()]).await;
    observed(&mut up, InstanceState::Running).await;
    node.told(|down| matches!(down, Down::Welcome { epoch, .. } if *epoch == held.epoch)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn nodes_of_a_broker_that_outlives_the_cluster_are_asked_to_say_hello() {
    let scene = Scene::mosquitto().await;
    let Scene { broker, dir, mut parent, up, cluster, mut node, held, .. } = scene;
    cluster.stop().await;
    drop(up);
    let cluster = Cluster::start(dir.path(), parent.address, &broker).await;
    let rejected = Down::Rejected { reason: NODE_UNKNOWN.to_owned() };
    node.told(|down| *down == rejected).await;
    node.hello(held).await;
    node.snapshot(held, vec![running()]).await;
    let (mut up, _, statuses) = parent.child().await;
    if statuses[0].state != InstanceState::Running {
        observed(&mut up, InstanceState::Running).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_broker_that_dies_takes_the_nodes_with_it() {
    let Scene { broker, mut up, cluster, .. } = Scene::mosquitto().await;
    drop(broker);
    observed(&mut up, InstanceState::Unknown).await;
    cluster.stop().await;
}

fn logs() -> StreamRequest {
    StreamRequest::Logs { instance: instance(), tail_lines: Some(5), follow: true }
}

async fn open(scene: &mut Scene, theirs: StreamId) -> StreamId {
    let message = Down::StreamOpen { stream: theirs, request: logs() };
    scene.up.sender.send(&message).await.unwrap();
    let Down::StreamOpen { stream, request } = scene.node.stream().await else {
        panic!("no stream");
    };
    assert_eq!(request, logs());
    stream
}

async fn streams_pass(mut scene: Scene) {
    let theirs = StreamId(9);
    let ours = open(&mut scene, theirs).await;
    let credit = |stream, bytes| Down::StreamCredit { stream, bytes };
    scene.up.sender.send(&credit(theirs, 20_000)).await.unwrap();
    assert_eq!(scene.node.stream().await, credit(ours, 20_000));
    let data = |stream, bytes: &[u8]| Up::StreamData {
        stream,
        output: Output::Stdout,
        bytes: bytes.to_vec(),
    };
    scene.node.say(data(ours, &[1; 12_000])).await;
    assert_eq!(stream_message(&mut scene.up).await, data(theirs, &[1; 12_000]));
    scene.up.sender.send(&credit(theirs, 12_000)).await.unwrap();
    assert_eq!(scene.node.stream().await, credit(ours, 12_000));
    let granted = |stream| Up::StreamCredit { stream, bytes: 300 };
    scene.node.say(granted(ours)).await;
    assert_eq!(stream_message(&mut scene.up).await, granted(theirs));
    let input = |stream| Down::StreamData { stream, bytes: b"ls\n".to_vec() };
    scene.up.sender.send(&input(theirs)).await.unwrap();
    assert_eq!(scene.node.stream().await, input(ours));
    let end = StreamEnd::Exited(ExitCause::Code(3));
    scene.node.say(Up::StreamEnd { stream: ours, end: end.clone() }).await;
    assert_eq!(stream_message(&mut scene.up).await, Up::StreamEnd { stream: theirs, end });

    // One that is sent more than its node has granted; the same number again, closed by the
    // parent; then one that the node's death ends.
    let ours = open(&mut scene, theirs).await;
    scene.up.sender.send(&input(theirs)).await.unwrap();
    assert_eq!(scene.node.stream().await, Down::StreamClose { stream: ours });
    let Up::StreamEnd { stream, end } = stream_message(&mut scene.up).await else {
        panic!("no end");
    };
    assert_eq!(stream, theirs);
    assert!(matches!(end, StreamEnd::Fault(StreamFault::TooMany, _)), "{end:?}");
    let ours = open(&mut scene, theirs).await;
    scene.up.sender.send(&Down::StreamClose { stream: theirs }).await.unwrap();
    assert_eq!(scene.node.stream().await, Down::StreamClose { stream: ours });
    open(&mut scene, theirs).await;
    scene.node.die().await;
    let Up::StreamEnd { stream, end } = stream_message(&mut scene.up).await else {
        panic!("no end");
    };
    assert_eq!(stream, theirs);
    assert!(matches!(end, StreamEnd::Fault(StreamFault::Unreachable, _)), "{end:?}");
    scene.cluster.stop().await;
}

#[tokio::test]
async fn logs_and_exec_pass_with_their_credit() {
    streams_pass(Scene::embedded().await).await;
}

#[tokio::test]
async fn logs_and_exec_pass_with_mosquitto() {
    streams_pass(Scene::mosquitto().await).await;
}

#[tokio::test]
async fn a_lost_parent_closes_its_streams() {
    let mut scene = Scene::embedded().await;
    let ours = open(&mut scene, StreamId(1)).await;
    let Scene { up, mut node, cluster, .. } = scene;
    drop(up);
    assert_eq!(node.stream().await, Down::StreamClose { stream: ours });
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_not_here_is_said() {
    let Scene { mut up, cluster, .. } = Scene::embedded().await;
    let instance = InstanceId { number: 99, ..instance() };
    let request = StreamRequest::Logs { instance, tail_lines: None, follow: false };
    up.sender.send(&Down::StreamOpen { stream: StreamId(1), request }).await.unwrap();
    let Up::StreamEnd { stream, end } = stream_message(&mut up).await else { panic!("no end") };
    assert_eq!(stream, StreamId(1));
    let StreamEnd::Fault(StreamFault::NotFound, why) = end else { panic!("{end:?}") };
    assert_eq!(why, format!("instance {instance} is not in this cluster"));
    cluster.stop().await;
}

#[tokio::test]
async fn children_are_listed_as_json_lines() {
    let Scene { mut up, cluster, node, .. } = Scene::embedded().await;
    node.say(Up::Telemetry(Telemetry { memory_used_mib: 333, ..Telemetry::default() })).await;
    // Telemetry goes by its own topic: the next summary or list shows it when it is there.
    let mut line = Value::Null;
    for number in 1..=50 {
        let stream = StreamId(number);
        let request = StreamRequest::Children;
        up.sender.send(&Down::StreamOpen { stream, request }).await.unwrap();
        up.sender.send(&Down::StreamCredit { stream, bytes: CREDIT_BYTES }).await.unwrap();
        let mut text = Vec::new();
        loop {
            match stream_message(&mut up).await {
                Up::StreamData { bytes, .. } => text.extend(bytes),
                Up::StreamEnd { end, .. } => {
                    assert_eq!(end, StreamEnd::Done);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 1);
        line = serde_json::from_str(text.trim()).unwrap();
        if line["memory_used_mib"] == 333 {
            break;
        }
    }
    assert_eq!(line["memory_used_mib"], 333, "{line}");
    assert_eq!(line["node_id"], node.id.to_string());
    assert_eq!(line["name"], "board");
    assert_eq!(line["connected"], true);
    assert_eq!(line["instances"], 1);
    assert_eq!(line["capacity"]["memory_mib"], 1024);
    assert_eq!(line["reserved"]["memory_mib"], 100);
    assert_eq!(line["address"], "127.0.0.1");
    cluster.stop().await;
}

async fn nobody_speaks_for_another(scene: Scene) {
    let Scene { mut up, cluster, node, held, .. } = scene;
    let other = Topic { node: ChildId([8; 12]), leaf: Leaf::Report };
    let own = |leaf| Topic { node: node.id, leaf };
    let mut lie = running();
    lie.state = InstanceState::Dead;
    let lie = Up::Observed { generation: held, scope: Scope::Change, statuses: vec![lie] };
    let hello = Up::Hello(Hello {
        child: ChildId([8; 12]),
        kind: ChildKind::Node,
        name: "liar".into(),
        version: String::new(),
        incarnation: 1,
        generation: Generation::default(),
        summary: Summary { nodes: 7, ..Summary::default() },
        facts: vec![],
        tree: 0,
        preferred: None,
        address: String::new(),
        node_address: String::new(),
        labels: Vec::new(),
    });
    // Another's topic, another's id, the wrong leaf, and bytes that are no message.
    node.publish(other, lie.encode().unwrap()).await;
    node.publish(own(Leaf::Report), hello.encode().unwrap()).await;
    node.publish(own(Leaf::Telemetry), lie.encode().unwrap()).await;
    node.publish(own(Leaf::StreamOut), lie.encode().unwrap()).await;
    for bytes in [vec![], vec![1], vec![9, 1, 1], vec![1, 2, 0], vec![0xff; 4000]] {
        node.publish(own(Leaf::Report), bytes).await;
    }
    let mut failed = running();
    failed.state = InstanceState::Failed;
    node.report(held, failed).await;
    // The first that is believed is the last that was sent.
    loop {
        match heard(&mut up, "the failure").await {
            Up::Observed { statuses, .. } => {
                assert_eq!(statuses[0].state, InstanceState::Failed);
                break;
            }
            Up::Summary(summary) => assert_eq!(summary.nodes, 1),
            _ => {}
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_speaks_for_itself_only() {
    nobody_speaks_for_another(Scene::embedded().await).await;
}

#[tokio::test]
async fn a_node_speaks_for_itself_only_with_mosquitto() {
    nobody_speaks_for_another(Scene::mosquitto().await).await;
}

#[tokio::test]
async fn a_parent_that_sends_nonsense_is_left_and_dialled_again() {
    let Scene { mut parent, up, cluster, node, held, .. } = Scene::embedded().await;
    // Older, of another epoch, twice, for streams that are not there: all of it is survived.
    let older = Down::Manifest { generation: Generation { epoch: 3, number: 9 }, entries: vec![] };
    let stale = Down::Change {
        base: Generation::default(),
        generation: AT,
        upserts: vec![],
        removes: vec![instance()],
    };
    for message in [older, stale.clone(), stale, Down::StreamClose { stream: StreamId(44) }] {
        up.sender.send(&message).await.unwrap();
    }
    drop(up);
    let (mut up, hello, _) = parent.child().await;
    assert_eq!(hello.generation, AT);
    let mut failed = running();
    failed.state = InstanceState::Failed;
    node.report(held, failed).await;
    observed(&mut up, InstanceState::Failed).await;
    cluster.stop().await;
    let end = soon("the end", up.receiver.recv()).await;
    assert!(matches!(end, Ok(None | Some(_)) | Err(ReceiveError::Broken(_))), "{end:?}");
}
