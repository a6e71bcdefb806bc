//! Oakestra's form from end to end, as its clients walk through it.

use crate::cluster::FakeCluster;
use crate::harness::{CLIENTSRVR, Client, Reply, TestRoot, document};
use serde_json::{Value, json};

fn start() -> (tempfile::TempDir, TestRoot) {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    (dir, root)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

#[test]
fn an_unchanged_client_deploys_and_undeploys_the_example() {
    let (_dir, root) = start();
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let admin = &root.admin;
    let made = admin.post("/api/application/?", CLIENTSRVR).expect(200).doubly();
    assert_eq!(made.as_array().unwrap().len(), 1);
    let application = text(&made[0], "applicationID").to_owned();
    assert_eq!(made[0]["_id"]["$oid"], application.as_str());
    assert_eq!(admin.get(&format!("/api/application/{application}")).doubly(), made[0]);

    let services = admin.get(&format!("/api/services/{application}/?")).expect(200).doubly();
    let nginx = services.as_array().unwrap().iter().find(|s| s["service_name"] == "nginx").unwrap();
    assert_eq!(nginx["instance_list"], json!([]));
    assert_eq!(nginx["virtualization"], "docker");
    let service = text(nginx, "microserviceID");
    let ok = json!({"message": "ok"});
    let reply = admin.post(&format!("/api/service/{service}/instance"), nginx.to_string());
    assert_eq!(reply.expect(200).json(), ok);
    assert_eq!(admin.post(&format!("/api/service/{service}/instance/"), "").json(), ok);

    let path = format!("/api/service/{service}");
    let both_run = |reply: &Reply| {
        let service = reply.doubly();
        let instances = service["instance_list"].as_array().unwrap();
        instances.iter().filter(|one| one["status"] == "RUNNING").count() == 2
    };
    let running = admin.until(&path, both_run).doubly();
    assert_eq!(running["next_instance_progressive_number"], 2);
    let first = &running["instance_list"][0];
    assert_eq!((&first["instance_number"], &first["host_port"]), (&json!(0), &json!(6080)));
    assert_eq!(first["cluster_location"], "48.1,11.5,1000");
    assert_eq!(first["publicip"], "127.0.0.1");
    assert_eq!(first["logs"], format!("{service}.0\none\ntwo\nthree\n"));
    assert_eq!(running["status"], "RUNNING");

    let deleted = admin.delete(&format!("/api/service/{service}/instance/0")).expect(200);
    assert_eq!(deleted.json(), ok);
    let second_runs = |reply: &Reply| {
        let list = reply.doubly()["instance_list"].clone();
        list.as_array().unwrap().len() == 1 && list[0]["status"] == "RUNNING"
    };
    assert_eq!(admin.until(&path, second_runs).doubly()["instance_list"][0]["instance_number"], 1);
    assert_eq!(admin.delete(&format!("/api/service/{service}/instance/-1")).json(), ok);
    admin.until(&path, |reply| reply.doubly()["instance_list"] == json!([]));

    let gone = admin.delete(&format!("/api/application/{application}/")).expect(200);
    assert_eq!(gone.json(), json!({"message": "Application Deleted"}));
    assert_eq!(admin.get("/api/applications").doubly(), json!([]));
    assert_eq!(admin.get("/api/services").doubly(), json!([]));
    cluster.leave();
}

#[test]
fn every_path_answers_with_and_without_a_slash_and_never_redirects() {
    let (_dir, root) = start();
    for path in ["applications", "applications/Admin", "services", "clusters", "clusters/active"] {
        for end in ["", "/", "?", "/?"] {
            root.admin.get(&format!("/api/{path}{end}")).expect(200);
        }
    }
    for end in ["", "/", "/?"] {
        let name = format!("app{}", end.len());
        root.admin.post(&format!("/api/application{end}"), document(&name, &[])).expect(200);
    }
    assert_eq!(root.admin.get("/api/applications").doubly().as_array().unwrap().len(), 3);
}

#[test]
fn clusters_are_raw_json_for_everybody() {
    let (_dir, root) = start();
    let nobody = Client::anonymous(root.listen);
    let empty = nobody.get("/api/clusters/").expect(200);
    assert_eq!(
        (empty.content_type.as_str(), empty.text.as_str()),
        ("text/html; charset=utf-8", "[]")
    );
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    let active = nobody.until("/api/clusters/active", |reply| reply.text != "[]").json();
    let found = &active[0];
    assert_eq!(found["_id"], "010101010101010101010101");
    assert_eq!((&found["cluster_name"], &found["active_nodes"]), (&json!("c1"), &json!(1)));
    assert_eq!((&found["total_cpu_cores"], &found["memory_in_mb"]), (&json!(8), &json!(16_000)));
    assert_eq!(found["ip"], "127.0.0.1");
    cluster.leave();
}

#[test]
fn services_are_added_to_an_application_by_its_id() {
    let (_dir, root) = start();
    let admin = &root.admin;
    let made = admin.post("/api/application/", document("shop", &["web"])).expect(200).doubly();
    let application = text(&made[0], "applicationID");
    let with_id = |services: &[&str]| {
        let empty = "\"applicationID\":\"\"";
        document("shop", services).replace(empty, &format!("\"applicationID\":\"{application}\""))
    };
    let reply = admin.post("/api/service/", with_id(&["extra"])).expect(200).json();
    assert_eq!(reply["deployed_services"], json!([{"service_name": "extra", "status": 200}]));
    assert_eq!(reply["failed_services"], json!([]));
    let service = admin.get(&format!("/api/service/{}", text(&reply, "job_id"))).expect(200);
    assert_eq!(service.doubly()["job_name"], "shop.test.extra.test");
    assert_eq!(service.doubly()["x-site"], json!({"floor": 3}));
    admin.post("/api/service/", with_id(&["extra"])).expect(409);
    admin.post("/api/service/", document("shop", &["more"])).expect(400);
    let deleted = admin.delete(&format!("/api/service/{}", text(&reply, "job_id"))).expect(200);
    assert_eq!(deleted.json(), json!({"message": "Job deleted"}));
    let application = admin.get(&format!("/api/application/{application}")).doubly();
    assert_eq!(application["microservices"].as_array().unwrap().len(), 1);
}

#[test]
fn refusals_have_code_status_and_message() {
    let (_dir, root) = start();
    let admin = &root.admin;
    admin.post("/api/application/", document("shop", &["web"])).expect(200);
    let twice = admin.post("/api/application/", document("shop", &[])).expect(409).json();
    assert_eq!((&twice["code"], &twice["status"]), (&json!(409), &json!("Conflict")));
    let id = "6b02c146095d85ec50ef2ebc";
    for path in [
        format!("/api/application/{id}"),
        "/api/application/nonsense".into(),
        format!("/api/services/{id}"),
        format!("/api/service/{id}"),
        "/api/nonsense".into(),
    ] {
        let refused = admin.get(&path).expect(404).json();
        assert_eq!((&refused["code"], &refused["status"]), (&json!(404), &json!("Not Found")));
        assert!(refused["message"].is_string());
    }
    admin.post(&format!("/api/service/{id}/instance"), "").expect(404);
    admin.delete(&format!("/api/service/{id}/instance/0")).expect(404);
    admin.delete(&format!("/api/application/{id}")).expect(404);
    admin.delete("/api/applications/").expect(405);
    let mut wrong: Value = serde_json::from_str(&document("shop2", &["a", "b"])).unwrap();
    wrong["sla_version"] = json!("v1.0");
    wrong["applications"][0]["microservices"][0]["memory"] = json!(-1);
    wrong["applications"][0]["microservices"][1]["port"] = json!("80;x");
    let refused = admin.post("/api/application/", wrong.to_string()).expect(422).json();
    assert_eq!(refused["status"], "Unprocessable Entity");
    let errors = refused["errors"].as_array().unwrap();
    let paths: Vec<&str> = errors.iter().map(|error| text(error, "path")).collect();
    assert_eq!(
        paths,
        [
            "$.sla_version",
            "$.applications[0].microservices[0].memory",
            "$.applications[0].microservices[1].port"
        ]
    );
    assert_eq!(admin.get("/api/applications/").doubly().as_array().unwrap().len(), 1);
}
