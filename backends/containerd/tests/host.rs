//! What only a real host shows: restarts of containerd, leaks, users, confinement. Needs root.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use marram_backend_api::{
    Backend, Cursor, ErrorKind, Event, Exec, ExecEvent, ExecRequest, ExitReason, Health, Limits,
    Logs, Mount, Observed, Resources, Spec,
};
use marram_containerd::Containerd;
use std::sync::Arc;
use std::time::Duration;
use support::{Host, PATIENCE, Recorder, id, until};

fn watched(host: &Host) -> (Containerd, Arc<Recorder>) {
    let backend = host.backend();
    let events = Arc::new(Recorder::default());
    backend.watch(events.clone());
    (backend, events)
}

async fn pid(backend: &Containerd, name: &str) -> u32 {
    let all = backend.list().await.unwrap();
    match all.into_iter().find(|(of, _)| *of == id(name)) {
        Some((_, Observed::Running { pid, .. })) => pid,
        other => panic!("{name} should run and is {other:?}"),
    }
}

async fn exit(events: &Recorder, name: &str) -> ExitReason {
    let wanted = |event: &Event| match event {
        Event::Exited(of, exit) if *of == id(name) => Some(exit.reason),
        _ => None,
    };
    events.first("the exit", wanted).await
}

/// Runs a script and returns how it ended and what it printed.
async fn outcome(backend: &Containerd, name: &str, spec: &Spec) -> (ExitReason, String) {
    let id = id(name);
    let handle = backend.prepare(&id, spec).await.unwrap();
    backend.start(&handle).await.unwrap();
    let wait = async { while backend.wait(&id, Cursor(u64::MAX)).await.unwrap() {} };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    let chunk = backend.read(&id, Cursor(0), 1 << 20).await.unwrap();
    let exit = backend.stop(&id, Duration::ZERO).await.unwrap();
    backend.destroy(&id).await.unwrap();
    (exit.reason, String::from_utf8(chunk.bytes).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_outlive_a_restart_of_containerd() {
    let mut host = Host::new("runc");
    let (backend, events) = watched(&host);
    let script = "trap 'exit 5' TERM; while :; do sleep 1000 & wait $!; done";
    let mut handles = Vec::new();
    for name in ["stays", "ends-meanwhile"] {
        let handle = backend.prepare(&id(name), &host.script(script)).await.unwrap();
        handles.push(backend.start(&handle).await.unwrap());
    }
    let (stays, ends) = (pid(&backend, "stays").await, pid(&backend, "ends-meanwhile").await);
    host.daemon.down();
    let error = backend.list().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{}", error.chain());
    assert_ne!(backend.fingerprint().await.health, Health::Healthy);
    // While nobody is there to hear of it.
    support::daemon::kill(ends, 15);
    until("the process to end", || !std::path::Path::new(&format!("/proc/{ends}")).exists());
    host.daemon.up();
    let resync = |event: &Event| (*event == Event::Resync).then_some(());
    events.first("word that containerd is back", resync).await;
    assert_eq!(pid(&backend, "stays").await, stays, "the same process");
    let seen = backend.recover(&handles[0]).await.unwrap();
    assert!(matches!(seen, Observed::Running { pid, .. } if pid == stays), "{seen:?}");
    match backend.recover(&handles[1]).await.unwrap() {
        Observed::Exited(exit) => assert_eq!(exit.reason, ExitReason::Code(5)),
        other => panic!("ended while containerd was away, and is {other:?}"),
    }
    // The old subscription is dead; the new one hears.
    support::daemon::kill(stays, 15);
    assert_eq!(exit(&events, "stays").await, ExitReason::Code(5));
    for name in ["stays", "ends-meanwhile"] {
        backend.destroy(&id(name)).await.unwrap();
    }
    until("nothing to be left", || host.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_containerd_that_is_tested_is_the_one_asked_for() {
    let host = Host::new("runc");
    let (backend, _) = watched(&host);
    let daemon = support::run("containerd", &["--version"]);
    let version = backend.fingerprint().await.version;
    let number = version.strip_prefix("containerd ").unwrap();
    assert!(daemon.contains(number), "{number} answers, and the program is {daemon}");
    let handle = backend.prepare(&id("asked-for"), &host.script("sleep 1000")).await.unwrap();
    backend.start(&handle).await.unwrap();
    let all = host.daemon.descendants_named();
    let shim = all.iter().find(|line| line.contains("containerd-shim")).unwrap();
    if let Some(folder) = support::folder_under_test() {
        let program = folder.join("containerd-shim-runc-v2").display().to_string();
        assert!(shim.contains(&program), "{program} was asked for, and {shim} runs");
    }
    backend.destroy(&id("asked-for")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_may_be_there_before_containerd() {
    let mut host = Host::new("runc");
    host.daemon.down();
    let (backend, _) = watched(&host);
    let print = backend.fingerprint().await;
    assert!(matches!(print.health, Health::Unhealthy(_) | Health::Undetected(_)), "{print:?}");
    assert!(print.runtimes.is_empty() && print.virtualizations.is_empty(), "{print:?}");
    let error = backend.prepare(&id("early"), &host.script("true")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{}", error.chain());
    host.daemon.up();
    let print = backend.fingerprint().await;
    assert_eq!(print.health, Health::Healthy);
    assert!(print.version.starts_with("containerd "), "{print:?}");
    assert_eq!(print.runtimes[0].name, "runc");
    for name in ["container", "docker", "runc"] {
        assert!(print.virtualizations.iter().any(|one| one == name), "{print:?}");
    }
    assert_eq!(outcome(&backend, "late", &host.script("exit 3")).await.0, ExitReason::Code(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_many_workloads() {
    let host = Host::new("runc");
    let (backend, _) = watched(&host);
    assert_eq!(host.leftovers(), [] as [String; 0], "before");
    let committed = || host.ctr(&["snapshot", "--snapshotter", "overlayfs", "ls"]).lines().count();
    let before = committed();
    for round in 0..3 {
        let spec = host.script("while :; do sleep 1000; done");
        let names: Vec<_> = (0..4).map(|number| id(&format!("many-{round}-{number}"))).collect();
        for name in &names {
            let handle = backend.prepare(name, &spec).await.unwrap();
            backend.start(&handle).await.unwrap();
        }
        let argv = ["sh", "-c", "cat"].map(str::to_owned).to_vec();
        let request = ExecRequest { argv, environment: Vec::new(), terminal: None };
        // One exec is still running when its workload goes, one ends, one is dropped.
        let session = backend.exec(&names[0], &request).await.unwrap();
        drop(backend.exec(&names[1], &request).await.unwrap());
        let mut ends = backend.exec(&names[2], &request).await.unwrap();
        ends.input.write(b"x").await.unwrap();
        ends.input.write(b"").await.unwrap();
        while !matches!(ends.output.next().await.unwrap(), ExecEvent::Exited(_)) {}
        drop(ends);
        backend.stop(&names[3], Duration::ZERO).await.unwrap();
        for name in &names {
            backend.destroy(name).await.unwrap();
        }
        drop(session);
        until("nothing to be left", || host.leftovers().is_empty());
        assert_eq!(committed(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_task_is_told_as_lost() {
    let host = Host::new("runc");
    let (backend, _) = watched(&host);
    let spec = host.script("while :; do sleep 1000; done");
    let handle = backend.prepare(&id("lost"), &spec).await.unwrap();
    backend.start(&handle).await.unwrap();
    // As a power cut does: the task goes, and who could tell; the container and our mark stay.
    support::daemon::kill(host.driver("lost"), 9);
    host.ctr(&["task", "kill", "--signal", "KILL", "lost"]);
    until("the task to stop", || host.ctr(&["task", "ls"]).contains("STOPPED"));
    host.ctr(&["task", "rm", "lost"]);
    match backend.recover(&handle).await.unwrap() {
        Observed::Exited(exit) => assert_eq!(exit.reason, ExitReason::Lost),
        other => panic!("{other:?}"),
    }
    assert_eq!(backend.start(&handle).await.unwrap_err().kind, ErrorKind::Invalid);
    backend.destroy(&id("lost")).await.unwrap();
    let handle = backend.prepare(&id("lost"), &spec).await.unwrap();
    assert_eq!(backend.recover(&handle).await.unwrap(), Observed::Prepared);
    backend.destroy(&id("lost")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_workload_along_and_is_told() {
    let host = Host::new("runc");
    let (backend, events) = watched(&host);
    let spec = host.script("while :; do sleep 1000; done");
    let handle = backend.prepare(&id("orphan"), &spec).await.unwrap();
    backend.start(&handle).await.unwrap();
    let pid = pid(&backend, "orphan").await;
    let all = host.daemon.descendants_named();
    let shim = all.iter().find(|line| line.contains("containerd-shim")).unwrap();
    let shim: u32 = shim.split(' ').next().unwrap().parse().unwrap();
    support::daemon::kill(shim, 9);
    assert_eq!(exit(&events, "orphan").await, ExitReason::Signal(9));
    until("the process to go", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    let seen = backend.recover(&handle).await.unwrap();
    assert!(matches!(seen, Observed::Exited(_)), "{seen:?}");
    let wait = async { while backend.wait(&id("orphan"), Cursor(u64::MAX)).await.unwrap() {} };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    backend.destroy(&id("orphan")).await.unwrap();
    until("nothing to be left", || host.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_those_of_the_image() {
    let host = Host::new("runc");
    let backend = host.backend();
    let show = "echo $(id -u) $(id -g) $(id -G) $HOME";
    let cases = [
        (None, "0 0 0 /root\n"),
        (Some("web"), "33 34 34 29 /srv\n"),
        (Some("1000:1000"), "1000 1000 1000 /\n"),
    ];
    for (user, expected) in cases {
        let spec = Spec { user: user.map(str::to_owned), ..host.script(show) };
        assert_eq!(outcome(&backend, "user", &spec).await, (ExitReason::Code(0), expected.into()));
    }
    let spec = Spec { user: Some("nobody-knows".into()), ..host.script(show) };
    let error = backend.prepare(&id("user"), &spec).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{}", error.chain());
    assert!(host.leftovers().is_empty(), "{:?}", host.leftovers());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_confined() {
    let host = Host::new("runc");
    let mut config = host.config();
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("file"), "of the host\n").unwrap();
    config.limits = Limits {
        mount_roots: vec![data.path().to_path_buf()],
        devices: vec!["/dev/null".into()],
        ..Limits::default()
    };
    let backend = Containerd::new(config).unwrap();
    let script = "
        mount -t tmpfs none /tmp 2>/dev/null && echo mounted
        echo 1 2>/dev/null > /proc/sys/kernel/hostname && echo wrote-proc
        echo x 2>/dev/null > /root-file && echo wrote-root
        echo x 2>/dev/null > /data/file && echo wrote-data
        cat /data/file
        grep NoNewPrivs /proc/self/status
        grep 'Seccomp:' /proc/self/status
        hostname
        ls /proc | grep -c '^[0-9]'
        test -s /etc/resolv.conf || test -e /etc/hosts && echo named
    ";
    let target = "/data".into();
    let source = data.path().to_path_buf();
    let spec = Spec {
        mounts: vec![Mount { source, target, read_only: true }],
        devices: vec!["/dev/null".into()],
        read_only_root: true,
        ..host.script(script)
    };
    let (reason, output) = outcome(&backend, "confined", &spec).await;
    assert_eq!(reason, ExitReason::Code(0), "{output}");
    for line in ["mounted", "wrote-proc", "wrote-root", "wrote-data"] {
        assert!(!output.contains(line), "{line}: {output}");
    }
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("of the host NoNewPrivs: 1 Seccomp: 2 confined"), "{words}");
    assert!(words.ends_with("named"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_signal_of_the_image_is_used() {
    let mut builder = support::image::Builder::busybox();
    builder.config["StopSignal"] = "SIGQUIT".into();
    let host = Host::empty("runc");
    let archive = host.dir.path().join("image.tar");
    builder.archive(&host.dir.path().join("layout"), support::IMAGE, &archive);
    host.ctr(&["image", "import", archive.to_str().unwrap()]);
    let backend = host.backend();
    let script = "trap 'exit 1' TERM; trap 'exit 7' QUIT; echo up; \
                  while :; do sleep 1000 & wait $!; done";
    let handle = backend.prepare(&id("quit"), &host.script(script)).await.unwrap();
    backend.start(&handle).await.unwrap();
    assert!(backend.wait(&id("quit"), Cursor(0)).await.unwrap());
    let exit = backend.stop(&id("quit"), PATIENCE).await.unwrap();
    assert_eq!(exit.reason, ExitReason::Code(7));
    backend.destroy(&id("quit")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_honoured_is_refused() {
    let host = Host::new("runc");
    let backend = host.backend();
    let good = host.script("true");
    backend.validate(&good).unwrap();
    let change = |change: &dyn Fn(&mut Spec)| {
        let mut spec = good.clone();
        change(&mut spec);
        backend.validate(&spec).unwrap_err().kind
    };
    let resources = |resources| Spec { resources, ..good.clone() };
    let tiny = resources(Resources { memory_bytes_max: Some(1 << 20), ..Resources::default() });
    assert_eq!(backend.validate(&tiny).unwrap_err().kind, ErrorKind::Invalid);
    let none = resources(Resources { cpu_millicores_max: Some(0), ..Resources::default() });
    assert_eq!(backend.validate(&none).unwrap_err().kind, ErrorKind::Invalid);
    let none = resources(Resources { pids_max: Some(0), ..Resources::default() });
    assert_eq!(backend.validate(&none).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(change(&|spec| spec.image = "Not A Name".into()), ErrorKind::Invalid);
    assert_eq!(change(&|spec| spec.user = Some("a b".into())), ErrorKind::Invalid);
    assert_eq!(change(&|spec| spec.working_dir = Some("here".into())), ErrorKind::Invalid);
    assert_eq!(change(&|spec| spec.runtime = Some("kata".into())), ErrorKind::Unsupported);
    assert_eq!(change(&|spec| spec.devices = vec!["/dev/mem".into()]), ErrorKind::Unsupported);
    let words = "x".repeat(2 << 20);
    assert_eq!(change(&|spec| spec.args.push(words.clone())), ErrorKind::Invalid);
    assert_eq!(
        change(&|spec| drop(spec.environment.insert("A=B".into(), String::new()))),
        ErrorKind::Invalid
    );
}

/// Not a check: prints how long a start takes beside `ctr run` of the same image.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, to be run alone"]
async fn start_beside_ctr_run() {
    let host = Host::new("runc");
    let backend = host.backend();
    let spec = host.script("while :; do sleep 1000; done");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..21 {
        let name = id(&format!("ours-{round}"));
        let began = std::time::Instant::now();
        let handle = backend.prepare(&name, &spec).await.unwrap();
        backend.start(&handle).await.unwrap();
        ours.push(began.elapsed());
        backend.destroy(&name).await.unwrap();
        let name = format!("theirs-{round}");
        let began = std::time::Instant::now();
        let script = "while :; do sleep 1000; done";
        host.ctr(&["run", "-d", support::IMAGE, &name, "sh", "-c", script]);
        theirs.push(began.elapsed());
        host.ctr(&["task", "rm", "--force", &name]);
        host.ctr(&["container", "rm", &name]);
    }
    ours.sort_unstable();
    theirs.sort_unstable();
    let ratio = ours[10].as_secs_f64() / theirs[10].as_secs_f64();
    println!("median of 21: ours {:?}, ctr run -d {:?}, ratio {ratio:.2}", ours[10], theirs[10]);
}
