//! Cases: output by cursor.

use super::scene::{Scene, ok, within};
use super::{Harness, Program};
use crate::{Cursor, ErrorKind, ExitReason, LogChunk, Logs};
use std::time::Duration;

/// Lines of the cases that need some output.
const LINES: u32 = 500;

/// How long silence must last to be taken for silence.
const SILENCE: Duration = Duration::from_millis(300);

fn expected(from: u32, to: u32) -> String {
    (from..to).map(|line| format!("line {line}\n")).collect()
}

fn logs<'a>(scene: &'a Scene<'_>) -> Option<&'a dyn Logs> {
    scene.backend.as_logs()
}

pub(super) async fn by_cursor(harness: &dyn Harness) {
    let spec = harness.spec(Program::Lines(LINES));
    let (mut scene, _) = Scene::started(harness, "log-cursor", &spec).await;
    let Some(face) = logs(&scene) else { return scene.end().await };
    let id = scene.id.clone();
    let whole = expected(0, LINES);
    assert_eq!(scene.output().await, whole);
    for bytes_max in [1, 7, 1000, 1 << 20] {
        let mut seen = Vec::new();
        let mut from = Cursor::default();
        loop {
            let chunk = ok("read", face.read(&id, from, bytes_max)).await;
            assert!(chunk.bytes.len() <= bytes_max);
            assert_eq!(chunk.start, from, "nothing was dropped, so a read starts where asked");
            assert_eq!(chunk.next.0, chunk.start.0 + chunk.bytes.len() as u64);
            from = chunk.next;
            if chunk.bytes.is_empty() || seen.len() > whole.len() {
                break;
            }
            seen.extend(chunk.bytes);
            // Byte by byte proves the arithmetic on the first hundred.
            if bytes_max == 1 && seen.len() == 100 {
                break;
            }
        }
        assert!(whole.as_bytes().starts_with(&seen), "in pieces of {bytes_max}");
    }
    let beyond = Cursor(whole.len() as u64 + 1000);
    let chunk = ok("read beyond the end", face.read(&id, beyond, 100)).await;
    assert!(chunk.bytes.is_empty());
    assert_eq!(chunk.next, Cursor(whole.len() as u64), "a place beyond the end is the end");
    let other = harness.id("log-of-nobody");
    let error = within("read of nobody", face.read(&other, Cursor(0), 10)).await;
    assert_eq!(error.expect_err("nobody has no output").kind, ErrorKind::NotFound);
    assert_eq!(scene.exit_reason().await, ExitReason::Code(0));
    scene.end().await;
}

pub(super) async fn both_outputs(harness: &dyn Harness) {
    let spec = harness.spec(Program::BothOutputs);
    let (scene, _) = Scene::started(harness, "log-both", &spec).await;
    if logs(&scene).is_some() {
        let output = scene.output().await;
        assert!(output.contains("to-stdout\n"), "{output:?}");
        assert!(output.contains("to-stderr\n"), "{output:?}");
    }
    scene.end().await;
}

pub(super) async fn bounded(harness: &dyn Harness) {
    let lines = 20_000;
    let mut spec = harness.spec(Program::Lines(lines));
    spec.log_bytes_max = 64 * 1024;
    let (mut scene, _) = Scene::started(harness, "log-bounded", &spec).await;
    let Some(face) = logs(&scene) else { return scene.end().await };
    let id = scene.id.clone();
    let whole = expected(0, lines);
    while ok("wait", face.wait(&id, Cursor(u64::MAX))).await {}
    let mut seen = Vec::new();
    let first = ok("read", face.read(&id, Cursor::default(), 1000)).await;
    assert!(first.start > Cursor::default(), "a full log has dropped its oldest");
    let mut from = first.start;
    loop {
        let LogChunk { start, next, bytes } = ok("read", face.read(&id, from, 4096)).await;
        assert_eq!(start, from);
        if bytes.is_empty() {
            break;
        }
        from = next;
        seen.extend(bytes);
    }
    assert_eq!(from, Cursor(whole.len() as u64), "the end counts every byte since the start");
    let kept = usize::try_from(first.start.0).expect("small");
    assert_eq!(String::from_utf8_lossy(&seen), whole[kept..], "what is kept is in its place");
    let bytes_max = usize::try_from(spec.log_bytes_max).expect("small");
    assert!(seen.len() <= bytes_max, "{} bytes are kept of {bytes_max} allowed", seen.len());
    assert!(seen.len() >= bytes_max / 2, "only {} bytes are kept", seen.len());
    assert_eq!(scene.exit_reason().await, ExitReason::Code(0));
    scene.end().await;
}

