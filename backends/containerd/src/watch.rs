//! Listens to containerd: exits and out-of-memory kills, as they happen.
//!
//! One subscription serves all workloads. While it is down nothing is known to have stayed
//! as it was, so its return is told as a resync, and verbs that lead to an exit wait for it.
//!
//! Why a probe: containerd answers a subscription with its first event and with nothing
//! before. An event of our own, seen coming back, proves that later ones will.

use crate::backend::Inner;
use crate::rpc::{QUICK, failed};
use crate::task;
use containerd_client::events::{NamespaceUpdate, TaskExit, TaskOom};
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use marram_backend_api::{Error, ErrorKind, Event, Events, Result, WorkloadId};
use prost::Message;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// First and longest pause before another attempt to subscribe.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long a probe may take to come back before another one is sent.
const PROBE: Duration = Duration::from_millis(20);

/// How long a verb waits for the subscription: longer than the longest pause.
const LIVE_WAIT: Duration = Duration::from_secs(8);

const PROBE_TOPIC: &str = "/marram/probe";

const DOING: &str = "listening to containerd";

/// What is known by listening.
#[derive(Debug)]
pub(crate) struct Listener {
    sink: OnceLock<Arc<dyn Events>>,
    live: watch::Sender<bool>,
    /// Workloads in which the kernel killed for memory. The runtimes whose cgroups we cannot
    /// read are told apart by this alone.
    out_of_memory: Mutex<BTreeSet<String>>,
    task: OnceLock<tokio::task::AbortHandle>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            sink: OnceLock::new(),
            live: watch::Sender::new(false),
            out_of_memory: Mutex::default(),
            task: OnceLock::new(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Listener {
    /// Takes the engine's sink. A second one is a mistake of the caller and is ignored.
    pub(crate) fn set_sink(&self, sink: Arc<dyn Events>) {
        if self.sink.set(sink).is_err() {
            tracing::warn!("a second sink of events is ignored");
        }
    }

    pub(crate) fn push(&self, event: Event) {
        if let Some(sink) = self.sink.get() {
            sink.push(event);
        }
    }

    pub(crate) fn was_out_of_memory(&self, id: &str) -> bool {
        self.marks().contains(id)
    }

    pub(crate) fn forget(&self, id: &str) {
        self.marks().remove(id);
    }

    fn marks(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.out_of_memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Begins to listen if that was not done; needs a runtime, which `watch` may not have yet.
pub(crate) fn begin(inner: &Arc<Inner>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let weak = Arc::downgrade(inner);
        inner.listener.task.get_or_init(|| runtime.spawn(listen(weak)).abort_handle());
    }
}

/// Waits until exits are heard of.
pub(crate) async fn live(inner: &Arc<Inner>) -> Result<()> {
    begin(inner);
    let mut live = inner.listener.live.subscribe();
    let waited = tokio::time::timeout(LIVE_WAIT, live.wait_for(|live| *live)).await;
    match waited {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => {
            let why = format!("no events from {}", inner.config.socket.display());
            Err(Error::new(ErrorKind::Transient, DOING, why))
        }
    }
}

async fn listen(weak: Weak<Inner>) {
    let mut backoff = BACKOFF_MIN;
    let mut missed = false;
    loop {
        let Some(inner) = weak.upgrade() else { return };
        let ended = subscription(&inner, missed).await;
        let was_live = inner.listener.live.send_replace(false);
        if was_live {
            backoff = BACKOFF_MIN;
        }
        missed = true;
        tracing::debug!(error = ended.chain(), "the subscription ended");
        drop(inner);
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// One subscription, until it breaks. `missed`: something may have happened before.
async fn subscription(inner: &Arc<Inner>, missed: bool) -> Error {
    let result = async {
        let namespace = &inner.config.namespace;
        let filters = vec![
            format!("namespace==\"{namespace}\",topic==\"/tasks/exit\""),
            format!("namespace==\"{namespace}\",topic==\"/tasks/oom\""),
            format!("namespace==\"{namespace}\",topic==\"{PROBE_TOPIC}\""),
        ];
        let request = inner.rpc.endless(SubscribeRequest { filters });
        let mut client = inner.rpc.events().await?;
        let mut opening = std::pin::pin!(client.subscribe(request));
        let stream = loop {
            // The answer comes with the first event, and that is a probe.
            tokio::select! {
                answer = &mut opening => break answer,
                probed = probe(inner) => probed?,
            }
        };
        let mut stream = stream.map_err(|status| failed(DOING, status))?.into_inner();
        loop {
            let envelope = stream.message().await.map_err(|status| failed(DOING, status))?;
            let Some(envelope) = envelope else {
                return Err(Error::new(ErrorKind::Transient, DOING, "containerd ended it"));
            };
            if !inner.listener.live.send_replace(true) && missed {
                inner.listener.push(Event::Resync);
            }
            heard(inner, envelope);
        }
    };
    let never: Result<std::convert::Infallible> = result.await;
    match never {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Sends an event of our own and gives it time to come back.
async fn probe(inner: &Inner) -> Result<()> {
    let body = NamespaceUpdate { name: inner.config.namespace.clone(), ..Default::default() };
    let event = prost_types::Any {
        type_url: "containerd.events.NamespaceUpdate".into(),
        value: body.encode_to_vec(),
    };
    let request = PublishRequest { topic: PROBE_TOPIC.into(), event: Some(event) };
    let request = inner.rpc.request(QUICK, request);
    let answer = inner.rpc.events().await?.publish(request).await;
    answer.map_err(|status| failed(DOING, status))?;
    tokio::time::sleep(PROBE).await;
    Ok(())
}

fn heard(inner: &Arc<Inner>, envelope: Envelope) {
    let Some(event) = envelope.event else { return };
    match envelope.topic.as_str() {
        "/tasks/oom" => {
            if let Ok(oom) = TaskOom::decode(event.value.as_slice()) {
                inner.listener.marks().insert(oom.container_id);
            }
        }
        "/tasks/exit" => {
            // Programs run by exec have ids of their own; who started them waits for them.
            let exit = TaskExit::decode(event.value.as_slice());
            let Ok(exit) = exit else { return };
            let Ok(id) = WorkloadId::new(exit.container_id.as_str()) else { return };
            if exit.id == exit.container_id {
                let told = task::exit(inner, &id, exit.exit_status, exit.exited_at.as_ref());
                inner.finish_log(&id);
                inner.listener.push(Event::Exited(id, told));
            }
        }
        _ => {}
    }
}
