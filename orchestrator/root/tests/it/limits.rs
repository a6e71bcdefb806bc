//! Bodies that are too long, heads that never end, and words that are no HTTP.

use crate::harness::{PATIENCE, TestRoot, document};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;

fn start() -> (tempfile::TempDir, TestRoot) {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    (dir, root)
}

fn raw(root: &TestRoot, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(root.listen).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A connection that is cut has said what it had to say.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn two_mebibytes_are_too_much_and_the_client_hears_it() {
    let (_dir, root) = start();
    let large = vec![b' '; 2 * 1024 * 1024];
    let refused = root.admin.post("/api/application/", &large).expect(413).json();
    assert_eq!((&refused["code"], &refused["status"]), (&json!(413), &json!("Payload Too Large")));
    let refused = root.admin.post("/api/v1/apply", &large).expect(413);
    assert_eq!(refused.content_type, "application/problem+json");
    root.admin.post("/api/auth/login", &large).expect(413);
    let mut padded = document("shop", &["web"]);
    padded.push_str(&" ".repeat(1024 * 1024 - padded.len()));
    root.admin.post("/api/v1/apply", &padded).expect(200);
    padded.push(' ');
    root.admin.post("/api/v1/apply", &padded).expect(413);
}

#[test]
fn what_is_no_http_ends_the_connection_and_nothing_else() {
    let (_dir, root) = start();
    assert!(raw(&root, b"\x16\x03\x01 hello tls \r\n\r\n").contains("400 Bad Request"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    let answer = raw(&root, long.as_bytes());
    assert!(answer.contains("HTTP/1.1 4"), "{answer}");
    let many: String = (0..300).map(|n| format!("X-{n}: y\r\n")).collect();
    let answer = raw(&root, format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes());
    assert!(answer.contains("431"), "{answer}");
    let odd = raw(&root, b"GET /api/v1/instances/%ff HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(odd.contains("HTTP/1.1 4"), "{odd}");
    let options = b"OPTIONS /api/applications/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let options = raw(&root, options);
    assert!(options.starts_with("HTTP/1.1 200"), "{options}");
    assert!(options.contains("access-control-allow-origin: *"), "{options}");
    root.admin.get("/readyz").expect(200);
}

#[test]
fn a_service_that_no_message_can_carry_is_refused_at_once() {
    let (_dir, root) = start();
    let mut large: serde_json::Value = serde_json::from_str(&document("shop", &["web"])).unwrap();
    let service = &mut large["applications"][0]["microservices"][0];
    service["environment"] =
        json!(["A=".to_owned() + &"x".repeat(60_000), "B=".to_owned() + &"y".repeat(60_000)]);
    let refused = root.admin.post("/api/v1/apply", large.to_string()).expect(422).json();
    assert!(refused["detail"].as_str().unwrap().contains("bytes"), "{refused}");
    assert_eq!(root.admin.get("/api/v1/applications").json(), json!({"items": []}));
}
