//! The verbs of the contract on the host in memory.
//!
//! Each verb gives way once before and once after it acts, so that there are awaits at
//! which it can be dropped.

use crate::host::{Inner, MockHost, Verb, View, locked};
use crate::script::Script;
use crate::workload::{KILL, State, TERM, Workload};
use marram_backend_api::{
    Backend, BoxFuture, Capabilities, Cursor, Error, ErrorKind, Events, Exit, ExitReason,
    Fingerprint, Handle, Health, Limit, LogChunk, Logs, Observed, Pause, Result, Runtime, Spec,
    Usage, WorkloadId,
};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Layout of [`Handle::state`]: the incarnation, big-endian.
const HANDLE_VERSION: u16 = 1;

/// One engine's view of a [`MockHost`].
#[derive(Debug)]
pub struct MockBackend {
    host: MockHost,
    view: Arc<View>,
}

impl MockBackend {
    /// A new view, as after a restart of the engine.
    pub fn new(host: MockHost) -> Self {
        let view = Arc::new(View::default());
        host.attach(&view);
        Self { host, view }
    }

    fn adopt(&self, id: &WorkloadId) {
        locked(&self.view.watched).insert(id.clone());
    }

    fn prepare_now(&self, id: &WorkloadId, spec: &Spec) -> Result<Handle> {
        self.validate(spec)?;
        self.host.change(|inner| {
            inner.call(Verb::Prepare, id);
            if let Some(there) = inner.workloads.get(id) {
                if there.spec == *spec {
                    return Ok(handle(id, there.incarnation));
                }
                return Err(error(ErrorKind::Invalid, "it exists with another specification"));
            }
            if inner.missing_images.contains(&spec.image) {
                return Err(error(ErrorKind::NotFound, format!("no image {}", spec.image)));
            }
            let script = match inner.scripts.get(id) {
                Some(script) => script.clone(),
                None => Script::from_arguments(&spec.args)
                    .map_err(|wrong| error(ErrorKind::Invalid, wrong.to_string()))?,
            };
            fail(inner, Verb::Prepare, id, script.prepare_error)?;
            let incarnation = inner.number();
            inner.workloads.insert(id.clone(), Workload::new(spec, script, incarnation));
            Ok(handle(id, incarnation))
        })
    }

    fn start_now(&self, handle: &Handle) -> Result<Handle> {
        let meant = incarnation(handle)?;
        let id = &handle.workload;
        self.adopt(id);
        self.host.change(|inner| {
            inner.call(Verb::Start, id);
            let there = inner.workloads.get(id).filter(|one| one.incarnation == meant);
            let there = there.ok_or_else(|| error(ErrorKind::NotFound, "it is not prepared"))?;
            match there.state {
                State::Running { .. } => return Ok(handle.clone()),
                State::Exited(_) => return Err(error(ErrorKind::Invalid, "it has ended")),
                State::Prepared => {}
            }
            let fault = there.script.start_error;
            fail(inner, Verb::Start, id, fault)?;
            // Ids of processes are 32 bits wide; a test does not start that many.
            let pid = u32::try_from(inner.number()).unwrap_or(u32::MAX);
            let now = inner.now;
            if let Some(workload) = inner.workloads.get_mut(id) {
                workload.start(pid, now);
            }
            Ok(handle.clone())
        })
    }

