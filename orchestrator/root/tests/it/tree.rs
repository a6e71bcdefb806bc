//! The tree as operators see it: explanations from top to bottom, and operations on any of it.

use crate::cluster::{FakeCluster, Order, hello, id, status};
use crate::harness::{PATIENCE, Reply, TestRoot, add_user, document};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{Down, Generation, Hello, Missed, Up};
use marram_tunnel::Dialer;
use serde_json::{Value, json};

fn start() -> (tempfile::TempDir, TestRoot) {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    (dir, root)
}

fn has(text: &'static str) -> impl Fn(&Reply) -> bool {
    move |reply| reply.text.contains(text)
}

#[test]
fn an_instance_is_explained_from_the_root_down() {
    let (_dir, root) = start();
    let first = root.admin.post("/api/v1/apply", document("shop", &["web"])).expect(200).json();
    let id = first["applications"][0]["services"][0]["instances"][0].as_str().unwrap().to_owned();
    let path = format!("/api/v1/instances/{id}/explain");
    // Nobody is there: the root alone says why.
    let alone = root.admin.get(&path).expect(200).json();
    assert_eq!((&alone["instance_id"], &alone["state"]), (&json!(id), &json!("unplaceable")));
    assert_eq!(alone["name"], "shop.test.web.test.0");
    let lines = alone["path"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[0]["tier"]), (1, &json!("root")));
    assert_eq!((&lines[0]["placed"], &alone["missed"]), (&Value::Null, &json!([])));

    // A cluster adds its lines as they are.
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    root.admin.until("/api/v1/instances", has("\"state\":\"running\""));
    let both = root.admin.get(&path).expect(200).json();
    let lines = both["path"].as_array().unwrap();
    let kind = |line: &Value| (line["name"].clone(), line["kind"].clone());
    assert_eq!(kind(&lines[0]["placed"]), (json!("c1"), json!("cluster")));
    assert_eq!(lines[1], json!({"instance": id}));

    // A refusal is told with who refused.
    let mut refused = status(id.parse().unwrap(), InstanceState::Refused);
    refused.detail = "no node has a GPU".into();
    cluster.order(Order::Status(refused));
    let wanted = has("no node has a GPU");
    let told = root.admin.until(&path, wanted).json();
    let refusals = &told["path"][0]["refusals"];
    assert_eq!(*refusals, json!([{"child": "c1", "reason": "no node has a GPU"}]));
    cluster.leave();
    root.admin.get(&path.replace(".0/", ".7/")).expect(404);
}

#[test]
fn what_was_missed_is_told_with_the_instance_until_it_is_gone() {
    let (_dir, root) = start();
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let first = root.admin.post("/api/v1/apply", document("shop", &["web"])).expect(200).json();
    let id = first["applications"][0]["services"][0]["instances"][0].as_str().unwrap().to_owned();
    root.admin.until("/api/v1/instances", has("\"state\":\"running\""));
    let entry = |id: &str, unix_ms: u64| Missed {
        instance: id.parse().unwrap(),
        unix_ms,
        state: InstanceState::Dead,
        detail: "exit code 7".into(),
    };
    let other = id.replace(".0", ".9");
    let entries = vec![entry(&id, 5), entry(&other, 6), entry(&id, 7)];
    cluster.order(Order::Say(Box::new(Up::Missed { entries, dropped: 3 })));
    let path = format!("/api/v1/instances/{id}/explain");
    let told = root.admin.until(&path, has("exit code 7")).json();
    let dead = |unix_ms: u64| json!({"unix_ms": unix_ms, "state": "dead", "detail": "exit code 7"});
    assert_eq!(told["missed"], json!([dead(5), dead(7)]));
    cluster.leave();
}

#[test]
fn who_cannot_be_reached_is_named_in_an_explanation() {
    let (_dir, root) = start();
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let first = root.admin.post("/api/v1/apply", document("shop", &["web"])).expect(200).json();
    let id = first["applications"][0]["services"][0]["instances"][0].as_str().unwrap().to_owned();
    root.admin.until("/api/v1/instances", has("\"state\":\"running\""));
    cluster.leave();
    let path = format!("/api/v1/instances/{id}/explain");
    let lost = root.admin.until(&path, has("unreachable")).json();
    let lines = lost["path"].as_array().unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[1]["tier"], &lines[1]["name"]), (&json!("cluster"), &json!("c1")));
    assert_eq!(lines[1]["unreachable"], "is not connected");
}

fn operate(root: &TestRoot, body: &Value) -> Reply {
    root.admin.post("/api/v1/operations", body.to_string())
}

