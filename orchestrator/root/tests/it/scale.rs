//! As many instances as wanted, in one step.

use crate::cluster::FakeCluster;
use crate::harness::{Reply, TestRoot, document};
use serde_json::{Value, json};

fn numbers(list: &Value) -> Vec<u32> {
    let number = |id: &Value| id.as_str().unwrap().rsplit_once('.').unwrap().1.parse().unwrap();
    list.as_array().unwrap().iter().map(number).collect()
}

fn applied(root: &TestRoot) -> String {
    let first = root.admin.post("/api/v1/apply", document("shop", &["web"])).expect(200).json();
    let service = &first["applications"][0]["services"][0]["service_id"];
    format!("/api/v1/services/{}/scale", service.as_str().unwrap())
}

#[test]
fn a_service_grows_and_loses_its_highest_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let path = applied(&root);
    let scale = |replicas: Value| root.admin.put(&path, json!({"replicas": replicas}).to_string());
    let grown = scale(json!(4)).expect(202).json();
    assert_eq!(numbers(&grown["instances"]), [0, 1, 2, 3]);
    assert_eq!((numbers(&grown["added"]), &grown["removed"]), (vec![1, 2, 3], &json!([])));
    let running = |count: usize| {
        move |reply: &Reply| {
            let items = reply.json()["items"].as_array().unwrap().clone();
            items.len() == count && items.iter().all(|item| item["state"] == "running")
        }
    };
    root.admin.until("/api/v1/instances", running(4));
    let shrunk = scale(json!(2)).expect(202).json();
    assert_eq!(
        (numbers(&shrunk["removed"]), numbers(&shrunk["instances"])),
        (vec![2, 3], vec![0, 1])
    );
    root.admin.until("/api/v1/instances", running(2));
    // The same again is nothing to do, and numbers are never given twice.
    assert_eq!(scale(json!(2)).expect(202).json()["added"], json!([]));
    assert_eq!(numbers(&scale(json!(3)).expect(202).json()["added"]), [4]);
    assert_eq!(numbers(&scale(json!(0)).expect(202).json()["removed"]), [0, 1, 4]);
    root.admin.until("/api/v1/instances", running(0));
    cluster.leave();
}

#[test]
fn a_document_says_how_many_there_shall_be_at_least() {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    let said = document("shop", &["web"])
        .replace("\"memory\":100", "\"memory\":100,\"marram\":{\"replicas\":3}");
    let apply = || {
        let applied = root.admin.post("/api/v1/apply", &said).expect(200).json();
        applied["applications"][0]["services"][0].clone()
    };
    let first = apply();
    assert_eq!(numbers(&first["instances"]), [0, 1, 2]);
    // Nothing is missing, and nothing is removed.
    assert_eq!(apply()["instances"], first["instances"]);
    let path = format!("/api/v1/services/{}/scale", first["service_id"].as_str().unwrap());
    root.admin.put(&path, "{\"replicas\": 5}").expect(202);
    assert_eq!(numbers(&apply()["instances"]), [0, 1, 2, 3, 4]);
    root.admin.put(&path, "{\"replicas\": 1}").expect(202);
    assert_eq!(numbers(&apply()["instances"]), [0, 5, 6]);
    // More than a tier holds is refused whole.
    let large = document("huge", &["web", "db"])
        .replace("\"memory\":100", "\"memory\":100,\"marram\":{\"replicas\":5000}");
    root.admin.post("/api/v1/apply", large).expect(409);
    assert_eq!(root.admin.get("/api/v1/applications").json()["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_step_has_a_limit_and_is_durable_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    let path = applied(&root);
    let scale = |root: &TestRoot, body: &str| root.admin.put(&path, body);
    for (body, status) in [
        ("{\"replicas\": 252}", 409),
        ("{\"replicas\": -1}", 400),
        ("{\"replicas\": 1.5}", 400),
        ("{\"replica\": 1}", 400),
        ("{}", 400),
        ("", 400),
    ] {
        scale(&root, body).expect(status);
    }
    let unknown = "/api/v1/services/aaaaaaaaaaaaaaaaaaaaaaaa/scale";
    root.admin.put(unknown, "{\"replicas\": 1}").expect(404);
    assert_eq!(root.admin.get("/api/v1/instances").json()["items"].as_array().unwrap().len(), 1);
    scale(&root, "{\"replicas\": 251}").expect(202);
    root.stop();
    let root = TestRoot::start(dir.path());
    assert_eq!(root.admin.get("/api/v1/instances").json()["items"].as_array().unwrap().len(), 251);
    scale(&root, "{\"replicas\": 0}").expect(409);
    scale(&root, "{\"replicas\": 1}").expect(202);
    let left = root.admin.get("/api/v1/instances").json();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}
