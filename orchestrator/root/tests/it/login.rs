//! Tokens over HTTP: who gets one, and what happens without.

use crate::harness::{Client, TestRoot, add_user, document, password};
use serde_json::json;

fn start() -> (tempfile::TempDir, TestRoot) {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    (dir, root)
}

#[test]
fn a_login_gives_two_tokens_and_the_second_a_new_first() {
    let (dir, root) = start();
    let mut client = Client::anonymous(root.listen);
    let login = json!({"username": "Admin", "password": password(dir.path()),
                       "organization_name": "root"});
    let reply = client.post("/api/auth/login/?", login.to_string()).expect(200);
    assert_eq!(reply.content_type, "application/json");
    assert!(reply.text.ends_with("}\n"));
    let tokens = reply.json();
    client.token = tokens["refresh_token"].as_str().unwrap().to_owned();
    let new = client.post("/api/auth/refresh", "").expect(200).json();
    let refused = client.get("/api/applications/").expect(422);
    assert_eq!(refused.json(), json!({"msg": "Only non-refresh tokens are allowed"}));
    client.token = new["token"].as_str().unwrap().to_owned();
    client.get("/api/applications/").expect(200);
    let refused = client.post("/api/auth/refresh", "").expect(422);
    assert_eq!(refused.json(), json!({"msg": "Only refresh tokens are allowed"}));
}

#[test]
fn wrong_logins_are_refused_and_slowed_down() {
    let (_dir, root) = start();
    let client = Client::anonymous(root.listen);
    for bad in ["", "{}", "[]", "not json", "{\"username\":1,\"password\":2}"] {
        client.post("/api/auth/login", bad).expect(400);
    }
    let foreign = json!({"username": "Admin", "password": "x", "organization_name": "other"});
    client.post("/api/auth/login", foreign.to_string()).expect(404);
    let wrong = json!({"username": "Admin", "password": "Admin"}).to_string();
    for _ in 0..3 {
        let refused = client.post("/api/auth/login", &wrong).expect(401).json();
        assert_eq!((&refused["code"], &refused["status"]), (&json!(401), &json!("Unauthorized")));
    }
    let slowed = client.post("/api/auth/login", &wrong).expect(429).json();
    assert_eq!(slowed["status"], "Too Many Requests");
    // Who is in stays in.
    root.admin.get("/api/applications/").expect(200);
}

#[test]
fn without_a_token_each_family_of_paths_says_so_in_its_way() {
    let (_dir, root) = start();
    let nobody = Client::anonymous(root.listen);
    let id = "6b02c146095d85ec50ef2ebc";
    for path in ["/api/applications", "/api/applications/Admin", &format!("/api/application/{id}")]
    {
        let refused = nobody.get(path).expect(401);
        assert_eq!(refused.json(), json!({"msg": "Missing Authorization Header"}));
    }
    for path in ["/api/services/", &format!("/api/services/{id}"), &format!("/api/service/{id}")] {
        let refused = nobody.get(path).expect(401);
        assert_eq!(refused.json(), json!({"message": "Missing authentication token"}));
    }
    nobody.post("/api/application/", document("shop", &[])).expect(401);
    nobody.post(&format!("/api/service/{id}/instance"), "").expect(401);
    for path in [
        "applications",
        "services",
        "instances",
        "clusters",
        "nodes",
        "events",
        &format!("applications/{id}"),
        &format!("instances/{id}.0/logs"),
    ] {
        let refused = nobody.get(&format!("/api/v1/{path}")).expect(401);
        assert_eq!(refused.content_type, "application/problem+json");
        assert_eq!(refused.json()["status"], 401);
    }
    nobody.post("/api/v1/apply", document("shop", &[])).expect(401);
    let mut forged = root.admin.clone();
    forged.token.pop();
    forged.get("/api/v1/instances").expect(401);
    forged.get("/api/applications/").expect(422);
    for path in ["/api/clusters/", "/api/clusters/active", "/healthz", "/readyz", "/api/v1/version"]
    {
        nobody.get(path).expect(200);
    }
    assert_eq!(root.admin.get("/api/applications/").doubly(), json!([]));
}

#[test]
fn what_is_somebody_elses_cannot_be_seen_or_touched() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "eve", "evening");
    let root = TestRoot::start(dir.path());
    let eve = root.login("eve", "evening");
    let applied = root.admin.post("/api/v1/apply", document("shop", &["web"])).expect(200).json();
    let application = applied["applications"][0]["application_id"].as_str().unwrap();
    let service = applied["applications"][0]["services"][0]["service_id"].as_str().unwrap();
    for (path, status) in [
        ("/api/applications/".to_owned(), 403),
        ("/api/services/".to_owned(), 403),
        ("/api/applications/Admin".to_owned(), 401),
        (format!("/api/application/{application}"), 404),
        (format!("/api/services/{application}"), 404),
        (format!("/api/service/{service}"), 404),
        (format!("/api/v1/applications/{application}"), 404),
        (format!("/api/v1/services/{service}"), 404),
        (format!("/api/v1/instances/{service}.0"), 404),
        (format!("/api/v1/instances/{service}.0/logs"), 404),
        (format!("/api/v1/instances/{service}.0/exec?arg=sh"), 404),
    ] {
        assert_eq!(eve.get(&path).status, status, "{path}");
    }
    let enough = json!({"message": "You have not enough permissions!"});
    assert_eq!(eve.get("/api/services/").json(), enough);
    for path in [
        format!("/api/application/{application}"),
        format!("/api/service/{service}"),
        format!("/api/service/{service}/instance/0"),
        format!("/api/service/{service}/instance/-1"),
        format!("/api/v1/applications/{application}"),
        format!("/api/v1/services/{service}"),
        format!("/api/v1/instances/{service}.0"),
    ] {
        assert_eq!(eve.delete(&path).status, 404, "{path}");
    }
    for path in [
        format!("/api/service/{service}/instance"),
        format!("/api/v1/services/{service}/instances"),
    ] {
        assert_eq!(eve.post(&path, "").status, 404, "{path}");
    }
    let intruder = document("shop", &["other"])
        .replace("\"applicationID\":\"\"", &format!("\"applicationID\":\"{application}\""));
    eve.post("/api/service/", &intruder).expect(404);
    eve.post("/api/v1/apply", &intruder).expect(409);
    for kind in ["applications", "services", "instances"] {
        assert_eq!(eve.get(&format!("/api/v1/{kind}")).json(), json!({"items": []}), "{kind}");
    }
    // Her own application of the same name is another one.
    let hers = eve.post("/api/application/", document("shop", &["web"])).expect(200).doubly();
    assert_eq!(hers.as_array().unwrap().len(), 1);
    assert_eq!(hers[0]["userId"], "eve");
    assert_eq!(eve.get("/api/applications/eve").doubly(), hers);
    assert_eq!(root.admin.get("/api/applications/").doubly().as_array().unwrap().len(), 2);
    assert_eq!(root.admin.get("/api/v1/instances").json()["items"].as_array().unwrap().len(), 1);
}
