//! What goes wrong on a host: a killed shim, no cgroups, torn files, a stranger's lock.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod common;

use common::Place;
use marram_backend_api::conformance::Program;
use marram_backend_api::{
    Backend, Cursor, ErrorKind, Event, Events, Exec, ExecEvent, ExecRequest, ExitReason, Logs,
    Observed, Pause, Spec, WorkloadId,
};
use marram_native::NativeBackend;
use marram_shim::process;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Sink(mpsc::Sender<Event>);

impl Events for Sink {
    fn push(&self, event: Event) {
        drop(self.0.try_send(event));
    }
}

fn id(name: &str) -> WorkloadId {
    WorkloadId::new(name).unwrap()
}

fn watched(place: &Place) -> (NativeBackend, mpsc::Receiver<Event>) {
    let backend = NativeBackend::new(place.config.clone());
    let (sender, events) = mpsc::channel(100);
    backend.watch(Arc::new(Sink(sender)));
    (backend, events)
}

async fn exit(events: &mut mpsc::Receiver<Event>) -> ExitReason {
    let next = tokio::time::timeout(DEADLINE, events.recv()).await;
    match next.expect("no event came") {
        Some(Event::Exited(_, exit)) => exit.reason,
        other => panic!("{other:?}"),
    }
}

async fn running(backend: &NativeBackend, id: &WorkloadId, spec: &Spec) -> u32 {
    let handle = backend.prepare(id, spec).await.unwrap();
    backend.start(&handle).await.unwrap();
    match backend.recover(&handle).await.unwrap() {
        Observed::Running { pid, .. } => pid,
        other => panic!("{other:?}"),
    }
}

/// Whether a process is no more; a zombie waits for a foster parent that is none of ours.
fn gone(pid: u32) -> bool {
    process::Stat::of(pid).map_or(true, |stat| stat.state == b'Z')
}

/// The parent of a process.
fn parent(pid: u32) -> u32 {
    process::Stat::of(pid).unwrap().ppid
}

#[tokio::test]
async fn a_killed_shim_is_a_lost_workload_and_nothing_is_left() {
    let place = Place::new();
    let (backend, mut events) = watched(&place);
    let id = id("orphan");
    let pid = running(&backend, &id, &common::spec(Program::UntilTerm(0))).await;
    assert!(backend.wait(&id, Cursor(0)).await.unwrap());
    assert!(process::kill(parent(pid), rustix::process::Signal::KILL));
    assert_eq!(exit(&mut events).await, ExitReason::Lost);
    assert!(gone(pid), "the program outlived its shim");
    let listed = backend.list().await.unwrap();
    assert!(
        matches!(&listed[..], [(_, Observed::Exited(exit))] if exit.reason == ExitReason::Lost)
    );
    let end = backend.read(&id, Cursor(0), 100).await.unwrap().next;
    assert!(!backend.wait(&id, end).await.unwrap(), "who follows the log is not let go");
    backend.destroy(&id).await.unwrap();
    assert_eq!(place.remains("orphan"), Vec::<String>::new());
}

#[tokio::test]
async fn a_shim_killed_while_no_engine_was_there_is_found_out() {
    let place = Place::new();
    let (backend, _) = watched(&place);
    let id = id("orphan-alone");
    let pid = running(&backend, &id, &common::spec(Program::IgnoreTerm)).await;
    drop(backend);
    assert!(process::kill(parent(pid), rustix::process::Signal::KILL));
    let (backend, _) = watched(&place);
    // The shim may take a moment to die: until then the workload runs.
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            match backend.list().await.unwrap().pop().unwrap().1 {
                Observed::Running { .. } => tokio::task::yield_now().await,
                other => return other,
            }
        }
    });
    let found = found.await.unwrap();
    assert!(
        matches!(&found, Observed::Exited(exit) if exit.reason == ExitReason::Lost),
        "{found:?}"
    );
    assert!(gone(pid), "the program outlived its shim");
    backend.destroy(&id).await.unwrap();
}

/// A host without cgroups is had by a parent that cannot be.
fn without_cgroups() -> Place {
    let mut place = Place::new();
    place.config.cgroup_parent = Some("/not/../plain".into());
    place
}

#[tokio::test]
async fn without_cgroups_limits_are_refused_or_waived() {
    let place = without_cgroups();
    let (backend, mut events) = watched(&place);
    let print = backend.fingerprint().await;
    assert!(print.limits.iter().all(|limit| limit.enforced.is_err()), "{print:?}");
    let strict = common::spec(Program::UntilTerm(3));
    assert_eq!(backend.validate(&strict).unwrap_err().kind, ErrorKind::Unsupported);
    let id = id("waived");
    let waived = Spec { allow_unlimited: true, ..strict };
    let pid = running(&backend, &id, &waived).await;
    assert!(backend.wait(&id, Cursor(0)).await.unwrap());
    let usage = backend.usage(&id).await.unwrap();
    assert!(usage.pids >= 1 && usage.memory_bytes > 0, "{usage:?}");
    assert_eq!(backend.pause(&id).await.unwrap_err().kind, ErrorKind::Unsupported);
    let exit_of_stop = backend.stop(&id, DEADLINE).await.unwrap();
    assert_eq!(exit_of_stop.reason, ExitReason::Code(3));
    assert_eq!(exit(&mut events).await, ExitReason::Code(3));
    assert!(gone(pid));
    backend.destroy(&id).await.unwrap();
    // One that has to be killed, with its child in a session of its own.
    let script = "trap '' TERM; setsid sleep 1000 & echo ready; wait; wait";
    let args = vec!["-c".into(), script.into()];
    let pid = running(&backend, &id, &Spec { args, ..waived }).await;
    assert!(backend.wait(&id, Cursor(0)).await.unwrap());
    let below = process::descendants(parent(pid)).unwrap();
    backend.destroy(&id).await.unwrap();
    for pid in below {
        assert!(gone(pid), "{pid} was left behind");
    }
}

