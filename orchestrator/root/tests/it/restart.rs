//! Everything that was acknowledged is there after a restart.

use crate::cluster::FakeCluster;
use crate::harness::{Reply, TestRoot, document};
use serde_json::json;

#[test]
fn a_restart_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let document = document("shop", &["web", "db"]);
    let applied = root.admin.post("/api/v1/apply", &document).expect(200).json();
    let service = applied["applications"][0]["services"][0]["service_id"].as_str().unwrap();
    root.admin.post(&format!("/api/v1/services/{service}/instances"), "").expect(202);
    let running =
        |n: usize| move |reply: &Reply| reply.text.matches("\"state\":\"running\"").count() == n;
    root.admin.until("/api/v1/instances", running(3));
    let before: Vec<Reply> =
        ["applications", "services"].map(|kind| root.admin.get(&format!("/api/v1/{kind}"))).into();
    let clusters = root.admin.get("/api/v1/clusters").json();
    let old_token = root.admin.clone().token;
    root.stop();
    cluster.leave();

    let root = TestRoot::start(dir.path());
    let after: Vec<Reply> =
        ["applications", "services"].map(|kind| root.admin.get(&format!("/api/v1/{kind}"))).into();
    assert_eq!(after, before);
    let known = root.admin.get("/api/v1/clusters").json();
    assert_eq!(known["items"][0]["cluster_id"], clusters["items"][0]["cluster_id"]);
    assert_eq!(known["items"][0]["connected"], json!(false));
    let instances = root.admin.get("/api/v1/instances").json();
    let states: Vec<_> =
        instances["items"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, vec![json!("unknown"); 3], "nobody has said yet how they are");

    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    root.admin.until("/api/v1/instances", running(3));
    // A token of before still counts, and an apply of the same document changes nothing.
    let mut old = root.admin.clone();
    old.token = old_token;
    let again = old.post("/api/v1/apply", &document).expect(200).json();
    assert_eq!(again["applications"][0]["services"][0]["instances"].as_array().unwrap().len(), 2);
    let more = old.post(&format!("/api/v1/services/{service}/instances"), "").expect(202).json();
    assert_eq!(more["instance_id"], format!("{service}.2"));
    root.stop();
    cluster.leave();
}

#[test]
fn what_was_being_taken_down_is_taken_down_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let applied = root.admin.post("/api/v1/apply", document("shop", &["web"])).expect(200).json();
    let application = applied["applications"][0]["application_id"].as_str().unwrap();
    let running = |reply: &Reply| reply.text.contains("\"state\":\"running\"");
    root.admin.until("/api/v1/instances", running);
    cluster.leave();
    root.admin.until("/api/v1/instances", |reply| !running(reply));
    root.admin.delete(&format!("/api/v1/applications/{application}")).expect(202);
    let waiting = root.admin.get("/api/v1/instances").json();
    assert_eq!(waiting["items"][0]["removing"], true);
    root.stop();

    let root = TestRoot::start(dir.path());
    assert_eq!(root.admin.get("/api/v1/applications").json(), json!({"items": []}));
    assert_eq!(root.admin.get("/api/v1/instances").json()["items"].as_array().unwrap().len(), 1);
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    root.admin.until("/api/v1/instances", |reply| reply.json() == json!({"items": []}));
    cluster.leave();
}

#[test]
fn two_roots_on_one_state_are_refused() {
    use marram_root::{config::Config, root::Root};
    let dir = tempfile::tempdir().unwrap();
    let _root = TestRoot::start(dir.path());
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        tunnel_listen: "127.0.0.1:0".parse().unwrap(),
        tunnel_url: None,
        insecure_network: false,
        state_dir: dir.path().to_owned(),
    };
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    let second = runtime.block_on(Root::bind(&config, crate::harness::ROUNDS));
    assert!(matches!(second, Err(marram_root::root::RootError::Store(_))));
    let open = Config { listen: "0.0.0.0:0".parse().unwrap(), ..config };
    let refused = runtime.block_on(Root::bind(&open, crate::harness::ROUNDS)).unwrap_err();
    assert!(refused.to_string().contains("refused: 0.0.0.0:0 (listen)"), "{refused}");
}
