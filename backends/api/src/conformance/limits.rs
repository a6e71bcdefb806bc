//! Cases: limits that hold, or are said not to hold and then refused.

use super::scene::{Scene, ok, within};
use super::{Harness, Program};
use crate::{Cursor, ErrorKind, ExitReason, Spec};
use std::time::Instant;

/// Enough for a shell, little enough to be eaten in a moment.
const MEMORY_BYTES: u64 = 32 << 20;

/// A fifth of a core: far from what a spinning program gets on a loaded test machine.
const MILLICORES: u32 = 200;

/// Processor time over which the quota is judged: twenty of the kernel's periods of 100 ms.
const CPU_USEC: u64 = 400_000;

pub(super) async fn usage(harness: &dyn Harness) {
    let spec = harness.spec(Program::SpinCpu);
    let (scene, _) = Scene::started(harness, "usage", &spec).await;
    scene.printed("spun\n").await;
    let first = ok("usage", scene.backend.usage(&scene.id)).await;
    assert!(first.pids >= 1, "{first:?}");
    assert!(first.memory_bytes >= 4096, "{first:?}");
    assert!(first.memory_bytes < 1 << 30, "a shell uses no gigabyte: {first:?}");
    within("processor time to grow", async {
        loop {
            let now = ok("usage", scene.backend.usage(&scene.id)).await;
            assert!(now.cpu_usec >= first.cpu_usec, "processor time went back");
            if now.cpu_usec > first.cpu_usec {
                return;
            }
            tokio::time::sleep(super::scene::LOOK_EVERY).await;
        }
    })
    .await;
    scene.end().await;
}

/// What must happen where a limit is not enforced: refused, unless the request allows it.
async fn refused(harness: &dyn Harness, name: &str, spec: &Spec) {
    let scene = Scene::new(harness, name).await;
    let mut strict = spec.clone();
    strict.allow_unlimited = false;
    let error = scene.backend.validate(&strict).expect_err("a limit that does not hold");
    assert_eq!(error.kind, ErrorKind::Unsupported, "{}", error.chain());
    let error = within("prepare", scene.backend.prepare(&scene.id, &strict)).await;
    assert_eq!(error.expect_err("a limit that does not hold").kind, ErrorKind::Unsupported);
    let mut loose = spec.clone();
    loose.allow_unlimited = true;
    ok("prepare without the limit", scene.backend.prepare(&scene.id, &loose)).await;
    scene.end().await;
}

pub(super) async fn memory(harness: &dyn Harness) {
    let mut spec = harness.spec(Program::EatMemory);
    spec.resources.memory_bytes_max = Some(MEMORY_BYTES);
    if !harness.enforces("memory") {
        return refused(harness, "memory", &spec).await;
    }
    let (mut scene, handle) = Scene::started(harness, "memory", &spec).await;
    assert_eq!(scene.exit_reason().await, ExitReason::OutOfMemory, "pushed");
    let exit = ok("stop", scene.backend.stop(&scene.id, super::scene::GRACE)).await;
    assert_eq!(exit.reason, ExitReason::OutOfMemory);
    scene.restart().await;
    ok("recover", scene.backend.recover(&handle)).await;
    let exit = ok("stop", scene.backend.stop(&scene.id, super::scene::GRACE)).await;
    assert_eq!(exit.reason, ExitReason::OutOfMemory, "known after a restart");
    scene.end().await;
    // The same limit and a program that stays below it: nothing is killed.
    let mut spec = harness.spec(Program::Exit(0));
    spec.resources.memory_bytes_max = Some(MEMORY_BYTES);
    let (mut scene, _) = Scene::started(harness, "memory-enough", &spec).await;
    assert_eq!(scene.exit_reason().await, ExitReason::Code(0));
    scene.end().await;
}

pub(super) async fn cpu(harness: &dyn Harness) {
    let mut spec = harness.spec(Program::SpinCpu);
    spec.resources.cpu_millicores_max = Some(MILLICORES);
    if !harness.enforces("cpu") {
        return refused(harness, "cpu", &spec).await;
    }
    let (scene, _) = Scene::started(harness, "cpu", &spec).await;
    scene.printed("spun\n").await;
    let began = Instant::now();
    let first = ok("usage", scene.backend.usage(&scene.id)).await.cpu_usec;
    let mut from = Cursor::default();
    let used = within("processor time to be used", async {
        loop {
            let now = ok("usage", scene.backend.usage(&scene.id)).await.cpu_usec - first;
            if now >= CPU_USEC {
                return now;
            }
            // The program's own output is the clock where there is one.
            match scene.backend.as_logs() {
                Some(logs) => {
                    ok("wait", logs.wait(&scene.id, from)).await;
                    from = ok("read", logs.read(&scene.id, from, 1 << 16)).await.next;
                }
                None => tokio::time::sleep(super::scene::LOOK_EVERY).await,
            }
        }
    })
    .await;
    let wall = began.elapsed().as_micros();
    let share = u128::from(used) * 1000 / wall.max(1);
    // One period's burst at either end, and the kernel's slack of a tick.
    let share_max = u128::from(MILLICORES) * 3 / 2;
    assert!(share <= share_max, "used {share} millicores, the quota is {MILLICORES}");
    scene.end().await;
}

pub(super) async fn pids(harness: &dyn Harness) {
    let mut spec = harness.spec(Program::Fork(64));
    spec.resources.pids_max = Some(16);
    if !harness.enforces("pids") {
        return refused(harness, "pids", &spec).await;
    }
    let (mut scene, _) = Scene::started(harness, "pids", &spec).await;
    let reason = scene.exit_reason().await;
    assert!(matches!(reason, ExitReason::Code(code) if code != 0), "ended by {reason:?}");
    if scene.backend.as_logs().is_some() {
        let output = scene.output().await;
        assert!(!output.contains("forked"), "sixty-four were forked under a limit of sixteen");
    }
    scene.end().await;
    // With room for all of them the same program forks happily.
    let mut spec = harness.spec(Program::Fork(8));
    spec.resources.pids_max = Some(16);
    let (scene, _) = Scene::started(harness, "pids-enough", &spec).await;
    scene.printed("forked\n").await;
    let pids = ok("usage", scene.backend.usage(&scene.id)).await.pids;
    assert!((9..=16).contains(&pids), "{pids} processes");
    scene.end().await;
}