    async fn stop_now(&self, id: &WorkloadId, grace: Duration) -> Result<Exit> {
        self.adopt(id);
        let deadline = self.host.change(|inner| {
            inner.call(Verb::Stop, id);
            let now = inner.now;
            if let Some(workload) = inner.workloads.get_mut(id) {
                workload.signal(TERM, now);
                workload.pause(false, now);
            }
            now + grace
        });
        poll_fn(|context| {
            let mut inner = self.host.lock();
            let state = inner.workloads.get(id).map(|workload| workload.state.clone());
            match state {
                Some(State::Exited(exit)) => return Poll::Ready(Ok(exit)),
                None | Some(State::Prepared) => {
                    return Poll::Ready(Ok(Exit { reason: ExitReason::Lost, at_unix_ms: 0 }));
                }
                Some(State::Running { .. }) => {}
            }
            if inner.now < deadline {
                inner.wakers.push(context.waker().clone());
                return Poll::Pending;
            }
            drop(inner);
            self.host.signal(id, KILL);
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    fn recover_now(&self, handle: &Handle) -> Result<Observed> {
        let meant = incarnation(handle)?;
        self.adopt(&handle.workload);
        self.host.change(|inner| {
            inner.call(Verb::Recover, &handle.workload);
            let there = inner.workloads.get(&handle.workload);
            let there = there.filter(|workload| workload.incarnation == meant);
            Ok(there.map_or(Observed::Absent, Workload::observed))
        })
    }

    fn with<T>(&self, id: &WorkloadId, ask: impl FnOnce(&Workload) -> T) -> Result<T> {
        let inner = self.host.lock();
        let there = inner.workloads.get(id);
        there.map(ask).ok_or_else(|| error(ErrorKind::NotFound, format!("there is no {id}")))
    }

    fn pause_now(&self, id: &WorkloadId, pause: bool) -> Result<()> {
        let runs = self.host.change(|inner| {
            let now = inner.now;
            inner.workloads.get_mut(id).is_some_and(|workload| workload.pause(pause, now))
        });
        runs.then_some(()).ok_or_else(|| error(ErrorKind::NotFound, format!("{id} does not run")))
    }
}

fn error(kind: ErrorKind, why: impl Into<String>) -> Error {
    Error::new(kind, "playing a workload", why)
}

/// Fails as often as the script says.
fn fail(
    inner: &mut Inner,
    verb: Verb,
    id: &WorkloadId,
    fault: Option<(ErrorKind, u32)>,
) -> Result<()> {
    let Some((kind, times)) = fault else { return Ok(()) };
    let failed = inner.failed.entry((id.clone(), verb)).or_default();
    if *failed >= times {
        return Ok(());
    }
    *failed += 1;
    Err(error(kind, format!("the script says so, {failed} of {times} times")))
}

fn handle(id: &WorkloadId, incarnation: u64) -> Handle {
    let state = incarnation.to_be_bytes().to_vec();
    Handle { workload: id.clone(), version: HANDLE_VERSION, state }
}

fn incarnation(handle: &Handle) -> Result<u64> {
    let bytes = <[u8; 8]>::try_from(handle.state.as_slice());
    match (handle.version, bytes) {
        (HANDLE_VERSION, Ok(bytes)) => Ok(u64::from_be_bytes(bytes)),
        _ => Err(error(ErrorKind::Invalid, "the handle is of no known layout")),
    }
}

/// Gives way once: an await at which the caller may be dropped.
async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// An act between two awaits.
fn act<'a, T: Send + 'a>(act: impl FnOnce() -> Result<T> + Send + 'a) -> BoxFuture<'a, Result<T>> {
    Box::pin(async move {
        give_way().await;
        let result = act();
        give_way().await;
        result
    })
}

impl Backend for MockBackend {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { logs: true, exec: false, pause: true }
    }

    fn fingerprint(&self) -> BoxFuture<'_, Fingerprint> {
        let reason = self.host.lock().unenforced.clone();
        let enforced = reason.map_or(Ok(()), Err);
        let limits = ["memory", "cpu", "pids"];
        let print = Fingerprint {
            health: Health::Healthy,
            version: String::new(),
            runtimes: vec![Runtime { name: "mock".into(), version: String::new() }],
            virtualizations: vec!["mock".into()],
            limits: limits.map(|name| Limit { name, enforced: enforced.clone() }).to_vec(),
        };
        Box::pin(async move { print })
    }

    fn watch(&self, events: Arc<dyn Events>) {
        *locked(&self.view.events) = Some(events);
    }

    fn validate(&self, spec: &Spec) -> Result<()> {
        let invalid = |why: &str| Err(error(ErrorKind::Invalid, why));
        if spec.image.is_empty() {
            return invalid("no image is named");
        }
        if spec.runtime.as_deref().is_some_and(|runtime| runtime != "mock") {
            return invalid("the one runtime is mock");
        }
        if spec.mounts.iter().any(|mount| !mount.target.is_absolute()) {
            return invalid("a mount's target is not absolute");
        }
        if !spec.devices.is_empty() {
            return Err(error(ErrorKind::Unsupported, "there are no devices"));
        }
        if spec.environment.iter().any(|(name, value)| format!("{name}{value}").contains('\0')) {
            return invalid("a zero byte in the environment");
        }
        let limited = spec.resources != marram_backend_api::Resources::default();
        match &self.host.lock().unenforced {
            Some(reason) if limited && !spec.allow_unlimited => {
                Err(error(ErrorKind::Unsupported, format!("limits are not enforced: {reason}")))
            }
            _ => Ok(()),
        }
    }

    fn prepare<'a>(&'a self, id: &'a WorkloadId, spec: &'a Spec) -> BoxFuture<'a, Result<Handle>> {
        act(move || self.prepare_now(id, spec))
    }