#[tokio::test]
async fn torn_files_are_unknown_and_can_be_destroyed() {
    let place = Place::new();
    let (backend, _) = watched(&place);
    let id = id("torn");
    let spec = common::spec(Program::Exit(0));
    let handle = backend.prepare(&id, &spec).await.unwrap();
    let dir = place.config.state_dir.join("torn");
    std::fs::write(dir.join("spec.json"), "{").unwrap();
    assert!(backend.start(&handle).await.is_err());
    assert!(backend.prepare(&id, &spec).await.is_err());
    std::fs::write(dir.join("exit.json"), "").unwrap();
    let listed = backend.list().await.unwrap();
    assert!(matches!(&listed[..], [(_, Observed::Unknown(_))]), "{listed:?}");
    backend.destroy(&id).await.unwrap();
    assert_eq!(place.remains("torn"), Vec::<String>::new());
    // What a killed engine left of a removal goes with the next one.
    std::fs::create_dir(place.config.state_dir.join(".gone-torn")).unwrap();
    let (backend, _) = watched(&place);
    assert_eq!(place.remains("torn"), Vec::<String>::new());
    assert_eq!(backend.list().await.unwrap(), Vec::new());
}

#[tokio::test]
async fn a_handle_of_an_earlier_life_is_of_nothing() {
    let place = Place::new();
    let (backend, _) = watched(&place);
    let id = id("lives");
    let spec = common::spec(Program::UntilTerm(0));
    let first = backend.prepare(&id, &spec).await.unwrap();
    backend.destroy(&id).await.unwrap();
    let pid = running(&backend, &id, &spec).await;
    assert_eq!(backend.recover(&first).await.unwrap(), Observed::Absent);
    assert_eq!(backend.start(&first).await.unwrap_err().kind, ErrorKind::NotFound);
    let second = backend.prepare(&id, &spec).await.unwrap();
    assert_ne!(first, second);
    assert!(
        matches!(backend.recover(&second).await.unwrap(), Observed::Running { pid: p, .. } if p == pid)
    );
    backend.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn an_exec_in_what_does_not_run_says_how_it_is() {
    let place = Place::new();
    let (backend, mut events) = watched(&place);
    let request = ExecRequest { argv: vec!["true".into()], environment: vec![], terminal: None };
    let id = id("exec-ended");
    let why = async || {
        let error = backend.exec(&id, &request).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
        error.why
    };
    assert_eq!(why().await, "exec-ended is not here");
    let handle = backend.prepare(&id, &common::spec(Program::Exit(3))).await.unwrap();
    assert_eq!(why().await, "exec-ended was not started yet");
    backend.start(&handle).await.unwrap();
    assert_eq!(exit(&mut events).await, ExitReason::Code(3));
    assert_eq!(why().await, "exec-ended has ended with code 3");
    backend.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn an_exec_has_the_rights_and_limits_of_its_workload() {
    for private_namespaces in [false, true] {
        let place = Place::new();
        let (backend, _) = watched(&place);
        let id = id("exec-rights");
        let spec = Spec { private_namespaces, ..common::spec(Program::UntilTerm(0)) };
        let pid = running(&backend, &id, &spec).await;
        let script = "grep -E '^(Uid|CapBnd|NoNewPrivs):' /proc/self/status; cat /proc/self/cgroup; \
                      readlink /proc/self/ns/pid; ls /proc/self/fd | wc -l";
        let argv = vec!["sh".into(), "-c".into(), script.into()];
        let request = ExecRequest { argv, environment: Vec::new(), terminal: None };
        let mut session = backend.exec(&id, &request).await.unwrap();
        let mut output = Vec::new();
        let ended = loop {
            match session.output.next().await.unwrap() {
                ExecEvent::Output(_, bytes) => output.extend(bytes),
                ExecEvent::Exited(exit) => break exit.reason,
            }
        };
        let output = String::from_utf8(output).unwrap();
        assert_eq!(ended, ExitReason::Code(0), "{output}");
        assert!(output.contains("Uid:\t65534\t"), "{output}");
        assert!(output.contains("CapBnd:\t0000000000000000"), "{output}");
        assert!(output.contains("NoNewPrivs:\t1"), "{output}");
        assert!(output.contains("/w-exec-rights"), "{output}");
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        assert!(output.contains(namespace.to_str().unwrap()), "{output}");
        // Three streams and the directory that is listed.
        assert!(output.ends_with("\n4\n"), "{output}");
        backend.destroy(&id).await.unwrap();
    }
}
