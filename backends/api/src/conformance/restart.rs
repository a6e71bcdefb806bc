//! Cases: the engine goes away and comes back.

use super::scene::{GRACE, Scene, ok, until, within};
use super::{Harness, Program};
use crate::{ExitReason, Handle, Observed};

/// SIGTERM, the same number on every architecture.
const TERM: i32 = 15;

pub(super) async fn exit_after_restart(harness: &dyn Harness) {
    let (mut scene, handle) = Scene::ready(harness, "restart-exit", Program::UntilTerm(8)).await;
    let before = scene.listed().await;
    scene.restart().await;
    let after = ok("recover", scene.backend.recover(&handle)).await;
    assert_eq!(before, after, "the same process, started at the same time");
    harness.signal(&scene.id, scene.pid().await, TERM);
    assert_eq!(scene.exit_reason().await, ExitReason::Code(8), "told to the second object");
    scene.end().await;
}

pub(super) async fn exit_without_engine(harness: &dyn Harness) {
    let (mut scene, handle) = Scene::ready(harness, "exit-alone", Program::UntilTerm(9)).await;
    let pid = scene.pid().await;
    let id = scene.id.clone();
    // A second object only later: between the two nobody watches.
    drop(scene);
    harness.signal(&id, pid, TERM);
    until("the process to end", || !harness.alive(&id, pid)).await;
    scene = Scene::new(harness, "exit-alone").await;
    let seen = match ok("recover", scene.backend.recover(&handle)).await {
        Observed::Exited(exit) => exit.reason,
        // Its supervisor may still be writing it down; then it is pushed.
        Observed::Running { .. } => scene.exit_reason().await,
        other => panic!("ended without an engine and recovered as {other:?}"),
    };
    assert_eq!(seen, ExitReason::Code(9));
    match scene.listed().await {
        Observed::Exited(exit) => assert_eq!(exit.reason, ExitReason::Code(9)),
        other => panic!("ended without an engine and listed as {other:?}"),
    }
    scene.end().await;
}

pub(super) async fn prepared(harness: &dyn Harness) {
    let mut scene = Scene::new(harness, "restart-prepared").await;
    let spec = harness.spec(Program::UntilTerm(0));
    let handle = ok("prepare", scene.backend.prepare(&scene.id, &spec)).await;
    scene.restart().await;
    assert_eq!(ok("recover", scene.backend.recover(&handle)).await, Observed::Prepared);
    let same = ok("prepare", scene.backend.prepare(&scene.id, &spec)).await;
    assert_eq!(same, handle, "prepared again after a restart gives the same handle");
    ok("start", scene.backend.start(&handle)).await;
    scene.printed("ready\n").await;
    let exit = ok("stop", scene.backend.stop(&scene.id, GRACE)).await;
    assert_eq!(exit.reason, ExitReason::Code(0));
    scene.end().await;
}

pub(super) async fn strange_handles(harness: &dyn Harness) {
    let (scene, handle) = Scene::ready(harness, "strange", Program::UntilTerm(0)).await;
    let pid = scene.pid().await;
    let newer = Handle { version: u16::MAX, ..handle.clone() };
    match within("recover a newer layout", scene.backend.recover(&newer)).await {
        Ok(Observed::Unknown(_)) => {}
        Ok(other) => panic!("a handle of unknown layout was taken for {other:?}"),
        Err(error) => assert!(!error.kind.is_retryable(), "{:?}", error.kind),
    }
    let torn = Handle { state: vec![0xff; 3], ..handle.clone() };
    match within("recover a torn handle", scene.backend.recover(&torn)).await {
        // The host knows better than a torn record: both answers are honest.
        Ok(Observed::Unknown(_) | Observed::Running { .. }) | Err(_) => {}
        Ok(other) => panic!("a torn handle was taken for {other:?}"),
    }
    assert_eq!(scene.pid().await, pid, "a strange handle disturbed it");
    scene.end().await;
}
