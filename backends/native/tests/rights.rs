//! What a program of the host may and may not: user, capabilities, mounts, root; and what
//! is said by an engine without rights.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod common;

use common::Place;
use marram_backend_api::conformance::Program;
use marram_backend_api::{
    Backend, Cursor, ErrorKind, Health, Limits, Logs, Mount, Spec, WorkloadId,
};
use marram_native::{Config, NativeBackend};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

fn id(name: &str) -> WorkloadId {
    WorkloadId::new(name).unwrap()
}

/// Runs a program to its end and gives back its output.
async fn output(backend: &NativeBackend, spec: &Spec) -> String {
    let id = id("rights");
    let handle = backend.prepare(&id, spec).await.unwrap();
    backend.start(&handle).await.unwrap();
    while backend.wait(&id, Cursor(u64::MAX)).await.unwrap() {}
    let output = backend.read(&id, Cursor(0), 1 << 20).await.unwrap().bytes;
    backend.destroy(&id).await.unwrap();
    String::from_utf8(output).unwrap()
}

fn shell(script: &str) -> Spec {
    let args = vec!["-c".into(), script.into()];
    Spec { args, ..common::spec(Program::Exit(0)) }
}

const STATUS: &str = "cat /proc/self/status; cut -d' ' -f5,6 /proc/$$/stat; echo pid $$; umask; \
                      cat /proc/self/oom_score_adj; ls /proc/self/fd";

/// The value of a line of `/proc/self/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

#[tokio::test]
async fn a_program_has_no_rights_by_default() {
    let place = Place::new();
    let backend = NativeBackend::new(place.config.clone());
    let status = output(&backend, &shell(STATUS)).await;
    assert!(field(&status, "Uid:").starts_with("65534\t65534\t65534"), "{status}");
    assert!(field(&status, "Gid:").starts_with("65534\t65534\t65534"), "{status}");
    assert_eq!(field(&status, "Groups:"), "65534");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(field(&status, set), 16), Ok(0), "{set} {status}");
    }
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    for mask in ["SigBlk:", "ShdPnd:"] {
        assert_eq!(u64::from_str_radix(field(&status, mask), 16), Ok(0), "{mask} {status}");
    }
    // Leads its own group and session, so the shell's id is all three.
    let pid = field(&status, "pid ");
    assert!(status.contains(&format!("\n{pid} {pid}\n")), "{status}");
    // Umask, score, and no descriptor but its own three and the one that lists them.
    assert!(status.ends_with("0022\n0\n0\n1\n2\n3\n"), "{status}");
}

#[tokio::test]
async fn root_needs_both_the_request_and_the_permission() {
    let mut place = Place::new();
    let as_root = |user: &str| Spec { user: Some(user.into()), ..shell(STATUS) };
    let backend = NativeBackend::new(place.config.clone());
    for user in ["root", "0", "0:0", "1:0"] {
        let error = backend.validate(&as_root(user)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{user}: {error}");
    }
    place.config.limits = Limits { allow_root: true, ..Limits::default() };
    let backend = NativeBackend::new(place.config.clone());
    let status = output(&backend, &as_root("root")).await;
    assert!(field(&status, "Uid:").starts_with("0\t0\t0"), "{status}");
    // Those of root in a container, and no way to more.
    let bounded = u64::from_str_radix(field(&status, "CapBnd:"), 16).unwrap();
    assert_eq!(bounded, 0xa804_25fb, "{status}");
    assert_eq!(field(&status, "CapEff:"), field(&status, "CapBnd:"));
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    let unasked = output(&backend, &shell(STATUS)).await;
    assert!(field(&unasked, "Uid:").starts_with("65534"), "root without being asked: {unasked}");
    let numbers = output(&backend, &as_root("1234:5678")).await;
    assert!(field(&numbers, "Uid:").starts_with("1234\t"), "{numbers}");
    assert_eq!(field(&numbers, "Groups:"), "5678");
    let unknown = backend.validate(&as_root("no-such-user")).unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::Unsupported);
}

#[tokio::test]
async fn mounts_are_private_and_within_the_allowed_folders() {
    let mut place = Place::new();
    let allowed = place.dir.path().join("allowed");
    let target = place.dir.path().join("target");
    for dir in [&allowed, &target] {
        std::fs::create_dir(dir).unwrap();
    }
    // The directory of a test is its owner's alone; programs run as somebody else.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.dir.path(), open).unwrap();
    std::fs::write(allowed.join("file"), "seen\n").unwrap();
    place.config.limits =
        Limits { mount_roots: vec![allowed.clone()], allow_root: true, ..Limits::default() };
    let backend = NativeBackend::new(place.config.clone());
    let script =
        format!("cat {0}/file; touch {0}/new 2>&1; ls /proc | grep -c '^[0-9]'", target.display());
    let mount = |source: PathBuf| Mount { source, target: target.clone(), read_only: true };
    let spec = Spec {
        mounts: vec![mount(allowed.clone())],
        private_namespaces: true,
        user: Some("root".into()),
        ..shell(&script)
    };
    let seen = output(&backend, &spec).await;
    assert!(seen.starts_with("seen\n"), "{seen}");
    assert!(seen.contains("Read-only file system"), "{seen}");
    let processes: u32 = seen.lines().last().unwrap().parse().unwrap();
    assert!(processes <= 5, "it sees {processes} processes");
    assert!(std::fs::read_dir(&target).unwrap().next().is_none(), "the host sees the mount");
    for outside in ["/etc".into(), place.dir.path().to_owned(), allowed.join("../../..")] {
        let spec = Spec { mounts: vec![mount(outside.clone())], ..spec.clone() };
        let error = backend.validate(&spec).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{}: {error}", outside.display());
    }
    let shared = Spec { private_namespaces: false, ..spec };
    assert_eq!(backend.validate(&shared).unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn devices_are_given_by_group_and_only_if_allowed() {
    let mut place = Place::new();
    place.config.limits.devices = vec!["/dev/null".into()];
    let backend = NativeBackend::new(place.config.clone());
    let with = |device: &str| Spec { devices: vec![device.into()], ..shell("true") };
    assert!(backend.validate(&with("/dev/null")).is_ok());
    assert_eq!(backend.validate(&with("/dev/zero")).unwrap_err().kind, ErrorKind::Unsupported);
    let read_only = Spec { read_only_root: true, ..shell("true") };
    assert_eq!(backend.validate(&read_only).unwrap_err().kind, ErrorKind::Unsupported);
}

/// What an engine of another user says. Runs in a copy of this test under that user.
#[tokio::test]
#[ignore = "started by the next test, as another user"]
async fn child_without_root() {
    let config = Config::new("/nowhere/state", "/bin/sh");
    let backend = NativeBackend::new(config);
    let Health::Unhealthy(why) = backend.fingerprint().await.health else { panic!("healthy") };
    assert!(why.contains("runs as user 65534"), "{why}");
    let error = backend.validate(&shell("true")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert_eq!(backend.list().await.unwrap(), Vec::new());
}

#[test]
fn without_root_it_says_so_and_does_not_crash() {
    // Where that user can reach it.
    let dir = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let copy = dir.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let output = std::process::Command::new(copy)
        .args(["--exact", "child_without_root", "--ignored", "--nocapture"])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}
