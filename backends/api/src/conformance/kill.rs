//! Cases: the engine killed at any time, with everything that it had begun.
//!
//! Why beside [`super::interrupt`]: a backend may go on with a verb in a task of its own after
//! the verb's future was dropped, and a killed engine does not. Here the engine has a runtime of
//! its own that is thrown away, so whatever ran in it ends where it stands, and its connections
//! break.

use super::scene::{GRACE, PATIENCE, Scene, ok};
use super::{Harness, Program};
use crate::{Backend, BoxFuture, ExitReason, Result, Spec, WorkloadId};
use std::time::{Duration, Instant};

/// How often an engine is killed between the beginning and the end of what it does.
const KILLS: u32 = 9;

/// Long enough for what is left of a workload that was asked to end, and waited for each time.
const SHORT_GRACE: Duration = Duration::from_millis(200);

/// What an engine does until it is killed.
type Work = for<'a> fn(&'a dyn Backend, &'a WorkloadId, &'a Spec) -> BoxFuture<'a, Result<()>>;

/// Lets an engine work in a runtime of its own and takes that away after `limit`. Returns how
/// long the work took if it was done by then.
fn engine(
    harness: &dyn Harness,
    scene: (&WorkloadId, &Spec),
    work: Work,
    limit: Duration,
) -> Option<Duration> {
    let (id, spec) = scene;
    let life = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a host has room for one more runtime");
        let done = runtime.block_on(async {
            let backend = harness.backend().await;
            let began = Instant::now();
            let worked = tokio::time::timeout(limit, work(&*backend, id, spec)).await.ok()?;
            if let Err(error) = worked {
                panic!("working until it is killed: {:?}: {}", error.kind, error.chain());
            }
            Some(began.elapsed())
        });
        // Tasks are dropped where they wait, and nobody waits for a thread that is busy.
        runtime.shutdown_background();
        done
    };
    std::thread::scope(|scope| match scope.spawn(life).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// The moments at which it is killed, spread over what the work takes undisturbed.
fn moments(whole: Duration) -> impl Iterator<Item = (u32, Duration)> {
    (0..KILLS).map(move |number| (number, whole * number / KILLS))
}

pub(super) async fn on_the_way_up(harness: &dyn Harness) {
    let work: Work = |backend, id, spec| {
        Box::pin(async {
            let handle = backend.prepare(id, spec).await?;
            backend.start(&handle).await.map(drop)
        })
    };
    let spec = harness.spec(Program::UntilTerm(2));
    let scene = Scene::new(harness, "killed-up").await;
    let whole = engine(harness, (&scene.id, &spec), work, PATIENCE);
    let whole = whole.expect("a workload starts within a minute");
    scene.end().await;
    for (number, after) in moments(whole) {
        let name = format!("killed-up-{number}");
        engine(harness, (&harness.id(&name), &spec), work, after);
        let scene = Scene::new(harness, &name).await;
        // The next engine wants it still, or it does not.
        if number % 2 == 0 {
            scene.start(&spec).await;
            scene.printed("ready\n").await;
            let exit = ok("stop", scene.backend.stop(&scene.id, GRACE)).await;
            assert_eq!(exit.reason, ExitReason::Code(2), "killed after {after:?}");
        }
        scene.end_after_kill().await;
    }
}

pub(super) async fn on_the_way_down(harness: &dyn Harness) {
    let work: Work = |backend, id, _| {
        Box::pin(async {
            backend.stop(id, SHORT_GRACE).await?;
            backend.destroy(id).await
        })
    };
    let program = Program::UntilTerm(2);
    let spec = harness.spec(program);
    let (scene, _) = Scene::ready(harness, "killed-down", program).await;
    let whole = engine(harness, (&scene.id, &spec), work, PATIENCE);
    let whole = whole.expect("a workload ends within a minute");
    scene.end().await;
    for (number, after) in moments(whole) {
        let name = format!("killed-down-{number}");
        drop(Scene::ready(harness, &name, program).await);
        engine(harness, (&harness.id(&name), &spec), work, after);
        let scene = Scene::new(harness, &name).await;
        if number % 2 == 0 {
            ok("stop", scene.backend.stop(&scene.id, GRACE)).await;
        }
        scene.end_after_kill().await;
    }
}