pub(super) async fn tail(harness: &dyn Harness) {
    let spec = harness.spec(Program::Lines(LINES));
    let (scene, _) = Scene::started(harness, "log-tail", &spec).await;
    let Some(face) = logs(&scene) else { return scene.end().await };
    let whole = scene.output().await;
    for lines in [0, 1, 3, LINES, LINES + 10] {
        let from = ok("tail", face.tail(&scene.id, lines)).await;
        let chunk = ok("read", face.read(&scene.id, from, 1 << 20)).await;
        let wanted = expected(LINES.saturating_sub(lines), LINES);
        assert_eq!(String::from_utf8_lossy(&chunk.bytes), wanted, "the last {lines}");
        assert_eq!(chunk.next, Cursor(whole.len() as u64));
    }
    scene.end().await;
}

pub(super) async fn follow(harness: &dyn Harness) {
    let (mut scene, _) = Scene::ready(harness, "log-follow", Program::UntilTerm(0)).await;
    let Some(face) = logs(&scene) else { return scene.end().await };
    let id = scene.id.clone();
    let end = ok("read", face.read(&id, Cursor::default(), 1000)).await.next;
    assert!(ok("wait for what is there", face.wait(&id, Cursor::default())).await);
    let early = tokio::time::timeout(SILENCE, face.wait(&id, end)).await;
    assert!(early.is_err(), "wait came back although nothing was written: {early:?}");
    harness.signal(&id, scene.pid().await, 15);
    assert!(!ok("wait for the end", face.wait(&id, end)).await, "more came after the end");
    assert_eq!(scene.exit_reason().await, ExitReason::Code(0));
    let (ticking, _) =
        Scene::started(harness, "log-follow-ticks", &harness.spec(Program::Ticks)).await;
    let face = logs(&ticking).expect("the same backend");
    let mut from = Cursor::default();
    for round in 0..5 {
        assert!(ok("wait for a tick", face.wait(&ticking.id, from)).await);
        let chunk = ok("read", face.read(&ticking.id, from, 1 << 16)).await;
        assert!(!chunk.bytes.is_empty(), "woken for nothing in round {round}");
        from = chunk.next;
    }
    ticking.end().await;
    scene.end().await;
}

pub(super) async fn across_restart(harness: &dyn Harness) {
    let spec = harness.spec(Program::Ticks);
    let (mut scene, handle) = Scene::started(harness, "log-restart", &spec).await;
    if logs(&scene).is_none() {
        return scene.end().await;
    }
    scene.printed("tick 3\n").await;
    scene.restart().await;
    ok("recover", scene.backend.recover(&handle)).await;
    let face = logs(&scene).expect("the same backend");
    let before = ok("read", face.read(&scene.id, Cursor::default(), 1 << 20)).await;
    assert!(ok("wait after a restart", face.wait(&scene.id, before.next)).await);
    scene.printed("tick 12\n").await;
    let text = ok("read", face.read(&scene.id, Cursor::default(), 1 << 20)).await.bytes;
    let text = String::from_utf8_lossy(&text).into_owned();
    for (number, line) in text.lines().take(12).enumerate() {
        assert_eq!(line, format!("tick {number}"), "a hole across the restart");
    }
    scene.end().await;
}
