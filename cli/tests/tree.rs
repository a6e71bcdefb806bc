//! The tree: explanations, operations, scaling, and a cluster at its own socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;

use double::{A, Asked, B, Double, answer, instance};
use serde_json::{Value, json};

fn body(asked: &Asked) -> Value {
    serde_json::from_slice(&asked.body).unwrap()
}

fn operated(asked: &Asked) -> Value {
    let request = body(asked);
    let item = |target: &str, result: &str, detail: &str| json!({"target": target, "kind": "cluster", "id": A, "result": result, "detail": detail});
    let items = match request["selector"].as_str().unwrap() {
        "nothing-*" => json!([]),
        "bad-*" => json!([item("a", "done", ""), item("b", "refused", "b is connected")]),
        _ if request["dry_run"] == true => json!([item("a", "matched", "")]),
        _ => json!([item("a", "done", "")]),
    };
    json!({"verb": request["verb"], "dry_run": request["dry_run"], "items": items})
}

fn root() -> Double {
    let double = Double::new(|asked, stream| {
        let service = json!({"items": [{
            "service_id": A, "name": "web", "namespace": "test", "application_name": "shop",
            "application_namespace": "test",
        }]});
        let one = instance(A, "shop.test.web.test", 0, "running", "");
        let explain = format!("GET /api/v1/instances/{A}.0/explain");
        match asked.line.as_str() {
            "POST /api/v1/operations" => answer(stream, 200, &operated(asked)),
            "GET /api/v1/services" => answer(stream, 200, &service),
            "GET /api/v1/instances" => answer(stream, 200, &json!({"items": [one]})),
            line if *line == explain => {
                let path = json!([
                    {"tier": "root", "name": "root", "state": "running", "detail": "",
                     "placed": {"kind": "cluster", "name": "berlin"},
                     "refusals": [{"child": "hamburg", "reason": "no GPU"}]},
                    {"tier": "cluster", "name": "berlin", "unreachable": "is not connected"},
                ]);
                answer(stream, 200, &json!({"instance_id": "x", "path": path, "missed": []}));
            }
            line if line.starts_with("GET /api/v1/instances/") => answer(stream, 200, &one),
            line if line.starts_with("PUT /api/v1/services/") => {
                let replicas = body(asked)["replicas"].as_u64().unwrap();
                let ids: Vec<String> = (0..replicas).map(|n| format!("{A}.{n}")).collect();
                let scaled = json!({"instances": ids, "added": ids[1..], "removed": []});
                answer(stream, 202, &scaled);
            }
            "GET /api/v1/foreign" => answer(
                stream,
                200,
                &json!({"items": [
                    {"id": B, "name": "stray", "kind": "cluster", "tree": "00000000000000ab",
                 "released": false},
                ]}),
            ),
            line if line.starts_with("POST /api/v1/foreign/") => answer(stream, 202, &json!({})),
            _ => answer(stream, 404, &json!({"title": "not found"})),
        }
    });
    double.log_in("good", "refresh");
    double
}

#[test]
fn a_described_instance_says_why_it_is_where_it_is() {
    let double = root();
    let ran = double.run(&["describe", "instance", "web.0"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let why = ran.out.split_once("why:\n").unwrap().1;
    assert_eq!(
        why,
        "  root: running, placed on cluster berlin\n    refused by hamburg: no GPU\n  \
         cluster berlin: cannot be asked: is not connected\n"
    );
    let ran = double.run(&["describe", "instance", "web.0", "-o", "json"]);
    let object: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&object["state"], &object["missed"]), (&json!("running"), &json!([])));
    assert_eq!(object["path"][0]["refusals"][0]["child"], "hamburg");
}