    fn start<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Handle>> {
        act(move || self.start_now(handle))
    }

    fn stop<'a>(&'a self, id: &'a WorkloadId, grace: Duration) -> BoxFuture<'a, Result<Exit>> {
        Box::pin(async move {
            give_way().await;
            let exit = self.stop_now(id, grace).await;
            give_way().await;
            exit
        })
    }

    fn destroy<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        act(move || {
            locked(&self.view.watched).remove(id);
            self.host.change(|inner| {
                inner.call(Verb::Destroy, id);
                inner.workloads.remove(id);
            });
            Ok(())
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(WorkloadId, Observed)>>> {
        let inner = self.host.lock();
        let all = inner.workloads.iter().map(|(id, one)| (id.clone(), one.observed())).collect();
        Box::pin(async move { Ok(all) })
    }

    fn recover<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Observed>> {
        act(move || self.recover_now(handle))
    }

    fn usage<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<Usage>> {
        let running = |one: &Workload| match one.state {
            State::Running { .. } => Ok(one.usage()),
            _ => Err(error(ErrorKind::NotFound, format!("{id} does not run"))),
        };
        let usage = self.with(id, running).and_then(|usage| usage);
        Box::pin(async move { usage })
    }

    fn as_logs(&self) -> Option<&dyn Logs> {
        Some(self)
    }

    fn as_pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }
}

impl Logs for MockBackend {
    fn read<'a>(
        &'a self,
        id: &'a WorkloadId,
        from: Cursor,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<LogChunk>> {
        let chunk = self.with(id, |one| one.output.read(from, bytes_max));
        Box::pin(async move { chunk })
    }

    fn tail<'a>(&'a self, id: &'a WorkloadId, lines: u32) -> BoxFuture<'a, Result<Cursor>> {
        let cursor = self.with(id, |one| one.output.tail(lines));
        Box::pin(async move { cursor })
    }

    fn wait<'a>(&'a self, id: &'a WorkloadId, from: Cursor) -> BoxFuture<'a, Result<bool>> {
        Box::pin(poll_fn(move |context| {
            let ready = self.with(id, |one| {
                let more = one.output.end() > from.0;
                (more || matches!(one.state, State::Exited(_))).then_some(more)
            });
            match ready {
                Ok(Some(more)) => Poll::Ready(Ok(more)),
                Ok(None) => {
                    self.host.lock().wakers.push(context.waker().clone());
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            }
        }))
    }
}

impl Pause for MockBackend {
    fn pause<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        act(move || self.pause_now(id, true))
    }

    fn resume<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        act(move || self.pause_now(id, false))
    }
}