fn results(reply: Reply) -> Vec<(String, String)> {
    let items = reply.expect(200).json()["items"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    items.as_array().unwrap().iter().map(|i| (text(&i["target"]), text(&i["result"]))).collect()
}

fn done(target: &str) -> (String, String) {
    (target.to_owned(), "done".to_owned())
}

#[test]
fn operations_reach_what_is_named_and_nothing_else() {
    let (dir, root) = start();
    let clusters = [1, 2].map(|n| FakeCluster::start(root.tunnel, n, &format!("edge-{n}")));
    let both = |reply: &Reply| reply.text.matches("\"connected\":true").count() == 2;
    root.admin.until("/api/v1/clusters", both);
    let cordoned = |name: &str| {
        let all = root.admin.get("/api/v1/clusters").json()["items"].clone();
        let one = all.as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone();
        one["cordoned"].as_bool().unwrap()
    };
    // Only looked at.
    let dry = json!({"verb": "drain", "selector": "edge-*", "dry_run": true});
    let matched = |target: &str| (target.to_owned(), "matched".to_owned());
    assert_eq!(results(operate(&root, &dry)), [matched("edge-1"), matched("edge-2")]);
    assert!(!cordoned("edge-1") && !cordoned("edge-2"));

    let cordon = json!({"verb": "cordon", "targets": ["edge-1", id(1).to_string()]});
    assert_eq!(results(operate(&root, &cordon)), [done("edge-1")]);
    assert!(cordoned("edge-1") && !cordoned("edge-2"));
    let open = json!({"verb": "uncordon", "selector": "edge-1"});
    assert_eq!(results(operate(&root, &open)), [done("edge-1")]);
    assert!(!cordoned("edge-1"));

    // A node is its cluster's matter, which is asked once.
    let node = json!({"verb": "cordon", "targets": ["edge-2/n1"]});
    assert_eq!(results(operate(&root, &node)), [done("edge-2/n1")]);
    let several = operate(&root, &json!({"verb": "cordon", "targets": ["n1"]})).expect(409).json();
    assert_eq!(several["detail"], "\"n1\" fits several: edge-1/n1, edge-2/n1");
    // What is there is not forgotten.
    let forget = json!({"verb": "forget", "targets": ["edge-1"]});
    let refused = operate(&root, &forget).expect(200).json();
    assert_eq!(refused["items"][0]["result"], "refused");
    let why = refused["items"][0]["detail"].as_str().unwrap();
    assert!(why.contains("is connected"), "{why}");

    for (wrong, status) in [
        (json!({"verb": "explode", "targets": ["edge-1"]}), 400),
        (json!({"verb": "drain"}), 400),
        (json!({"verb": "drain", "selector": "site="}), 400),
        (json!({"verb": "drain", "target": "edge-1"}), 400),
        (json!({"verb": "drain", "targets": ["edge-1", "edge-7"]}), 404),
    ] {
        operate(&root, &wrong).expect(status);
    }
    assert!(!cordoned("edge-1"), "a refused request does nothing");
    for cluster in clusters {
        cluster.leave();
    }
    let forget = json!({"verb": "forget", "targets": ["edge-1"]});
    root.admin.until("/api/v1/clusters", |reply| !reply.text.contains("\"connected\":true"));
    assert_eq!(results(operate(&root, &forget)), [done("edge-1")]);
    assert!(!root.admin.get("/api/v1/clusters").text.contains("edge-1"));
    root.stop();
    add_user(dir.path(), "eve", "secret-of-eve");
    let root = TestRoot::start(dir.path());
    let eve = root.login("eve", "secret-of-eve");
    let drain = json!({"verb": "drain", "targets": ["edge-2"]});
    eve.post("/api/v1/operations", drain.to_string()).expect(403);
}

/// A cluster of another tree asks: what it is told first.
fn ask_as_stranger(root: &TestRoot) -> Down {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(async {
        let dialer = Dialer::new(&format!("http://{}", root.tunnel)).unwrap();
        let mut connection = dialer.connect().await.unwrap();
        let Up::Hello(hello) = hello(3, "stray", Generation { epoch: 99, number: 4 }) else {
            panic!("a hello")
        };
        connection.sender.send(&Up::Hello(Hello { tree: 77, ..hello })).await.unwrap();
        let told = tokio::time::timeout(PATIENCE, connection.receiver.recv()).await;
        told.unwrap().unwrap().unwrap()
    })
}

#[test]
fn a_child_of_another_tree_is_taken_by_an_operators_word_only() {
    let (_dir, root) = start();
    let Down::Rejected { reason } = ask_as_stranger(&root) else { panic!("it was taken") };
    assert!(reason.contains("another tree"), "{reason}");
    let foreign = root.admin.get("/api/v1/foreign").expect(200).json();
    let one = &foreign["items"][0];
    assert_eq!((&one["name"], &one["kind"]), (&json!("stray"), &json!("cluster")));
    assert_eq!((&one["tree"], &one["released"]), (&json!("000000000000004d"), &json!(false)));
    assert_eq!(root.admin.get("/api/v1/clusters").json(), json!({"items": []}));
    root.admin.post("/api/v1/foreign/aaaaaaaaaaaaaaaaaaaaaaaa/adopt", "{}").expect(404);
    root.admin.post(&format!("/api/v1/foreign/{}/adopt", id(3)), "{}").expect(202);
    let released = root.admin.get("/api/v1/foreign").json();
    assert_eq!(released["items"][0]["released"], true);
    assert!(matches!(ask_as_stranger(&root), Down::Welcome { .. }));
    assert_eq!(root.admin.get("/api/v1/clusters").json()["items"][0]["name"], "stray");
}