#[test]
fn operations_list_each_target_and_fail_if_one_fails() {
    let double = root();
    let ran = double.run(&["drain", "a", "b/c", "--dry-run"]);
    assert_eq!((ran.code, ran.out.lines().nth(1)), (0, Some("a       cluster  matched  -")));
    let asked = body(double.asked.lock().unwrap().last().unwrap());
    assert_eq!(
        asked,
        json!({"verb": "drain", "targets": ["a", "b/c"], "selector": "", "nodes": false,
            "dry_run": true})
    );
    let ran = double.run(&["cordon", "--selector", "bad-*"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("b       cluster  refused  b is connected"), "{ran:?}");
    assert_eq!(ran.err, "error: 1 of 2 could not be done\n");
    let ran = double.run(&["forget", "-s", "nothing-*"]);
    assert_eq!((ran.code, ran.err.as_str()), (4, "error: no cluster is called `nothing-*`\n"));
    assert_eq!(double.run(&["rebalance"]).code, 0);
    let asked = double.lines().len();
    let ran = double.run(&["uncordon"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("--selector"), "{ran:?}");
    assert_eq!(double.lines().len(), asked, "nothing was asked");
    let ran = double.run(&["cordon", "a", "-o", "json"]);
    let object: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(object["items"][0]["result"], "done");
}

#[test]
fn a_service_is_scaled_by_its_name() {
    let double = root();
    let ran = double.run(&["scale", "web", "3"]);
    assert_eq!((ran.code, ran.out.lines().count()), (0, 3), "{ran:?}");
    assert_eq!(ran.err, "shop.test.web.test: 3 instances, 2 new, 0 removed\n");
    assert_eq!(double.lines().last().unwrap(), &format!("PUT /api/v1/services/{A}/scale"));
    assert_eq!(double.run(&["scale", "web", "-1"]).code, 2);
    assert_eq!(double.run(&["scale", "nobody", "1"]).code, 4);
}

#[test]
fn what_belongs_to_another_tree_is_listed_and_adopted() {
    let double = root();
    let ran = double.run(&["get", "clusters", "--foreign"]);
    assert_eq!(
        ran.out.lines().nth(1),
        Some(&*format!("stray  cluster  {B}  00000000000000ab  -     refused"))
    );
    let ran = double.run(&["adopt", "stray"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, "stray is taken when it asks again\n"));
    assert_eq!(double.lines().last().unwrap(), &format!("POST /api/v1/foreign/{B}/adopt"));
    assert_eq!(double.run(&["adopt", "nobody"]).code, 4);
}

#[test]
fn a_cluster_of_this_machine_is_asked_at_its_socket_without_a_login() {
    let double = root();
    let path = double.home.path().join("cluster.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = BufReader::new(&stream);
            let (mut first, mut secret) = (String::new(), false);
            head.read_line(&mut first).unwrap();
            loop {
                let mut header = String::new();
                head.read_line(&mut header).unwrap();
                secret |= header.to_ascii_lowercase().starts_with("authorization");
                if header.trim().is_empty() {
                    break;
                }
            }
            let body = match first.trim() {
                "GET /api/v1/nodes HTTP/1.1" if !secret => json!({"missing": [], "items": [
                    {"node_id": A, "name": "pi", "connected": true, "instances": 0,
                     "cluster": {"id": B, "name": "site", "path": ""}}]}),
                _ => json!({"items": []}),
            }
            .to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            // Until the client has it.
            drop(stream.read(&mut [0]));
        }
    });
    let cluster = format!("--cluster={}", path.display());
    let ran = double.run(&[&cluster, "get", "nodes"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert_eq!(ran.out.lines().nth(1), Some("pi    connected  site     0          -    -"));
    assert!(double.lines().is_empty(), "the root was asked nothing");
    let ran = double.run(&[&cluster, "get", "applications"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("without --cluster"), "{ran:?}");
    // Nobody there: said with the socket that was looked for.
    let ran = double.run(&["--cluster", "get", "nodes"]);
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("/var/lib/marram/cluster/cluster.sock"), "{ran:?}");
}
