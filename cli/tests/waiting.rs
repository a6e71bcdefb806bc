//! `apply --wait` and `delete --wait` against an event stream that is cut, lost and late.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;

use std::sync::atomic::{AtomicUsize, Ordering};

use double::{A, B, Double, answer, begin, chunk, event, instance};
use serde_json::{Value, json};

const NGINX: &str = "clientsrvr.test.nginx.test";

fn applied() -> Value {
    json!({"applications": [{
        "application_id": B, "name": "clientsrvr", "namespace": "test",
        "services": [{"service_id": A, "name": "nginx", "namespace": "test",
            "instances": [format!("{A}.0")], "created": true}],
    }]})
}

/// Answers what is asked around the event stream, which is `stream`'s matter.
fn double(
    last: Value,
    stream: impl Fn(usize, &mut std::net::TcpStream) + Send + Sync + 'static,
) -> Double {
    let streams = AtomicUsize::new(0);
    let double = Double::new(move |asked, out| match asked.line.as_str() {
        "POST /api/v1/apply" => {
            assert_eq!(asked.body, b"{\"sla\": 1}");
            answer(out, 200, &applied());
        }
        "GET /api/v1/events" => stream(streams.fetch_add(1, Ordering::SeqCst), out),
        "GET /api/v1/instances" => answer(out, 200, &json!({"items": [last]})),
        line if line.contains("/logs?tail=20") => {
            begin(out, "application/octet-stream");
            chunk(out, b"starting\ncannot bind: \x1b[31mport");
            chunk(out, b" 80 is taken\n");
            chunk(out, b"");
        }
        _ => answer(out, 202, &json!({})),
    });
    double.log_in("t", "r");
    std::fs::write(double.home.path().join("sla.json"), "{\"sla\": 1}").unwrap();
    double
}

fn apply(double: &Double, more: &[&str]) -> double::Ran {
    let file = double.home.path().join("sla.json");
    let args = ["apply", file.to_str().unwrap(), "--wait"];
    double.run(&[&args[..], more].concat())
}

/// Keeps a stream open until the client goes.
fn hold(out: &mut std::net::TcpStream) {
    while chunk(out, b": still here\n\n") {
        // Paced by the client: it reads each comment before it can go.
        std::thread::yield_now();
    }
}

fn now(state: &str, detail: &str) -> Value {
    instance(A, NGINX, 0, state, detail)
}

#[test]
fn progress_is_told_until_all_run() {
    let double = double(now("running", ""), |_, out| {
        begin(out, "text/event-stream");
        let mut text = event("instance", &now("requested", ""));
        text += &event("instance", &instance(B, "other.a.b.c", 7, "dead", ""));
        text += &event("ready", &json!({}));
        text += &event("instance", &now("creating", "12 of 40 MiB"));
        text += &event("instance", &now("creating", "40 of 40 MiB"));
        text += &event("instance", &now("running", ""));
        // Cut anywhere, as a network does.
        for part in text.as_bytes().chunks(7) {
            chunk(out, part);
        }
        hold(out);
    });
    let ran = apply(&double, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.err,
        "\
clientsrvr.test.nginx.test created
clientsrvr.test.nginx.test.0  requested          on pi
clientsrvr.test.nginx.test.0  creating           on pi  12 of 40 MiB
clientsrvr.test.nginx.test.0  running            on pi
"
    );
    assert!(ran.out.contains("clientsrvr.test.nginx.test.0  running  pi"), "{ran:?}");
    let ran = apply(&double, &["-q", "-o", "json"]);
    assert_eq!(ran.err, "");
    let out: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(out["instances"][0]["state"], "running");
    assert_eq!(out["applications"], applied()["applications"]);
}

