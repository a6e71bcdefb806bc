//! The program: exit codes, the ready file, and its end on a signal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_marram-cluster");

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().unwrap()
}

fn config(dir: &Path, more: &str) -> String {
    let path = dir.join("cluster.toml");
    let state = dir.join("state");
    let text = format!(
        "name = 'site'\nparent = 'http://127.0.0.1:9'\nstate_dir = '{}'\n{more}\n",
        state.display()
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Ends its process even when the test fails.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if all went well.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn it_serves_writes_the_ready_file_and_ends_on_a_signal() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path(), "mqtt_listen = '127.0.0.1:0'");
    let ready = dir.path().join("ready");
    let child = Command::new(PROGRAM)
        .args(["--config", &config, "--ready-file", &ready.display().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    let text = loop {
        match std::fs::read_to_string(&ready) {
            Ok(text) => break text,
            Err(_) => assert!(Instant::now() < deadline, "no ready file"),
        }
        std::thread::yield_now();
    };
    let address = text.trim().strip_prefix("mqtt_listen=127.0.0.1:").unwrap();
    let port: u16 = address.parse().unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();

    // The same state twice, and the same port twice, are refused.
    let second = run(&["--config", &config]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let other = TempDir::new().unwrap();
    let taken = self::config(other.path(), &format!("mqtt_listen = '127.0.0.1:{port}'"));
    let third = run(&["--config", &taken]);
    assert_eq!(third.status.code(), Some(1), "{third:?}");
    let said = String::from_utf8_lossy(&third.stderr).into_owned();
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port} (mqtt_listen)")), "{said}");

    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_wrong_is_said_with_the_exit_code() {
    let dir = TempDir::new().unwrap();
    let open = config(dir.path(), "mqtt_listen = '0.0.0.0:10003'");
    let table: [(&[&str], i32, &str); 5] = [
        (&[], 64, "--config"),
        (&["--port", "1"], 64, "--port"),
        (&["--config", "/nonexistent/x.toml"], 64, "/nonexistent/x.toml"),
        (&["--config", &open], 64, "binds to 127.0.0.1 and ::1 only; refused: 0.0.0.0:10003"),
        (&["--config", &open, "--log", "loud"], 64, "loud"),
    ];
    for (args, code, text) in table {
        let output = run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(text), "{args:?}: {said}");
    }
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("marram-cluster 0."));
}
