//! Cases: the verbs in and out of order.

use super::scene::{GRACE, Scene, ok, within};
use super::{Harness, Program};
use crate::{ErrorKind, ExitReason, Health, Mount, Observed};

pub(super) async fn happy_path(harness: &dyn Harness) {
    let mut scene = Scene::new(harness, "happy").await;
    let spec = harness.spec(Program::UntilTerm(5));
    assert_eq!(scene.listed().await, Observed::Absent);
    ok("validate", async { scene.backend.validate(&spec) }).await;
    let handle = ok("prepare", scene.backend.prepare(&scene.id, &spec)).await;
    assert_eq!(scene.listed().await, Observed::Prepared);
    let handle = ok("start", scene.backend.start(&handle)).await;
    scene.printed("ready\n").await;
    match scene.listed().await {
        Observed::Running { pid, started_unix_ms, paused } => {
            assert!(harness.alive(&scene.id, pid), "no process has the pid {pid}");
            assert!(started_unix_ms > 0, "a start that was seen has a time");
            assert!(!paused);
        }
        other => panic!("started and observed as {other:?}"),
    }
    let seen = ok("recover", scene.backend.recover(&handle)).await;
    assert!(matches!(seen, Observed::Running { .. }), "{seen:?}");
    let exit = ok("stop", scene.backend.stop(&scene.id, GRACE)).await;
    assert_eq!(exit.reason, ExitReason::Code(5));
    assert_eq!(scene.exit_reason().await, ExitReason::Code(5), "the event agrees with stop");
    assert_eq!(scene.listed().await, Observed::Exited(exit));
    scene.end().await;
}

pub(super) async fn every_verb_twice(harness: &dyn Harness) {
    let scene = Scene::new(harness, "twice").await;
    let spec = harness.spec(Program::UntilTerm(0));
    let first = ok("prepare", scene.backend.prepare(&scene.id, &spec)).await;
    let second = ok("prepare again", scene.backend.prepare(&scene.id, &spec)).await;
    assert_eq!(first, second, "prepared twice gives the same handle");
    let handle = ok("start", scene.backend.start(&second)).await;
    scene.printed("ready\n").await;
    let pid = scene.pid().await;
    let again = ok("start again", scene.backend.start(&handle)).await;
    assert_eq!(again, handle);
    let with_old = ok("start with the older handle", scene.backend.start(&first)).await;
    assert_eq!(with_old, handle);
    let prepared = ok("prepare while it runs", scene.backend.prepare(&scene.id, &spec)).await;
    assert_eq!(prepared, handle, "prepare of what runs returns its handle");
    assert_eq!(scene.pid().await, pid, "a second start or prepare disturbed it");
    let exit = ok("stop", scene.backend.stop(&scene.id, GRACE)).await;
    let same = ok("stop again", scene.backend.stop(&scene.id, GRACE)).await;
    assert_eq!(exit, same);
    ok("destroy", scene.backend.destroy(&scene.id)).await;
    scene.end().await;
}

pub(super) async fn absent(harness: &dyn Harness) {
    let scene = Scene::new(harness, "absent").await;
    let exit = ok("stop of the absent", scene.backend.stop(&scene.id, GRACE)).await;
    assert_eq!(exit.reason, ExitReason::Lost);
    ok("destroy of the absent", scene.backend.destroy(&scene.id)).await;
    let usage = within("usage of the absent", scene.backend.usage(&scene.id)).await;
    assert_eq!(usage.expect_err("nothing has no usage").kind, ErrorKind::NotFound);
    let spec = harness.spec(Program::Exit(0));
    let handle = ok("prepare", scene.backend.prepare(&scene.id, &spec)).await;
    let exit = ok("stop before start", scene.backend.stop(&scene.id, GRACE)).await;
    assert_eq!(exit.reason, ExitReason::Lost);
    assert_eq!(scene.listed().await, Observed::Prepared, "stop left it prepared");
    ok("destroy", scene.backend.destroy(&scene.id)).await;
    let start = within("start of the destroyed", scene.backend.start(&handle)).await;
    let error = start.expect_err("what was destroyed cannot be started");
    assert_eq!(error.kind, ErrorKind::NotFound, "{}", error.chain());
    let seen = ok("recover of the destroyed", scene.backend.recover(&handle)).await;
    assert_eq!(seen, Observed::Absent);
    scene.end().await;
}

pub(super) async fn destroy_running(harness: &dyn Harness) {
    let (scene, _) = Scene::ready(harness, "destroy-running", Program::IgnoreTerm).await;
    let pid = scene.pid().await;
    ok("destroy of what runs", scene.backend.destroy(&scene.id)).await;
    assert!(!harness.alive(&scene.id, pid), "destroyed and still alive");
    scene.end().await;
}

pub(super) async fn two_of_one_id(harness: &dyn Harness) {
    let scene = Scene::new(harness, "two-of-one").await;
    let spec = harness.spec(Program::UntilTerm(0));
    let mut other = spec.clone();
    other.environment.insert("MARRAM_TEST".into(), "another".into());
    ok("prepare", scene.backend.prepare(&scene.id, &spec)).await;
    let refused = within("prepare another", scene.backend.prepare(&scene.id, &other)).await;
    assert_eq!(refused.expect_err("another is prepared").kind, ErrorKind::Invalid);
    scene.start(&spec).await;
    scene.printed("ready\n").await;
    let pid = scene.pid().await;
    let refused = within("prepare another", scene.backend.prepare(&scene.id, &other)).await;
    assert_eq!(refused.expect_err("another runs").kind, ErrorKind::Invalid);
    assert_eq!(scene.pid().await, pid, "the refused one disturbed it");
    ok("destroy", scene.backend.destroy(&scene.id)).await;
    scene.start(&other).await;
    assert!(matches!(scene.listed().await, Observed::Running { .. }));
    scene.end().await;
}

