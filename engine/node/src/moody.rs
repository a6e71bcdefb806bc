//! A backend for the shell's own tests: in memory, and well, away or hanging as told.

use marram_backend_api::{
    Backend, BoxFuture, Capabilities, Error, ErrorKind, Events, Exit, ExitReason, Fingerprint,
    Handle, Health, Observed, Result, Spec, Usage, WorkloadId,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should.
    Well,
    /// It says that it is not usable.
    Away,
    /// It says that it is well, and answers nothing else.
    Hangs,
}

/// Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Moody(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    mood: watch::Sender<Mood>,
    usages: watch::Sender<usize>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    looks: usize,
    starts: usize,
    /// Whether it runs.
    workloads: BTreeMap<WorkloadId, bool>,
}

impl Moody {
    pub(crate) fn new(mood: Mood) -> Self {
        let (mood, usages) = (watch::Sender::new(mood), watch::Sender::default());
        Self(Arc::new(Inner { mood, usages, counts: Mutex::default() }))
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.0.mood.send_replace(mood);
    }

    /// How often it was asked how it is.
    pub(crate) fn looks(&self) -> usize {
        self.counts(|counts| counts.looks)
    }

    /// How often it was asked what a workload uses.
    pub(crate) fn usages(&self) -> watch::Receiver<usize> {
        self.0.usages.subscribe()
    }

    /// How often it has started something.
    pub(crate) fn starts(&self) -> usize {
        self.counts(|counts| counts.starts)
    }

    /// What it has.
    pub(crate) fn held(&self) -> usize {
        self.counts(|counts| counts.workloads.len())
    }

    fn counts<T>(&self, look: impl FnOnce(&mut Counts) -> T) -> T {
        look(&mut self.0.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers once it does not hang any more.
    fn answer<'a, T: Send + 'a>(
        &'a self,
        act: impl FnOnce(&mut Counts) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        let mut mood = self.0.mood.subscribe();
        Box::pin(async move {
            let mood = *mood.wait_for(|mood| *mood != Mood::Hangs).await.unwrap();
            match mood {
                Mood::Away => Err(Error::new(ErrorKind::Transient, "asking", "it is away")),
                Mood::Well | Mood::Hangs => Ok(self.counts(act)),
            }
        })
    }
}

fn exit() -> Exit {
    Exit { reason: ExitReason::Code(0), at_unix_ms: 1 }
}

fn observed(runs: Option<&bool>) -> Observed {
    match runs {
        Some(true) => Observed::Running { pid: 1, started_unix_ms: 1, paused: false },
        Some(false) => Observed::Prepared,
        None => Observed::Absent,
    }
}

impl Backend for Moody {
    fn name(&self) -> &'static str {
        "moody"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { logs: false, exec: false, pause: false }
    }

    fn fingerprint(&self) -> BoxFuture<'_, Fingerprint> {
        self.counts(|counts| counts.looks += 1);
        let health = match *self.0.mood.borrow() {
            Mood::Away => Health::Unhealthy("it is away".into()),
            Mood::Well | Mood::Hangs => Health::Healthy,
        };
        let virtualizations = vec!["moody".into()];
        let (version, runtimes, limits) = (String::new(), Vec::new(), Vec::new());
        let print = Fingerprint { health, version, runtimes, virtualizations, limits };
        Box::pin(async move { print })
    }

    fn watch(&self, _: Arc<dyn Events>) {}

    fn validate(&self, _: &Spec) -> Result<()> {
        Ok(())
    }

    fn prepare<'a>(&'a self, id: &'a WorkloadId, _: &'a Spec) -> BoxFuture<'a, Result<Handle>> {
        self.answer(|counts| {
            counts.workloads.insert(id.clone(), false);
            Handle { workload: id.clone(), version: 1, state: Vec::new() }
        })
    }

    fn start<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Handle>> {
        self.answer(|counts| {
            counts.starts += 1;
            counts.workloads.insert(handle.workload.clone(), true);
            handle.clone()
        })
    }

    fn stop<'a>(&'a self, id: &'a WorkloadId, _: Duration) -> BoxFuture<'a, Result<Exit>> {
        self.answer(|counts| {
            counts.workloads.insert(id.clone(), false);
            exit()
        })
    }

    fn destroy<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        self.answer(|counts| {
            counts.workloads.remove(id);
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(WorkloadId, Observed)>>> {
        self.answer(|counts| {
            counts.workloads.iter().map(|(id, runs)| (id.clone(), observed(Some(runs)))).collect()
        })
    }

    fn recover<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Observed>> {
        self.answer(|counts| observed(counts.workloads.get(&handle.workload)))
    }

    fn usage<'a>(&'a self, _: &'a WorkloadId) -> BoxFuture<'a, Result<Usage>> {
        self.0.usages.send_modify(|usages| *usages += 1);
        self.answer(|_| Usage::default())
    }
}
