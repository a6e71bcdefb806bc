//! The host that the mock's workloads live on; outlives every engine.

use crate::script::Script;
use crate::workload::{State, Workload};
use marram_backend_api::{Event, Events, Observed, WorkloadId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

/// A verb that was called, for tests that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named as in the contract")]
pub enum Verb {
    Prepare,
    Start,
    Stop,
    Destroy,
    Recover,
}

/// One call of a verb.
pub type Call = (Verb, WorkloadId);

/// Calls that are remembered; older ones are forgotten.
const CALLS_MAX: usize = 100_000;

/// What one backend object watches.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) events: Mutex<Option<Arc<dyn Events>>>,
    pub(crate) watched: Mutex<BTreeSet<WorkloadId>>,
}

/// A host in memory; clones are the same host.
#[derive(Debug, Clone, Default)]
pub struct MockHost(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) now: Duration,
    pub(crate) workloads: BTreeMap<WorkloadId, Workload>,
    pub(crate) scripts: BTreeMap<WorkloadId, Script>,
    pub(crate) missing_images: BTreeSet<String>,
    pub(crate) unenforced: Option<String>,
    pub(crate) wakers: Vec<Waker>,
    /// How often an error of a script was given already, by workload and verb.
    pub(crate) failed: BTreeMap<(WorkloadId, Verb), u32>,
    views: Vec<Weak<View>>,
    calls: Vec<Call>,
    made: u64,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MockHost {
    /// An empty host, one second after the beginning of time.
    pub fn new() -> Self {
        let host = Self::default();
        // A time of 0 means "unknown" in the contract.
        host.lock().now = Duration::from_secs(1);
        host
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        locked(&self.0)
    }

    /// Lets time pass; what is due happens, and is told.
    pub fn advance(&self, by: Duration) {
        self.change(|inner| {
            inner.now += by;
            let now = inner.now;
            for workload in inner.workloads.values_mut() {
                workload.advance(by, now);
            }
        });
    }

    /// Says what a workload of this id does, whatever its arguments say, from its next
    /// `prepare` on.
    pub fn script(&self, id: &WorkloadId, script: Script) {
        self.lock().scripts.insert(id.clone(), script);
    }

    /// `prepare` with this image is `NotFound` from now on.
    pub fn lose_image(&self, image: &str) {
        self.lock().missing_images.insert(image.to_owned());
    }

    /// Limits are not enforced from now on, for this reason.
    pub fn enforce_nothing(&self, reason: &str) {
        self.lock().unenforced = Some(reason.to_owned());
    }

    /// Sends a signal from outside.
    pub fn signal(&self, id: &WorkloadId, signal: i32) {
        self.change(|inner| {
            let now = inner.now;
            if let Some(workload) = inner.workloads.get_mut(id) {
                workload.signal(signal, now);
            }
        });
    }

    /// What is true of a workload, told without a backend.
    pub fn observed(&self, id: &WorkloadId) -> Observed {
        self.lock().workloads.get(id).map_or(Observed::Absent, Workload::observed)
    }

    /// All lifecycle verbs that were called so far, by any backend object.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// Does something, then tells whoever waits and who has ended.
    pub(crate) fn change<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let (result, wakers, news) = {
            let mut inner = self.lock();
            let ended = |inner: &Inner| -> BTreeSet<WorkloadId> {
                let all = inner.workloads.iter();
                let ended = all.filter(|(_, one)| matches!(one.state, State::Exited(_)));
                ended.map(|(id, _)| id.clone()).collect()
            };
            let before = ended(&inner);
            let result = act(&mut inner);
            let after = ended(&inner);
            let news = inner.news(after.difference(&before));
            (result, std::mem::take(&mut inner.wakers), news)
        };
        // Outside the lock: a sink or a woken task may call back.
        for (events, event) in news {
            events.push(event);
        }
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    pub(crate) fn attach(&self, view: &Arc<View>) {
        self.lock().views.push(Arc::downgrade(view));
    }
}

impl Inner {
    pub(crate) fn call(&mut self, verb: Verb, id: &WorkloadId) {
        if self.calls.len() >= CALLS_MAX {
            self.calls.drain(..CALLS_MAX / 2);
        }
        self.calls.push((verb, id.clone()));
    }

    /// A number that was never given before; serves as incarnation and as process id.
    pub(crate) fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// Events for everybody who watches one of these.
    fn news<'a>(
        &mut self,
        ended: impl Iterator<Item = &'a WorkloadId>,
    ) -> Vec<(Arc<dyn Events>, Event)> {
        self.views.retain(|view| view.strong_count() > 0);
        let views: Vec<Arc<View>> = self.views.iter().filter_map(Weak::upgrade).collect();
        let mut news = Vec::new();
        for id in ended {
            let Some(State::Exited(exit)) = self.workloads.get(id).map(|one| &one.state) else {
                continue;
            };
            for view in views.iter().filter(|view| locked(&view.watched).contains(id)) {
                if let Some(events) = locked(&view.events).clone() {
                    news.push((events, Event::Exited(id.clone(), exit.clone())));
                }
            }
        }
        news
    }
}
