//! The program itself: arguments, exit codes, files, signals.

use crate::harness::{Client, PATIENCE, password};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_marram-root"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn fails(arguments: &[&str], code: i32) -> String {
    let output = command(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn write(dir: &Path, text: &str) -> String {
    let path = dir.join("root.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

/// Ends what a failed test has started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where all went well.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn wrong_arguments_and_files_end_with_64_and_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    assert!(fails(&[], 64).contains("--config"));
    assert!(fails(&["--config", "/nonexistent/root.toml"], 64).contains("/nonexistent/root.toml"));
    let config = write(dir.path(), "state_dir = '/x'\nlisten = '0.0.0.0:10000'\n");
    let said = fails(&["--config", &config], 64);
    assert!(said.contains("binds to 127.0.0.1 and ::1 only; refused: 0.0.0.0:10000 (listen)"));
    let config = write(dir.path(), "state_dir = '/proc/nowhere'\n");
    assert!(fails(&["--config", &config], 1).contains("/proc/nowhere"));
    let version = command(&["--version"]).output().unwrap();
    assert!(version.status.success());
    let text = String::from_utf8(version.stdout).unwrap();
    assert_eq!(text, format!("marram-root {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn it_serves_says_where_and_ends_at_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let config = write(
        dir.path(),
        &format!(
            "state_dir = '{}'\nlisten = '127.0.0.1:0'\ntunnel_listen = '127.0.0.1:0'\n",
            state.display()
        ),
    );
    let ready = dir.path().join("ready");
    let arguments = ["--config", &config, "--ready-file", ready.to_str().unwrap()];
    let mut running = Running(command(&arguments).spawn().unwrap());
    let text = wait_for("the ready file", || std::fs::read_to_string(&ready).ok());
    let facts: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let [("listen", listen), ("tunnel_listen", _)] = facts[..] else { panic!("{text}") };
    let client = Client::anonymous(listen.parse().unwrap());
    assert_eq!(client.get("/readyz").expect(200).text, "ok\n");
    let login = format!("{{\"username\":\"Admin\",\"password\":\"{}\"}}", password(&state));
    client.post("/api/auth/login", login).expect(200);
    let mode = |name: &str| {
        let path = state.join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!((mode("admin-password"), mode("token-key")), (0o600, 0o600));

    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = wait_for("the end", || running.0.try_wait().unwrap());
    let mut said = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.success(), "{said}");
    assert!(said.contains("admin-password"), "{said}");
    assert!(!said.contains(&password(&state)), "the password itself is not logged");
}
