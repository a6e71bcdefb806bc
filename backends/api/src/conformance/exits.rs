//! Cases: how a workload ends, and that it is told rightly.

use super::scene::{GRACE, Scene, ok, within};
use super::{Harness, Program};
use crate::{ErrorKind, ExitReason, Observed};
use std::time::{Duration, Instant};

/// SIGKILL, the same number on every architecture.
const KILL: i32 = 9;

pub(super) async fn codes(harness: &dyn Harness) {
    for code in [0, 1, 42, 255] {
        let spec = harness.spec(Program::Exit(code));
        let name = format!("code-{code}");
        let (mut scene, handle) = Scene::started(harness, &name, &spec).await;
        assert_eq!(scene.exit_reason().await, ExitReason::Code(code), "pushed");
        let seen = ok("recover", scene.backend.recover(&handle)).await;
        let Observed::Exited(exit) = seen else { panic!("ended and recovered as {seen:?}") };
        assert_eq!(exit.reason, ExitReason::Code(code), "recovered");
        assert_eq!(exit.reason.is_success(), code == 0);
        let stopped = ok("stop of the ended", scene.backend.stop(&scene.id, GRACE)).await;
        assert_eq!(stopped, exit, "stop of what ended returns that exit");
        scene.end().await;
    }
}

pub(super) async fn signal(harness: &dyn Harness) {
    let (mut scene, _) = Scene::ready(harness, "signal", Program::UntilTerm(0)).await;
    harness.signal(&scene.id, scene.pid().await, KILL);
    assert_eq!(scene.exit_reason().await, ExitReason::Signal(KILL));
    scene.end().await;
}

pub(super) async fn stop_with_grace(harness: &dyn Harness) {
    let (mut scene, _) = Scene::ready(harness, "grace", Program::UntilTerm(3)).await;
    let began = Instant::now();
    let exit = ok("stop", scene.backend.stop(&scene.id, GRACE)).await;
    assert_eq!(exit.reason, ExitReason::Code(3), "it was not let to end by itself");
    assert!(began.elapsed() < GRACE, "stop waited out the grace although it had ended");
    assert_eq!(scene.exit_reason().await, ExitReason::Code(3));
    scene.end().await;
}

pub(super) async fn stop_by_force(harness: &dyn Harness) {
    let (mut scene, _) = Scene::ready(harness, "force", Program::IgnoreTerm).await;
    let pid = scene.pid().await;
    let grace = Duration::from_millis(300);
    let began = Instant::now();
    let exit = ok("stop", scene.backend.stop(&scene.id, grace)).await;
    assert!(began.elapsed() >= grace, "forced before the grace had passed");
    assert_eq!(exit.reason, ExitReason::Signal(KILL));
    assert_eq!(scene.exit_reason().await, ExitReason::Signal(KILL));
    assert!(!harness.alive(&scene.id, pid), "stopped and still alive");
    scene.end().await;
}

pub(super) async fn start_after_end(harness: &dyn Harness) {
    let spec = harness.spec(Program::Exit(6));
    let (mut scene, handle) = Scene::started(harness, "again", &spec).await;
    assert_eq!(scene.exit_reason().await, ExitReason::Code(6));
    let start = within("start of the ended", scene.backend.start(&handle)).await;
    assert_eq!(start.expect_err("an ended one was started").kind, ErrorKind::Invalid);
    ok("destroy", scene.backend.destroy(&scene.id)).await;
    let (mut scene, _) = Scene::started(harness, "again", &spec).await;
    assert_eq!(scene.exit_reason().await, ExitReason::Code(6), "the second life");
    scene.end().await;
}
