//! Cases: programs beside the workload's own.

use super::scene::{Scene, ok, within};
use super::{Harness, Program};
use crate::{ErrorKind, Exec, ExecEvent, ExecOutput, ExecRequest, Exit, ExitReason, Stream};

fn shell(script: &str) -> ExecRequest {
    ExecRequest {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        environment: vec![("MARRAM_EXEC".into(), "of the exec".into())],
        terminal: None,
    }
}

/// Everything an exec printed, by stream, and how it ended.
async fn drained(output: &mut dyn ExecOutput) -> (String, String, Exit) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match ok("output of the exec", output.next()).await {
            ExecEvent::Output(stream, bytes) => {
                assert!(!bytes.is_empty() && bytes.len() <= 64 * 1024, "{}", bytes.len());
                match stream {
                    Stream::Stdout => out.extend(bytes),
                    Stream::Stderr => err.extend(bytes),
                }
            }
            ExecEvent::Exited(exit) => {
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                return (text(out), text(err), exit);
            }
        }
    }
}

async fn scene<'a>(harness: &'a dyn Harness, name: &str) -> Option<Scene<'a>> {
    let (scene, _) = Scene::ready(harness, name, Program::UntilTerm(0)).await;
    if scene.backend.as_exec().is_none() || !harness.has_shell() {
        scene.end().await;
        return None;
    }
    Some(scene)
}

fn face<'a>(scene: &'a Scene<'_>) -> &'a dyn Exec {
    scene.backend.as_exec().expect("asked for before")
}

pub(super) async fn output_and_code(harness: &dyn Harness) {
    let Some(scene) = scene(harness, "exec-output").await else { return };
    let script = "echo out; echo err >&2; echo \"$MARRAM_EXEC\"; exit 7";
    let mut session = ok("exec", face(&scene).exec(&scene.id, &shell(script))).await;
    let (out, err, exit) = drained(session.output.as_mut()).await;
    assert_eq!(out, "out\nof the exec\n");
    assert_eq!(err, "err\n");
    assert_eq!(exit.reason, ExitReason::Code(7));
    let script = "i=0; while [ $i -lt 20000 ]; do echo \"line $i\"; i=$((i+1)); done";
    let mut session = ok("exec", face(&scene).exec(&scene.id, &shell(script))).await;
    let (out, _, exit) = drained(session.output.as_mut()).await;
    assert_eq!(out.lines().count(), 20_000, "output was lost");
    assert_eq!(out.lines().last(), Some("line 19999"));
    assert_eq!(exit.reason, ExitReason::Code(0));
    assert!(harness.alive(&scene.id, scene.pid().await), "the exec ended the workload");
    scene.end().await;
}

pub(super) async fn input(harness: &dyn Harness) {
    let Some(scene) = scene(harness, "exec-input").await else { return };
    let mut session = ok("exec", face(&scene).exec(&scene.id, &shell("cat; echo end"))).await;
    // More than a pipe holds, so that writing has to wait for reading.
    let line = "0123456789abcdef\n".repeat(1000);
    let mut input = session.input;
    let writer = {
        let line = line.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                ok("write", input.write(line.as_bytes())).await;
            }
            ok("close the input", input.write(&[])).await;
        })
    };
    let (out, _, exit) = drained(session.output.as_mut()).await;
    within("the writer", writer).await.expect("the writer panicked");
    assert_eq!(out, line.repeat(20) + "end\n");
    assert_eq!(exit.reason, ExitReason::Code(0));
    scene.end().await;
}

pub(super) async fn refused(harness: &dyn Harness) {
    let Some(scene) = scene(harness, "exec-refused").await else { return };
    let mut unknown = shell("");
    unknown.argv = vec!["/no/such/program".into()];
    let error = within("exec of nothing", face(&scene).exec(&scene.id, &unknown)).await;
    let error = error.expect_err("what does not exist was run");
    assert_eq!(error.kind, ErrorKind::NotFound, "{}", error.chain());
    let mut empty = shell("");
    empty.argv.clear();
    let error = within("exec without a program", face(&scene).exec(&scene.id, &empty)).await;
    assert_eq!(error.expect_err("no program was run").kind, ErrorKind::Invalid);
    let absent = harness.id("exec-in-nothing");
    let error = within("exec in nothing", face(&scene).exec(&absent, &shell("true"))).await;
    assert_eq!(error.expect_err("run in nothing").kind, ErrorKind::NotFound);
    scene.end().await;
}

/// Waits until the workload has as many processes as wanted.
async fn processes(scene: &Scene<'_>, wanted: impl Fn(u32) -> bool) {
    within("the count of processes", async {
        while !wanted(ok("usage", scene.backend.usage(&scene.id)).await.pids) {
            tokio::time::sleep(super::scene::LOOK_EVERY).await;
        }
    })
    .await;
}

pub(super) async fn dropped(harness: &dyn Harness) {
    let Some(scene) = scene(harness, "exec-dropped").await else { return };
    // The shell and the child that it waits for: only then is the count settled.
    processes(&scene, |count| count == 2).await;
    let request = shell("echo started; exec sleep 1000");
    let mut session = ok("exec", face(&scene).exec(&scene.id, &request)).await;
    match ok("first output", session.output.next()).await {
        ExecEvent::Output(Stream::Stdout, bytes) => assert_eq!(bytes, b"started\n"),
        other => panic!("{other:?}"),
    }
    processes(&scene, |count| count > 2).await;
    drop(session);
    processes(&scene, |count| count == 2).await;
    scene.end().await;
}

pub(super) async fn terminal(harness: &dyn Harness) {
    let Some(scene) = scene(harness, "exec-terminal").await else { return };
    let mut request = shell("test -t 0 && test -t 1 && echo is-a-terminal; read x; echo got-$x");
    request.terminal = Some((24, 80));
    let mut session = ok("exec", face(&scene).exec(&scene.id, &request)).await;
    ok("resize", session.input.resize(40, 100)).await;
    ok("write", session.input.write(b"typed\n")).await;
    let (out, err, exit) = drained(session.output.as_mut()).await;
    assert!(out.contains("is-a-terminal\r\n"), "{out:?}");
    assert!(out.contains("got-typed\r\n"), "{out:?}");
    assert_eq!(err, "", "a terminal has one output");
    assert_eq!(exit.reason, ExitReason::Code(0));
    scene.end().await;
}