#[test]
fn a_dead_workload_is_shown_with_its_last_words() {
    let mut dead = now("dead", "ended with code 1");
    dead["exit"] = json!({"code": 1});
    dead["restarts"] = json!(5);
    let last = dead.clone();
    let double = double(last, move |_, out| {
        begin(out, "text/event-stream");
        chunk(out, event("instance", &dead).as_bytes());
        chunk(out, event("ready", &json!({})).as_bytes());
        hold(out);
    });
    let ran = apply(&double, &["-q"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert_eq!(
        ran.err,
        "\
error: 1 of 1 instances did not come up
  clientsrvr.test.nginx.test.0: dead after 5 restarts: ended with code 1
    | starting
    | cannot bind: [31mport 80 is taken
"
    );
}

#[test]
fn refusals_of_children_are_named() {
    let mut nowhere = now("unplaceable", "no cluster can take it");
    nowhere["tried"] = json!([{"child": "local", "reason": "memory: 100 MiB wanted, 12 free"}]);
    let last = nowhere.clone();
    let double = double(last, move |_, out| {
        begin(out, "text/event-stream");
        chunk(out, event("instance", &nowhere).as_bytes());
        chunk(out, event("ready", &json!({})).as_bytes());
        hold(out);
    });
    let started = std::time::Instant::now();
    let ran = apply(&double, &["-q"]);
    assert!(started.elapsed().as_secs() >= 4, "a joining node gets a moment");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.ends_with(
            "test.0: unplaceable: no cluster can take it\n    \
             tried local: memory: 100 MiB wanted, 12 free\n"
        ),
        "{ran:?}"
    );
}

#[test]
fn a_server_that_comes_back_has_lost_nothing() {
    let double = double(now("running", ""), |count, out| {
        if count == 1 {
            // Dies before a word.
            return;
        }
        begin(out, "text/event-stream");
        let state = if count == 0 { "creating" } else { "running" };
        chunk(out, event("instance", &now(state, "")).as_bytes());
        chunk(out, event("ready", &json!({})).as_bytes());
        if count > 1 {
            hold(out);
        }
    });
    let ran = apply(&double, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(lines.len(), 5, "{ran:?}");
    assert!(lines[1].contains("creating"), "{ran:?}");
    assert!(lines[2].ends_with("; trying again"), "{ran:?}");
    assert_eq!(lines[3], "the server is back");
    assert!(lines[4].contains("running"), "{ran:?}");
}

#[test]
fn waiting_ends_with_a_code_of_its_own() {
    let double = double(now("creating", "pulling"), |_, out| {
        begin(out, "text/event-stream");
        chunk(out, event("instance", &now("creating", "pulling")).as_bytes());
        chunk(out, event("ready", &json!({})).as_bytes());
        hold(out);
    });
    let ran = apply(&double, &["--timeout", "1s", "-q"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert_eq!(
        ran.err,
        "error: not done within 1 s\n  clientsrvr.test.nginx.test.0: creating: pulling\n"
    );
}

#[test]
fn what_keeps_failing_is_shown_with_its_last_words_too() {
    let double = double(Value::Null, |_, out| {
        begin(out, "text/event-stream");
        chunk(out, event("instance", &now("failed", "ended with code 1")).as_bytes());
        chunk(out, event("ready", &json!({})).as_bytes());
        hold(out);
    });
    let ran = apply(&double, &["--timeout", "1s", "-q"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.err.contains("failed: ended with code 1\n    | starting\n"), "{ran:?}");
}

#[test]
fn without_waiting_the_ids_are_the_result() {
    let double = double(Value::Null, |_, _| panic!("nobody waits"));
    let file = double.home.path().join("sla.json");
    let ran = double.run(&["apply", file.to_str().unwrap(), "-q"]);
    assert_eq!((ran.code, ran.out), (0, format!("{A}.0\n")));
}

#[test]
fn a_deletion_is_followed_to_its_end() {
    let double = double(now("running", ""), |_, out| {
        begin(out, "text/event-stream");
        chunk(out, event("instance", &now("running", "")).as_bytes());
        chunk(out, event("ready", &json!({})).as_bytes());
        chunk(out, event("removed", &json!({"instance_id": format!("{A}.0")})).as_bytes());
        hold(out);
    });
    let ran = double.run(&["delete", "service", A, "--wait"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.ends_with(&format!("service {A} is gone\n")), "{ran:?}");
    assert!(double.lines().contains(&format!("DELETE /api/v1/services/{A}")));
}
