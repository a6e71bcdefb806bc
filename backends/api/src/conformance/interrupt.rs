//! Cases: a verb dropped at each of its awaits, the engine restarted, the verb done again.
//!
//! Why by counting polls: an await is where a future can be dropped, and each poll ends at
//! one. A future that is driven for N polls and then dropped stands for an engine that was
//! killed there, so a program that it had started last (a shim, a client of a daemon) may need a
//! moment after the removal to find that its work is gone: see [`Scene::end_after_kill`].

use super::scene::{GRACE, Scene, ok};
use super::{Harness, Program};
use crate::{BoxFuture, ExitReason, Observed};
use std::future::poll_fn;
use std::task::Poll;

/// After how many polls a verb is dropped: each of the first, then wider steps.
const POLLS: &[u32] = &[0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 30, 45, 70, 110];

/// Drives a future for at most `polls` polls, then drops it. Tells whether it was done.
async fn interrupted<T>(mut future: BoxFuture<'_, T>, polls: u32) -> bool {
    let mut left = polls;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            // The last poll has been made: do not wait for a wake that may never come.
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

pub(super) async fn prepare(harness: &dyn Harness) {
    let spec = harness.spec(Program::UntilTerm(2));
    for &polls in POLLS {
        let mut scene = Scene::new(harness, &format!("cut-prepare-{polls}")).await;
        let done = interrupted(scene.backend.prepare(&scene.id, &spec), polls).await;
        scene.restart().await;
        scene.start(&spec).await;
        finish(scene).await;
        // And a destroy straight after, by an engine that has forgotten all of it.
        let mut scene = Scene::new(harness, &format!("cut-prepare-{polls}")).await;
        interrupted(scene.backend.prepare(&scene.id, &spec), polls).await;
        scene.restart().await;
        scene.end_after_kill().await;
        if done {
            return;
        }
    }
}

pub(super) async fn start(harness: &dyn Harness) {
    let spec = harness.spec(Program::UntilTerm(2));
    for &polls in POLLS {
        let mut scene = Scene::new(harness, &format!("cut-start-{polls}")).await;
        let handle = ok("prepare", scene.backend.prepare(&scene.id, &spec)).await;
        let done = interrupted(scene.backend.start(&handle), polls).await;
        scene.restart().await;
        let seen = ok("recover", scene.backend.recover(&handle)).await;
        assert!(
            matches!(seen, Observed::Prepared | Observed::Running { .. }),
            "cut after {polls} polls, recovered as {seen:?}"
        );
        ok("start again", scene.backend.start(&handle)).await;
        finish(scene).await;
        let mut scene = Scene::new(harness, &format!("cut-start-{polls}")).await;
        let handle = ok("prepare", scene.backend.prepare(&scene.id, &spec)).await;
        interrupted(scene.backend.start(&handle), polls).await;
        scene.restart().await;
        scene.end_after_kill().await;
        if done {
            return;
        }
    }
}

pub(super) async fn stop(harness: &dyn Harness) {
    for &polls in POLLS {
        let name = format!("cut-stop-{polls}");
        let (mut scene, handle) = Scene::ready(harness, &name, Program::UntilTerm(2)).await;
        let done = interrupted(scene.backend.stop(&scene.id, GRACE), polls).await;
        scene.restart().await;
        ok("recover", scene.backend.recover(&handle)).await;
        finish(scene).await;
        if done {
            return;
        }
    }
}

pub(super) async fn destroy(harness: &dyn Harness) {
    for &polls in POLLS {
        let name = format!("cut-destroy-{polls}");
        let (mut scene, handle) = Scene::ready(harness, &name, Program::UntilTerm(2)).await;
        let done = interrupted(scene.backend.destroy(&scene.id), polls).await;
        scene.restart().await;
        ok("recover", scene.backend.recover(&handle)).await;
        scene.end_after_kill().await;
        if done {
            return;
        }
    }
}

/// The rest of the life of a `UntilTerm(2)` that was started somehow.
async fn finish(scene: Scene<'_>) {
    scene.printed("ready\n").await;
    let exit = ok("stop", scene.backend.stop(&scene.id, GRACE)).await;
    assert_eq!(exit.reason, ExitReason::Code(2));
    scene.end_after_kill().await;
}
