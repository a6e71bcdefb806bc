//! How a workload ended is known although nobody was there: neither engine nor containerd.
//! Needs root.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use marram_backend_api::conformance::Program;
use marram_backend_api::{
    Backend, Cursor, ErrorKind, ExitReason, Handle, Logs, Observed, Resources, Spec,
};
use marram_containerd::Containerd;
use std::path::Path;
use std::time::Duration;
use support::{Host, PATIENCE, id, until};

/// Enough for a shell, and soon eaten.
const MEMORY_BYTES_MAX: u64 = 16 << 20;

async fn running(backend: &Containerd, name: &str) -> u32 {
    let all = backend.list().await.unwrap();
    match all.into_iter().find(|(of, _)| *of == id(name)) {
        Some((_, Observed::Running { pid, .. })) => pid,
        other => panic!("{name} should run and is {other:?}"),
    }
}

/// Starts a workload and waits until its script has said "ready".
async fn ready(backend: &Containerd, name: &str, spec: &Spec) -> Handle {
    let handle = backend.prepare(&id(name), spec).await.unwrap();
    let handle = backend.start(&handle).await.unwrap();
    let word = tokio::time::timeout(PATIENCE, backend.wait(&id(name), Cursor(0))).await;
    assert!(word.unwrap().unwrap(), "{name} ended early");
    handle
}

fn gone(pid: u32) {
    until("the process to end", || !Path::new(&format!("/proc/{pid}")).exists());
}

/// How it ended, which every verb must tell alike.
async fn told(backend: &Containerd, handle: &Handle) -> ExitReason {
    let of = &handle.workload;
    let Observed::Exited(exit) = backend.recover(handle).await.unwrap() else {
        panic!("{of} has ended and is {:?}", backend.recover(handle).await);
    };
    let all = backend.list().await.unwrap();
    assert!(all.contains(&(of.clone(), Observed::Exited(exit.clone()))), "{of}: {exit:?}, {all:?}");
    assert_eq!(backend.stop(of, Duration::ZERO).await.unwrap(), exit, "{of}");
    assert_eq!(backend.start(handle).await.unwrap_err().kind, ErrorKind::Invalid, "{of}");
    exit.reason
}

async fn log_ends(backend: &Containerd, name: &str) {
    let name = id(name);
    let wait = async { while backend.wait(&name, Cursor(u64::MAX)).await.unwrap() {} };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// Workloads of every kind of end, which end while both are away.
async fn nobody_is_there(runtime: &'static str) {
    let mut host = Host::new(runtime);
    let until_term = |code| host.script(&Program::UntilTerm(code).script());
    let eats = "trap 'x=0123456789abcdef; while :; do x=$x$x; done' TERM; echo ready; \
                while :; do sleep 1000 & wait $!; done";
    let resources = Resources { memory_bytes_max: Some(MEMORY_BYTES_MAX), ..Default::default() };
    let mut cases = vec![
        ("done", until_term(0), 15, ExitReason::Code(0)),
        ("failed", until_term(5), 15, ExitReason::Code(5)),
        ("killed", until_term(0), 9, ExitReason::Signal(9)),
    ];
    let limits_memory = marram_backend_api::conformance::Harness::enforces(&host, "memory");
    if limits_memory {
        let spec = Spec { resources, ..host.script(eats) };
        cases.push(("hungry", spec, 15, ExitReason::OutOfMemory));
    }
    let backend = host.backend();
    let mut handles = Vec::new();
    let mut pids = Vec::new();
    for (name, spec, _, _) in &cases {
        handles.push(ready(&backend, name, spec).await);
        pids.push(running(&backend, name).await);
    }
    drop(backend);
    host.daemon.down();
    for ((_, _, signal, _), pid) in cases.iter().zip(&pids) {
        support::daemon::kill(*pid, *signal);
    }
    pids.into_iter().for_each(gone);
    host.daemon.up();
    let backend = host.backend();
    for ((name, _, _, expected), handle) in cases.iter().zip(&handles) {
        assert_eq!(told(&backend, handle).await, *expected, "{name}");
        log_ends(&backend, name).await;
        backend.destroy(&id(name)).await.unwrap();
    }
    until("nothing to be left", || host.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_known_when_nobody_was_there_runc() {
    nobody_is_there("runc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_known_when_nobody_was_there_crun() {
    nobody_is_there("crun").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_at_the_moment_of_containerds_start_is_known() {
    let mut host = Host::new("runc");
    let backend = host.backend();
    let spec = host.script(&Program::UntilTerm(7).script());
    for round in 0..4 {
        let name = format!("moment-{round}");
        let handle = ready(&backend, &name, &spec).await;
        let pid = running(&backend, &name).await;
        host.daemon.down();
        // Ends at another moment of the start each time.
        let end = format!("sleep 0.{:03}; kill {pid}", round * 30);
        let mut child = std::process::Command::new("sh").args(["-c", &end]).spawn().unwrap();
        host.daemon.up();
        child.wait().unwrap();
        gone(pid);
        assert_eq!(told(&backend, &handle).await, ExitReason::Code(7), "round {round}");
        backend.destroy(&handle.workload).await.unwrap();
    }
    until("nothing to be left", || host.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_known_when_somebody_removed_the_task() {
    let host = Host::new("runc");
    let backend = host.backend();
    let spec = host.script(&Program::UntilTerm(4).script());
    let handle = ready(&backend, "removed", &spec).await;
    host.ctr(&["task", "kill", "--signal", "TERM", "removed"]);
    until("the task to stop", || host.ctr(&["task", "ls"]).contains("STOPPED"));
    host.ctr(&["task", "rm", "removed"]);
    assert_eq!(told(&backend, &handle).await, ExitReason::Code(4));
    backend.destroy(&id("removed")).await.unwrap();
    // A second life of the same name knows nothing of the first.
    let handle = ready(&backend, "removed", &spec).await;
    let keeper = host.driver("removed");
    support::daemon::kill(keeper, 9);
    gone(keeper);
    host.ctr(&["task", "kill", "--signal", "KILL", "removed"]);
    until("the task to stop", || host.ctr(&["task", "ls"]).contains("STOPPED"));
    host.ctr(&["task", "rm", "removed"]);
    assert_eq!(told(&backend, &handle).await, ExitReason::Lost);
    log_ends(&backend, "removed").await;
    backend.destroy(&id("removed")).await.unwrap();
    until("nothing to be left", || host.leftovers().is_empty());
}
