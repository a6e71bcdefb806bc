//! The logging driver as containerd starts it: pipes as descriptors 3 and 4, ready on 5.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use marram_shim::log;
use std::path::Path;
use std::process::Command;

/// Plays containerd with a shell: named pipes become the descriptors.
fn drive(dir: &Path, script: &str) -> std::process::Output {
    let whole = format!(
        "set -e; cd '{}'; mkfifo out err ready; \
         '{shim}' bytes_max 65536 log \"$PWD/log\" 3<out 4<err 5>ready & driver=$!; \
         exec 6>out 7>err; cat ready; {script}",
        dir.display(),
        shim = env!("CARGO_BIN_EXE_marram-shim"),
    );
    Command::new("sh").args(["-c", &whole]).output().unwrap()
}

fn kept(dir: &Path) -> String {
    String::from_utf8(log::read(&dir.join("log"), 0, 1 << 16).unwrap().bytes).unwrap()
}

#[test]
fn output_is_kept_until_both_pipes_end() {
    let dir = tempfile::tempdir().unwrap();
    // `cat ready` returns only because the driver has closed its end.
    let script = "echo one >&6; echo two >&7; exec 6>&- 7>&-; wait $driver";
    let output = drive(dir.path(), script);
    assert!(output.status.success(), "{output:?}");
    let text = kept(dir.path());
    assert!(text.contains("one\n") && text.contains("two\n"), "{text:?}");
    assert!(log::has_ended(&dir.path().join("log")));
}

#[test]
fn asked_to_end_it_keeps_what_is_in_the_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let output = drive(dir.path(), "echo last >&6; kill -TERM $driver; wait $driver");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(kept(dir.path()), "last\n");
    assert!(log::has_ended(&dir.path().join("log")));
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    let shim = env!("CARGO_BIN_EXE_marram-shim");
    let output = Command::new(shim).args(["log", "relative"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("log is missing"), "{output:?}");
}
