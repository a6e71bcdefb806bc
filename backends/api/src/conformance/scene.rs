//! What the cases share: one workload, one backend object, the events that came.
//!
//! Why apart: a case should read like the sentence that names it.

use super::{Harness, Program};
use crate::{
    Backend, Cursor, Event, Events, Exit, ExitReason, Handle, LogChunk, Observed, Spec, WorkloadId,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long anything may take before a case gives up; generous, for loaded machines and
/// emulated boards.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at that has no event.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A grace that no well-behaved program needs.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// A case causes a handful of events; a pull's progress may be a few hundred.
const EVENTS_MAX: usize = 4096;

/// Awaits with a deadline; `what` names it in the panic.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not done within {PATIENCE:?}"),
    }
}

/// Awaits a verb that must succeed.
pub(super) async fn ok<T>(what: &str, future: impl Future<Output = crate::Result<T>>) -> T {
    match within(what, future).await {
        Ok(value) => value,
        Err(error) => panic!("{what}: {:?}: {}", error.kind, error.chain()),
    }
}

/// Looks at a condition until it holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

/// Takes events into a queue that the case reads.
#[derive(Debug)]
struct Recorder(mpsc::Sender<Event>);

impl Events for Recorder {
    fn push(&self, event: Event) {
        match self.0.try_send(event) {
            // The case may be over, and its queue with it.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(event)) => {
                panic!("more than {EVENTS_MAX} events of one workload, the last is {event:?}")
            }
        }
    }
}

/// One workload of a case with the backend object of the moment.
pub(super) struct Scene<'a> {
    pub(super) harness: &'a dyn Harness,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) id: WorkloadId,
    events: mpsc::Receiver<Event>,
}

impl<'a> Scene<'a> {
    /// A backend object, watched, and the id for this case.
    pub(super) async fn new(harness: &'a dyn Harness, name: &str) -> Self {
        let id = harness.id(name);
        let (backend, events) = watched(harness).await;
        Self { harness, backend, id, events }
    }

    /// The same with `spec` prepared and started.
    pub(super) async fn started(
        harness: &'a dyn Harness,
        name: &str,
        spec: &Spec,
    ) -> (Self, Handle) {
        let scene = Self::new(harness, name).await;
        let handle = scene.start(spec).await;
        (scene, handle)
    }

    /// The same with a program that has printed its `ready`, when the backend has logs.
    pub(super) async fn ready(
        harness: &'a dyn Harness,
        name: &str,
        program: Program,
    ) -> (Self, Handle) {
        let (scene, handle) = Self::started(harness, name, &harness.spec(program)).await;
        scene.printed("ready\n").await;
        (scene, handle)
    }

    /// Prepares and starts.
    pub(super) async fn start(&self, spec: &Spec) -> Handle {
        let handle = ok("prepare", self.backend.prepare(&self.id, spec)).await;
        assert_eq!(handle.workload, self.id, "the handle names its workload");
        ok("start", self.backend.start(&handle)).await
    }

    /// The engine restarts: the object is dropped and another made over the same state.
    pub(super) async fn restart(&mut self) {
        let (backend, events) = watched(self.harness).await;
        self.backend = backend;
        self.events = events;
    }

    /// The next exit of this workload that is pushed.
    pub(super) async fn exit(&mut self) -> Exit {
        let id = self.id.clone();
        within("the event of the exit", async {
            loop {
                match self.events.recv().await {
                    Some(Event::Exited(of, exit)) if of == id => return exit,
                    Some(_) => {}
                    None => panic!("the backend dropped its sink of events"),
                }
            }
        })
        .await
    }

    /// The reason of the next exit, which must carry a time.
    pub(super) async fn exit_reason(&mut self) -> ExitReason {
        let exit = self.exit().await;
        assert!(exit.at_unix_ms > 0, "an exit that was seen has a time");
        exit.reason
    }

    /// What `list` says of this workload.
    pub(super) async fn listed(&self) -> Observed {
        let all = ok("list", self.backend.list()).await;
        let mut found = all.into_iter().filter(|(id, _)| *id == self.id).map(|(_, seen)| seen);
        let first = found.next().unwrap_or(Observed::Absent);
        assert!(found.next().is_none(), "list names {} twice", self.id);
        first
    }

    /// The process id while it runs.
    pub(super) async fn pid(&self) -> u32 {
        match self.listed().await {
            Observed::Running { pid, .. } => pid,
            other => panic!("{} should run and is {other:?}", self.id),
        }
    }

    /// Waits until the output contains `text`; backends without logs are believed.
    pub(super) async fn printed(&self, text: &str) {
        let Some(logs) = self.backend.as_logs() else { return };
        let mut seen = Vec::new();
        let mut from = Cursor::default();
        within(&format!("output {text:?}"), async {
            loop {
                let LogChunk { bytes, next, .. } =
                    ok("logs read", logs.read(&self.id, from, 4096)).await;
                let empty = bytes.is_empty();
                seen.extend(bytes);
                from = next;
                if String::from_utf8_lossy(&seen).contains(text) {
                    return;
                }
                if empty && !ok("logs wait", logs.wait(&self.id, from)).await {
                    panic!("ended without {text:?}: {:?}", String::from_utf8_lossy(&seen));
                }
            }
        })
        .await;
    }

    /// All output that is kept, once the workload has ended.
    pub(super) async fn output(&self) -> String {
        let logs = self.backend.as_logs().expect("asked for by cases of backends with logs");
        let mut seen = Vec::new();
        let mut from = Cursor::default();
        loop {
            let chunk = ok("logs read", logs.read(&self.id, from, 1 << 16)).await;
            from = chunk.next;
            let empty = chunk.bytes.is_empty();
            seen.extend(chunk.bytes);
            if empty && !ok("logs wait", logs.wait(&self.id, from)).await {
                return String::from_utf8_lossy(&seen).into_owned();
            }
        }
    }

    /// Destroys and asks the harness whether anything remains.
    pub(super) async fn end(self) {
        ok("destroy", self.backend.destroy(&self.id)).await;
        assert_eq!(self.listed().await, Observed::Absent, "destroyed and still listed");
        let remains = self.harness.remains(&self.id).await;
        assert!(remains.is_empty(), "{} left behind: {remains:#?}", self.id);
    }

    /// The same for a workload whose engine was killed: what that engine had asked of a daemon
    /// may be carried out after the removal, and the next removal takes it; a shim that it had
    /// only just started finds its orders gone, and ends.
    pub(super) async fn end_after_kill(self) {
        within("an end with nothing left behind", async {
            loop {
                ok("destroy", self.backend.destroy(&self.id)).await;
                assert_eq!(self.listed().await, Observed::Absent, "destroyed and still listed");
                if self.harness.remains(&self.id).await.is_empty() {
                    return;
                }
            }
        })
        .await;
    }
}

async fn watched(harness: &dyn Harness) -> (Arc<dyn Backend>, mpsc::Receiver<Event>) {
    let backend = within("a backend object", harness.backend()).await;
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    backend.watch(Arc::new(Recorder(sender)));
    (backend, events)
}
