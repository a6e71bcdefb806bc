//! The clean form: apply, objects, deletes, events.

use crate::cluster::{FakeCluster, Order, status};
use crate::harness::{PATIENCE, Reply, TestRoot, document};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::ExitCause;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

fn start() -> (tempfile::TempDir, TestRoot) {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    (dir, root)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn apply_makes_what_is_missing_and_nothing_twice() {
    let (_dir, root) = start();
    let admin = &root.admin;
    let first = admin.post("/api/v1/apply", document("shop", &["web"])).expect(200).json();
    let application = &first["applications"][0];
    assert_eq!(keys(application), ["application_id", "name", "namespace", "services"]);
    let web = &application["services"][0];
    assert_eq!(keys(web), ["created", "instances", "name", "namespace", "service_id"]);
    assert_eq!(web["created"], true);
    let instance = format!("{}.0", web["service_id"].as_str().unwrap());
    assert_eq!(web["instances"], json!([instance]));

    let again = admin.post("/api/v1/apply/", document("shop", &["web", "db"])).expect(200).json();
    let services = &again["applications"][0]["services"];
    assert_eq!(again["applications"][0]["application_id"], application["application_id"]);
    assert_eq!(
        (&services[0]["created"], &services[0]["instances"]),
        (&json!(false), &web["instances"])
    );
    assert_eq!(services[1]["created"], true);
    assert_eq!(admin.get("/api/v1/instances").json()["items"].as_array().unwrap().len(), 2);

    let other = document("shop", &["web", "db"]).replace("\"memory\":100", "\"memory\":200");
    let refused = admin.post("/api/v1/apply", other).expect(409).json();
    assert!(refused["detail"].as_str().unwrap().contains("another document"), "{refused}");
    assert_eq!(
        refused["detail"].as_str().unwrap().matches("service ").count(),
        4,
        "both are named"
    );
}

#[test]
fn objects_have_the_keys_that_are_promised() {
    let (_dir, root) = start();
    let admin = &root.admin;
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let version = admin.get("/api/v1/version").expect(200).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    admin.post("/api/v1/apply", document("shop", &["web"])).expect(200);
    let running = |reply: &Reply| reply.text.contains("\"state\":\"running\"");
    let instances = admin.until("/api/v1/instances", running).json();
    let instance = &instances["items"][0];
    assert_eq!(
        keys(instance),
        [
            "application_id",
            "cluster",
            "detail",
            "exit",
            "instance_id",
            "name",
            "node",
            "number",
            "oakestra_state",
            "removing",
            "restarts",
            "revision",
            "service_id",
            "since_unix_ms",
            "state",
            "tried",
            "usage"
        ]
    );
    assert_eq!(instance["name"], "shop.test.web.test.0");
    assert_eq!(instance["node"]["name"], "n1");
    let id = instance["instance_id"].as_str().unwrap();
    assert_eq!(admin.get(&format!("/api/v1/instances/{id}")).expect(200).json(), *instance);
    let clusters = admin.get("/api/v1/clusters").json();
    let cluster_id = clusters["items"][0]["cluster_id"].as_str().unwrap();
    let one = admin.get(&format!("/api/v1/clusters/{cluster_id}")).expect(200).json();
    assert_eq!((&one["connected"], &one["instances"]), (&json!(true), &json!(1)));
    let nodes = admin.get("/api/v1/nodes").expect(200).json();
    assert_eq!(nodes["missing"], json!([]));
    assert_eq!(nodes["items"][0]["cluster"], json!({"id": cluster_id, "name": "c1", "path": "c1"}));
    let node = nodes["items"][0]["node_id"].as_str().unwrap();
    assert_eq!(admin.get(&format!("/api/v1/nodes/{node}")).expect(200).json(), nodes["items"][0]);
    admin.get(&format!("/api/v1/nodes/{cluster_id}")).expect(404);
    let service = instance["service_id"].as_str().unwrap();
    let service = admin.get(&format!("/api/v1/services/{service}")).expect(200).json();
    assert_eq!(service["document"]["x-site"], json!({"floor": 3}));
    assert_eq!(service["instances"], json!([id]));

    let mut failed = status(id.parse().unwrap(), InstanceState::Failed);
    failed.exit = Some(ExitCause::Signal(9));
    failed.detail = "killed".into();
    cluster.order(Order::Status(failed));
    let path = format!("/api/v1/instances/{id}");
    let failed = admin.until(&path, |reply| !running(reply)).json();
    assert_eq!((&failed["state"], &failed["exit"]), (&json!("failed"), &json!({"signal": 9})));
    assert_eq!(
        (&failed["detail"], &failed["oakestra_state"]),
        (&json!("killed"), &json!("FAILED"))
    );
    cluster.leave();
}

#[test]
fn deletes_are_accepted_and_then_happen() {
    let (_dir, root) = start();
    let admin = &root.admin;
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let applied = admin.post("/api/v1/apply", document("shop", &["web", "db"])).expect(200).json();
    let application = applied["applications"][0]["application_id"].as_str().unwrap();
    let service =
        |n: usize| applied["applications"][0]["services"][n]["service_id"].as_str().unwrap();
    let more = admin.post(&format!("/api/v1/services/{}/instances", service(0)), "").expect(202);
    assert_eq!(more.json()["instance_id"], format!("{}.1", service(0)));
    let count =
        |n: usize| move |reply: &Reply| reply.json()["items"].as_array().unwrap().len() == n;
    admin.until("/api/v1/instances", count(3));
    admin.delete(&format!("/api/v1/instances/{}.0", service(0))).expect(202);
    admin.until("/api/v1/instances", count(2));
    // Numbers are never given twice.
    let more = admin.post(&format!("/api/v1/services/{}/instances", service(0)), "").expect(202);
    assert_eq!(more.json()["instance_id"], format!("{}.2", service(0)));
    admin.delete(&format!("/api/v1/services/{}", service(0))).expect(202);
    admin.get(&format!("/api/v1/services/{}", service(0))).expect(404);
    admin.until("/api/v1/instances", count(1));
    admin.delete(&format!("/api/v1/applications/{application}")).expect(202);
    admin.get(&format!("/api/v1/applications/{application}")).expect(404);
    admin.until("/api/v1/instances", count(0));
    admin.delete(&format!("/api/v1/applications/{application}")).expect(404);
    admin.delete(&format!("/api/v1/instances/{}.0", service(1))).expect(404);
    cluster.leave();
}

#[test]
fn a_document_of_the_most_services_is_taken_whole_and_taken_down() {
    let (dir, root) = start();
    let names: Vec<String> = (0..256).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let applied = root.admin.post("/api/v1/apply", document("large", &names)).expect(200).json();
    assert_eq!(applied["applications"][0]["services"].as_array().unwrap().len(), 256);
    // One too many is refused, and with it the other application of the document.
    let mut two: Value = serde_json::from_str(&document("another", &["web"])).unwrap();
    let large: Value = serde_json::from_str(&document("large", &["one"])).unwrap();
    two["applications"].as_array_mut().unwrap().push(large["applications"][0].clone());
    let refused = root.admin.post("/api/v1/apply", two.to_string()).expect(409).json();
    assert!(refused["detail"].as_str().unwrap().contains("257 services"), "{refused}");
    let all = root.admin.get("/api/v1/applications").json();
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    root.stop();
    let root = TestRoot::start(dir.path());
    let kinds = ["services", "instances"];
    let count = |kind: &str| {
        root.admin.get(&format!("/api/v1/{kind}")).json()["items"].as_array().unwrap().len()
    };
    assert_eq!(kinds.map(count), [256, 256]);
    let application = applied["applications"][0]["application_id"].as_str().unwrap();
    root.admin.delete(&format!("/api/v1/applications/{application}")).expect(202);
    assert_eq!(kinds.map(count), [0, 0]);
}

#[test]
fn problems_name_every_wrong_field() {
    let (_dir, root) = start();
    let mut wrong: Value = serde_json::from_str(&document("shop", &["a"])).unwrap();
    wrong["applications"][0]["application_name"] = json!("no spaces");
    wrong["applications"][0]["microservices"][0]["vcpus"] = json!(-1);
    let refused = root.admin.post("/api/v1/apply", wrong.to_string()).expect(422);
    assert_eq!(refused.content_type, "application/problem+json");
    let problem = refused.json();
    assert_eq!(keys(&problem), ["detail", "errors", "status", "title"]);
    let pointers: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!(
        pointers,
        [json!("/applications/0/application_name"), json!("/applications/0/microservices/0/vcpus")]
    );
    root.admin.post("/api/v1/apply", "{").expect(422);
    root.admin.post("/api/v1/apply", [0xff]).expect(422);
    assert_eq!(root.admin.get("/api/v1/nonsense").expect(404).json()["status"], 404);
    assert_eq!(root.admin.delete("/api/v1/apply").expect(405).json()["status"], 405);
    assert_eq!(root.admin.get("/api/v1/instances/x").expect(404).json()["status"], 404);
}

/// Reads events off a plain connection.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(root: &TestRoot) -> Self {
        let mut stream = TcpStream::connect(root.listen).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let token = &root.admin.token;
        write!(
            stream,
            "GET /api/v1/events HTTP/1.1\r\nHost: root\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        .unwrap();
        Self(BufReader::new(stream))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).unwrap();
        (count > 0).then(|| line.trim_end().to_owned())
    }

    fn next(&mut self) -> (String, Value) {
        loop {
            let line = self.line().expect("the stream goes on");
            if let Some(event) = line.strip_prefix("event: ") {
                let event = event.to_owned();
                let data = self.line().unwrap();
                let data = data.strip_prefix("data: ").unwrap();
                return (event, serde_json::from_str(data).unwrap());
            }
        }
    }

    fn until(&mut self, event: &str, state: &str) -> Value {
        loop {
            let (name, data) = self.next();
            if name == event && (state.is_empty() || data["state"] == state) {
                return data;
            }
        }
    }
}

#[test]
fn events_tell_what_is_there_then_ready_then_every_change() {
    let (_dir, root) = start();
    root.admin.post("/api/v1/apply", document("shop", &["web"])).expect(200);
    let mut events = Events::open(&root);
    let (event, there) = events.next();
    assert_eq!((event.as_str(), &there["state"]), ("instance", &json!("unplaceable")));
    assert_eq!(events.next(), ("ready".to_owned(), json!({})));
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let id = there["instance_id"].clone();
    assert_eq!(events.until("instance", "running")["instance_id"], id);
    root.admin.delete(&format!("/api/v1/instances/{}", id.as_str().unwrap())).expect(202);
    assert_eq!(events.until("removed", "")["instance_id"], id);
    cluster.leave();
    // The end of the root ends the stream, and does not wait for it.
    root.stop();
    while events.line().is_some() {}
}
