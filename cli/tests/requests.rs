//! Plain commands against a root's answers: logins, refusals, names, tables, logs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use double::{A, B, Double, answer, begin, chunk, instance};
use serde_json::{Value, json};

fn items() -> Value {
    let mut waiting = instance(B, "clientsrvr.test.curl.test", 0, "unplaceable", "no\nnode");
    waiting["node"] = Value::Null;
    waiting["since_unix_ms"] = Value::Null;
    let mut running = instance(A, "clientsrvr.test.nginx.test", 0, "running", "");
    running["since_unix_ms"] = Value::Null;
    json!({"items": [running, waiting]})
}

fn unauthorised() -> Value {
    json!({"title": "unauthorised", "status": 401, "detail": "the token has run out"})
}

/// Answers the token `good` only; `refresh` gets it.
fn guarded() -> Double {
    Double::new(|asked, stream| match (asked.line.as_str(), asked.token.as_deref()) {
        ("POST /api/auth/refresh", Some("refresh")) => {
            answer(stream, 200, &json!({"token": "good"}));
        }
        ("POST /api/auth/refresh", _) => {
            answer(stream, 422, &json!({"msg": "Only refresh tokens are allowed"}));
        }
        ("POST /api/auth/login", None) => {
            let body: Value = serde_json::from_slice(&asked.body).unwrap();
            if body == json!({"username": "Admin", "password": "secret ä"}) {
                answer(stream, 200, &json!({"token": "good", "refresh_token": "refresh"}));
            } else {
                answer(stream, 401, &json!({"code": 401, "status": "Unauthorized"}));
            }
        }
        ("GET /api/v1/instances", Some("good")) => answer(stream, 200, &items()),
        ("GET /api/v1/nodes", Some("good")) => answer(stream, 200, &json!({"items": []})),
        ("GET /api/v1/clusters", Some("good")) => {
            let missing = json!([{"cluster": {"id": A, "name": "far"}, "reason": "too late"}]);
            answer(stream, 200, &json!({"items": [], "missing": missing}));
        }
        (_, Some("good")) => {
            answer(stream, 404, &json!({"title": "not found", "detail": "there is no such path"}));
        }
        _ => answer(stream, 401, &unauthorised()),
    })
}