pub(super) async fn validate(harness: &dyn Harness) {
    let scene = Scene::new(harness, "validate").await;
    let good = harness.spec(Program::Exit(0));
    ok("validate", async { scene.backend.validate(&good) }).await;
    let mut bad = Vec::new();
    bad.push(("no image", {
        let mut s = good.clone();
        s.image.clear();
        s
    }));
    bad.push(("an unknown runtime", {
        let mut s = good.clone();
        s.runtime = Some("no-such-runtime".into());
        s
    }));
    bad.push(("a mount to a relative path", {
        let mut s = good.clone();
        s.mounts.push(Mount { source: "/".into(), target: "here".into(), read_only: true });
        s
    }));
    bad.push(("a device that was not allowed", {
        let mut s = good.clone();
        s.devices.push("/dev/no-such-device".into());
        s
    }));
    bad.push(("a zero byte in the environment", {
        let mut s = good.clone();
        s.environment.insert("A".into(), "\0".into());
        s
    }));
    for (what, spec) in bad {
        let error = scene.backend.validate(&spec).expect_err(what);
        assert!(!error.kind.is_retryable(), "{what}: {:?} would be tried again", error.kind);
        let error = within(what, scene.backend.prepare(&scene.id, &spec)).await.expect_err(what);
        assert!(!error.kind.is_retryable(), "{what}: {:?} would be tried again", error.kind);
    }
    assert_eq!(scene.listed().await, Observed::Absent, "validate or a refusal left something");
    scene.end().await;
}

pub(super) async fn list(harness: &dyn Harness) {
    let first = Scene::new(harness, "list-a").await;
    let second = Scene::new(harness, "list-b").await;
    let mut third = Scene::new(harness, "list-c").await;
    let spec = harness.spec(Program::UntilTerm(0));
    ok("prepare", first.backend.prepare(&first.id, &spec)).await;
    second.start(&spec).await;
    third.start(&harness.spec(Program::Exit(4))).await;
    assert_eq!(third.exit_reason().await, ExitReason::Code(4));
    assert_eq!(first.listed().await, Observed::Prepared);
    assert!(matches!(second.listed().await, Observed::Running { .. }));
    match third.listed().await {
        Observed::Exited(exit) => assert_eq!(exit.reason, ExitReason::Code(4)),
        other => panic!("the third has ended and is listed as {other:?}"),
    }
    first.end().await;
    second.end().await;
    third.end().await;
}

pub(super) async fn says_what_it_can(harness: &dyn Harness) {
    let scene = Scene::new(harness, "says").await;
    let capabilities = scene.backend.capabilities();
    assert_eq!(capabilities.logs, scene.backend.as_logs().is_some());
    assert_eq!(capabilities.exec, scene.backend.as_exec().is_some());
    assert_eq!(capabilities.pause, scene.backend.as_pause().is_some());
    let print = within("fingerprint", scene.backend.fingerprint()).await;
    assert_eq!(print.health, Health::Healthy);
    assert!(!print.runtimes.is_empty(), "a healthy backend has a runtime");
    assert!(!print.virtualizations.is_empty(), "a healthy backend serves something");
    for name in ["memory", "cpu", "pids"] {
        let limit = print.limits.iter().find(|limit| limit.name == name);
        let limit = limit.unwrap_or_else(|| panic!("the fingerprint is silent about {name}"));
        assert_eq!(limit.enforced.is_ok(), harness.enforces(name), "{limit:?}");
        if let Err(reason) = &limit.enforced {
            assert!(!reason.is_empty(), "{name} is not enforced, without a reason");
        }
    }
    let again = within("fingerprint", scene.backend.fingerprint()).await;
    assert_eq!(print, again, "two fingerprints of an unchanged host differ");
    scene.end().await;
}

pub(super) async fn unknown_program(harness: &dyn Harness) {
    let scene = Scene::new(harness, "no-program").await;
    let mut spec = harness.spec(Program::Exit(0));
    // A backend whose image is the program has no arguments that name one.
    spec.image = format!("{}-and-no-such-thing", spec.image);
    let outcome = match within("prepare", scene.backend.prepare(&scene.id, &spec)).await {
        Ok(handle) => within("start", scene.backend.start(&handle)).await,
        Err(error) => Err(error),
    };
    let error = outcome.expect_err("what does not exist was started");
    assert_eq!(error.kind, ErrorKind::NotFound, "{}", error.chain());
    scene.end().await;
}

pub(super) async fn environment(harness: &dyn Harness) {
    let mut spec = harness.spec(Program::PrintEnvironment);
    spec.environment.insert("MARRAM_TEST".into(), "it's \"quoted\" $HOME ü".into());
    spec.working_dir = Some("/tmp".into());
    let (mut scene, _) = Scene::started(harness, "environment", &spec).await;
    assert_eq!(scene.exit_reason().await, ExitReason::Code(0));
    if scene.backend.as_logs().is_some() {
        let output = scene.output().await;
        assert!(output.contains("MARRAM_TEST=it's \"quoted\" $HOME ü\n"), "{output}");
        assert!(output.contains("cwd=/tmp\n"), "{output}");
    }
    scene.end().await;
}
