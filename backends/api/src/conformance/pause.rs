//! Cases: freezing and thawing.

use super::scene::{GRACE, Scene, ok, within};
use super::{Harness, Program};
use crate::{Cursor, ErrorKind, ExitReason, Observed};
use std::time::{Duration, Instant};

/// Fifteen times the pause between two ticks: silence this long is no accident.
const SILENCE: Duration = Duration::from_millis(300);

fn is_paused(seen: &Observed) -> bool {
    matches!(seen, Observed::Running { paused: true, .. })
}

/// Waits until no output comes any more: what was on its way when the freeze came is let
/// through, anything that goes on for ever is a failure.
async fn quiet(scene: &Scene<'_>) -> Cursor {
    let logs = scene.backend.as_logs().expect("asked for before");
    let mut end = Cursor::default();
    within("a paused program to be quiet", async {
        loop {
            end = ok("read", logs.read(&scene.id, end, 1 << 20)).await.next;
            match tokio::time::timeout(SILENCE, logs.wait(&scene.id, end)).await {
                Err(_) => return end,
                Ok(Ok(true)) => {}
                Ok(other) => panic!("paused, and its output ended with {other:?}"),
            }
        }
    })
    .await
}

pub(super) async fn pause_and_resume(harness: &dyn Harness) {
    let spec = harness.spec(Program::Ticks);
    let (scene, _) = Scene::started(harness, "pause", &spec).await;
    let Some(pause) = scene.backend.as_pause() else { return scene.end().await };
    scene.printed("tick 2\n").await;
    let pid = scene.pid().await;
    ok("pause", pause.pause(&scene.id)).await;
    ok("pause again", pause.pause(&scene.id)).await;
    assert!(is_paused(&scene.listed().await), "paused and not observed so");
    let before = ok("usage", scene.backend.usage(&scene.id)).await.cpu_usec;
    let end = if scene.backend.as_logs().is_some() { Some(quiet(&scene).await) } else { None };
    let after = ok("usage", scene.backend.usage(&scene.id)).await.cpu_usec;
    assert!(after - before < 5_000, "a paused program used {} us", after - before);
    ok("resume", pause.resume(&scene.id)).await;
    ok("resume again", pause.resume(&scene.id)).await;
    assert!(!is_paused(&scene.listed().await));
    assert_eq!(scene.pid().await, pid);
    if let (Some(end), Some(logs)) = (end, scene.backend.as_logs()) {
        assert!(ok("wait for the next tick", logs.wait(&scene.id, end)).await);
    }
    let absent = harness.id("pause-of-nothing");
    let error = within("pause of nothing", pause.pause(&absent)).await;
    assert_eq!(error.expect_err("nothing was paused").kind, ErrorKind::NotFound);
    scene.end().await;
}

pub(super) async fn stop_while_paused(harness: &dyn Harness) {
    let (mut scene, _) = Scene::ready(harness, "pause-stop", Program::UntilTerm(4)).await;
    let Some(pause) = scene.backend.as_pause() else { return scene.end().await };
    ok("pause", pause.pause(&scene.id)).await;
    let began = Instant::now();
    let exit = ok("stop of the paused", scene.backend.stop(&scene.id, GRACE)).await;
    assert!(began.elapsed() < GRACE, "the paused one could not use its grace");
    assert_eq!(exit.reason, ExitReason::Code(4));
    assert_eq!(scene.exit_reason().await, ExitReason::Code(4));
    scene.end().await;
    let (scene, _) = Scene::ready(harness, "pause-destroy", Program::IgnoreTerm).await;
    let pid = scene.pid().await;
    let pause = scene.backend.as_pause().expect("asked for before");
    ok("pause", pause.pause(&scene.id)).await;
    ok("destroy of the paused", scene.backend.destroy(&scene.id)).await;
    assert!(!harness.alive(&scene.id, pid));
    scene.end().await;
}

pub(super) async fn across_restart(harness: &dyn Harness) {
    let spec = harness.spec(Program::Ticks);
    let (mut scene, handle) = Scene::started(harness, "pause-restart", &spec).await;
    let Some(pause) = scene.backend.as_pause() else { return scene.end().await };
    scene.printed("tick 1\n").await;
    ok("pause", pause.pause(&scene.id)).await;
    scene.restart().await;
    let seen = ok("recover", scene.backend.recover(&handle)).await;
    assert!(is_paused(&seen), "recovered as {seen:?}");
    assert!(is_paused(&scene.listed().await));
    let pause = scene.backend.as_pause().expect("the same backend");
    ok("resume", pause.resume(&scene.id)).await;
    scene.printed("tick 9\n").await;
    scene.end().await;
}
