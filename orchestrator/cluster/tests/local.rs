//! Operators at the cluster's own socket, with a parent above and without one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::*;
use marram_protocol::v1::*;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// One request on a connection of its own: status and body.
async fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: cluster\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn get(socket: &Path, path: &str) -> Value {
    let (status, body) = ask(socket, "GET", path, "").await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

#[tokio::test]
async fn a_site_without_its_parent_answers_its_operators() {
    let Scene { up, parent, cluster, mut node, dir, .. } = Scene::embedded().await;
    let socket = dir.path().join("state/cluster.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // Nobody above.
    drop((up, parent));
    let version = get(&socket, "/api/v1/version").await;
    assert_eq!(version["name"], "marram-cluster");
    let nodes = get(&socket, "/api/v1/nodes").await;
    assert_eq!((&nodes["items"][0]["name"], &nodes["missing"]), (&json!("board"), &json!([])));
    assert_eq!(nodes["items"][0]["cluster"]["name"], "site");
    let instances = get(&socket, "/api/v1/instances").await;
    let instance = &instances["items"][0];
    assert_eq!(
        (&instance["state"], &instance["application_id"]),
        (&json!("running"), &json!(null))
    );
    assert_eq!(
        (&instance["node"]["name"], &instance["cluster"]["name"]),
        (&json!("board"), &json!("site"))
    );
    let id = instance["instance_id"].as_str().unwrap().to_owned();
    assert_eq!(get(&socket, "/api/v1/clusters/").await, json!({"items": []}));

    // Logs come from the node, through the relay.
    let path = format!("/api/v1/instances/{id}/logs");
    let asking = ask(&socket, "GET", &path, "");
    let serving = async {
        let Down::StreamOpen { stream, request } = node.stream().await else { panic!() };
        assert!(matches!(request, StreamRequest::Logs { .. }));
        while !matches!(node.stream().await, Down::StreamCredit { .. }) {}
        let output = Output::Stdout;
        node.say(Up::StreamData { stream, output, bytes: b"hello\n".to_vec() }).await;
        node.say(Up::StreamEnd { stream, end: StreamEnd::Done }).await;
    };
    let ((status, body), ()) = tokio::join!(asking, serving);
    assert_eq!(status, 200);
    assert!(body.contains("hello\n"), "{body}");

    // So does the node's part of an explanation, behind the cluster's own.
    let path = format!("/api/v1/instances/{id}/explain");
    let serving = async {
        let stream = loop {
            let message = node.stream().await;
            if let Down::StreamOpen { stream, request: StreamRequest::Explain { .. } } = message {
                break stream;
            }
        };
        let bytes = b"{\"tier\":\"node\",\"name\":\"board\"}\n".to_vec();
        // It may answer once it was granted room for it.
        while !matches!(node.stream().await, Down::StreamCredit { .. }) {}
        node.say(Up::StreamData { stream, output: Output::Stdout, bytes }).await;
        node.say(Up::StreamEnd { stream, end: StreamEnd::Done }).await;
    };
    let (why, ()) = tokio::join!(get(&socket, &path), serving);
    let tiers: Vec<&Value> = why["path"].as_array().unwrap().iter().map(|l| &l["tier"]).collect();
    assert_eq!(tiers, [&json!("cluster"), &json!("node")]);
    assert_eq!(why["path"][0]["placed"]["name"], "board");

    operations(&socket).await;
    assert_eq!(ask(&socket, "GET", "/api/v1/applications", "").await.0, 404);
    assert_eq!(ask(&socket, "DELETE", "/api/v1/nodes", "").await.0, 405);
    cluster.stop().await;
    assert!(!socket.exists());
}

/// Operations are the cluster's own to do.
async fn operations(socket: &Path) {
    let cordon = json!({"verb": "cordon", "targets": ["board"]}).to_string();
    let (status, body) = ask(socket, "POST", "/api/v1/operations", &cordon).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["items"][0]["result"]), (200, &json!("done")));
    let nodes = get(socket, "/api/v1/nodes").await;
    assert_eq!(nodes["items"][0]["cordoned"], true);
    let site = json!({"verb": "cordon", "targets": ["site"]}).to_string();
    let (_, body) = ask(socket, "POST", "/api/v1/operations", &site).await;
    assert!(body.contains("\"result\":\"done\""), "{body}");
}