#[test]
fn login_keeps_the_token_closed_to_others() {
    let double = guarded();
    let path = double.home.path().join("password");
    std::fs::write(&path, "secret ä\n").unwrap();
    let file = path.to_str().unwrap();
    let ran = double.run(&["login", "--server", &double.url, "--password-file", file]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    assert!(ran.err.starts_with("logged in at http://127.0.0.1:"), "{ran:?}");
    assert_eq!(double.config().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // The server is remembered with the login.
    assert_eq!(double.run(&["get", "instances"]).code, 0);

    std::fs::write(&path, "wrong\n").unwrap();
    let ran = double.run(&["login", "--password-file", file]);
    assert_eq!((ran.code, ran.err.as_str()), (3, "error: the server answered 401: Unauthorized\n"));
    let ran = double.run(&["login"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("--password-stdin"), "{ran:?}");
}

#[test]
fn a_token_that_ran_out_is_renewed_once_and_kept() {
    let double = guarded();
    double.log_in("old", "refresh");
    for expected in [3, 4] {
        assert_eq!(double.run(&["get", "instances"]).code, 0);
        assert_eq!(double.lines().len(), expected, "{:?}", double.lines());
    }
    double.log_in("old", "old");
    let ran = double.run(&["get", "instances"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("the login has run out at http://"), "{ran:?}");
    assert!(ran.err.contains("marram login --server"), "{ran:?}");
}

#[test]
fn instances_are_listed_in_three_forms() {
    let double = guarded();
    double.log_in("good", "refresh");
    let ran = double.run(&["get", "instances"]);
    assert_eq!(
        ran.out,
        "\
NAME                          STATE        NODE  RESTARTS  SINCE  DETAIL
clientsrvr.test.curl.test.0   unplaceable  -     0         -      no node
clientsrvr.test.nginx.test.0  running      pi    0         -      -
"
    );
    let wide = double.run(&["get", "instances", "-o", "wide"]).out;
    assert!(wide.contains(&format!("{A}.0")), "{wide}");
    let json: Value =
        serde_json::from_str(&double.run(&["get", "instances", "-o", "json"]).out).unwrap();
    assert_eq!(json, items());
    let ran = double.run(&["get", "nodes"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", "there are no nodes\n"));
    assert_eq!(double.run(&["get", "nodes", "-q"]).err, "");
    let ran = double.run(&["get", "clusters", "-q"]);
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (0, "warning: cluster far does not answer: too late\n")
    );
}

#[test]
fn refusals_have_codes_and_fields() {
    let double = Double::new(|asked, stream| match asked.line.as_str() {
        "POST /api/v1/apply" => answer(
            stream,
            422,
            &json!({"title": "unprocessable", "status": 422, "detail": "2 wrong fields",
            "errors": [
                {"pointer": "/applications/0/memory", "path": "$.applications[0].memory",
                 "detail": "-1, expected 0 to 1048576"},
                {"pointer": "/customerID", "path": "$.customerID", "detail": "missing"},
            ]}),
        ),
        "GET /api/v1/nodes" => answer(stream, 500, &json!({"title": "internal"})),
        "GET /api/v1/clusters" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno json!!").unwrap();
        }
        "GET /api/v1/services" => {
            stream.write_all(b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\n\r\n").unwrap();
        }
        _ => answer(stream, 403, &json!({"title": "forbidden", "detail": "role Admin is needed"})),
    });
    double.log_in("t", "r");
    let file = double.home.path().join("sla.json");
    std::fs::write(&file, "{}").unwrap();
    let ran = double.run(&["apply", file.to_str().unwrap()]);
    assert_eq!(ran.code, 7);
    assert_eq!(
        ran.err,
        "error: the server answered 422: unprocessable: 2 wrong fields\n  \
         $.applications[0].memory: -1, expected 0 to 1048576\n  $.customerID: missing\n"
    );
    assert_eq!(double.run(&["get", "nodes"]).code, 1);
    let ran = double.run(&["get", "clusters"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("is not a root's"), "{ran:?}");
    assert_eq!(double.run(&["get", "services"]).code, 1, "redirects are not followed");
    let ran = double.run(&["get", "applications"]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert!(ran.err.ends_with("403: forbidden: role Admin is needed\n"), "{ran:?}");
}

#[test]
fn mistakes_on_this_side_have_their_codes() {
    let double = guarded();
    let code = |args: &[&str]| double.run(args).code;
    assert_eq!(code(&["get", "nodes", "--server", &double.url]), 3, "not logged in");
    assert_eq!(code(&["get", "nodes", "--server", "http://10.1.2.3:10000"]), 3);
    assert_eq!(code(&["get", "nodes", "--server", "nonsense/"]), 3);
    assert_eq!(code(&["get", "nodes", "--server", "ftp://127.0.0.1"]), 2);
    assert_eq!(code(&["get", "fish"]), 2);
    assert_eq!(code(&["nonsense"]), 2);
    assert_eq!(code(&["apply", "/nonexistent", "--server", &double.url]), 1);
    assert!(double.lines().is_empty(), "nothing was asked: {:?}", double.lines());

    double.log_in("good", "refresh");
    let large = double.home.path().join("large.json");
    std::fs::write(&large, vec![b' '; 1024 * 1024 + 1]).unwrap();
    let ran = double.run(&["apply", large.to_str().unwrap()]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("longer than the 1048576 bytes"), "{ran:?}");

    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = double.run(&["version", "--server", &free.to_string()]);
    assert_eq!((ran.code, ran.out.as_str()), (5, "client 0.1.0\n"));
    assert!(ran.err.contains("no server answers at http://127.0.0.1:"), "{ran:?}");
}

#[test]
fn proxies_of_the_environment_see_nothing() {
    let double = guarded();
    double.log_in("good", "refresh");
    let proxy = Double::new(|_, _| {});
    let mut command = double.command(&["get", "nodes"]);
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env(name, &proxy.url);
    }
    assert!(command.output().unwrap().status.success());
    assert!(proxy.lines().is_empty());
}

#[test]
fn names_are_found_or_explained() {
    let double = guarded();
    double.log_in("good", "refresh");
    let ran = double.run(&["describe", "instance", "redis"]);
    assert_eq!(ran.code, 4);
    assert_eq!(
        ran.err,
        "error: no instance is called `redis`; there is clientsrvr.test.nginx.test.0, \
         clientsrvr.test.curl.test.0\n"
    );
    double.run(&["describe", "instance", "nginx"]);
    assert_eq!(double.lines().last().unwrap(), &format!("GET /api/v1/instances/{A}.0"));
    let ran = double.run(&["delete", "service", B]);
    assert_eq!(double.lines().last().unwrap(), &format!("DELETE /api/v1/services/{B}"));
    assert_eq!(ran.code, 4, "the root's word: {ran:?}");
}

#[test]
fn logs_follow_byte_by_byte() {
    let double = Double::new(|asked, stream| match asked.line.as_str() {
        "GET /api/v1/instances" => answer(stream, 200, &items()),
        _ => {
            assert!(asked.line.ends_with("/logs?follow=true&tail=5"), "{}", asked.line);
            begin(stream, "application/octet-stream");
            chunk(stream, b"first\n");
            chunk(stream, b"\xff");
            chunk(stream, b"\n");
            // It goes on until the client has enough.
            while chunk(stream, b"more\n") {}
        }
    });
    double.log_in("t", "r");
    let mut command = double.command(&["logs", "nginx.0", "-f", "--tail", "5"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).unwrap();
    reader.read_until(b'\n', &mut line).unwrap();
    assert_eq!(line, b"first\n\xff\n");
    drop(reader);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), err.as_str()),
        (Some(0), ""),
        "a closed pipe is no error"
    );
}

#[test]
fn logs_that_break_off_are_an_error() {
    let double = Double::new(|_, stream| {
        begin(stream, "application/octet-stream");
        chunk(stream, b"half");
    });
    double.log_in("t", "r");
    let ran = double.run(&["logs", &format!("{A}.0")]);
    assert_eq!((ran.code, ran.out.as_str()), (5, "half"), "{ran:?}");
}

#[test]
fn completions_and_help_speak_of_everything() {
    let double = Double::new(|_, _| {});
    for shell in ["bash", "zsh", "fish"] {
        let ran = double.run(&["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("marram") && ran.out.contains("describe"), "{shell}");
    }
    let help = double.run(&["--help"]).out;
    for part in ["Exit codes:", "  6  timeout", "apply", "Global options:", "--server"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    assert!(double.run(&["exec", "--help"]).out.contains("125 if marram failed"));
    assert_eq!(double.run(&["--version"]).out, "marram 0.1.0\n");
}
