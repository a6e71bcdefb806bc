//! The core behind its lock, with the wakers of those who wait for something in it.
//!
//! Why a lock and not a task with channels: a channel per client costs more memory than the whole
//! rest of an idle connection, and it would be a second queue behind the bounded one. The lock is
//! held for one decision or for one batch of packets, never across an await and never while the
//! authorizer is asked.
//!
//! Invariant: a waker is registered under the same lock under which its session was found empty,
//! so no wake-up falls between; a connection that lost its session registers none, for the place
//! belongs to another by then.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::auth::Authorizer;
use crate::config::Config;
use crate::core::{Core, Key, Link, Millis};

/// What all connections of a broker share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    state: Mutex<State>,
    started: Instant,
    /// The earliest timeout moved forward.
    pub(crate) timer_changed: Notify,
    /// The embedder's own publishes may be tried again.
    pub(crate) room: Notify,
    /// Connections of all listeners, those in their handshake included.
    pub(crate) connections: AtomicUsize,
    /// Connections that were let in and have not said their last word.
    pub(crate) open: AtomicUsize,
}

struct State {
    core: Core,
    /// By session key.
    wakers: Vec<Option<Waker>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(config: Config, authorizer: Arc<dyn Authorizer>) -> Self {
        let core = Core::new(config.clone());
        Self {
            config,
            authorizer,
            state: Mutex::new(State { core, wakers: Vec::new() }),
            started: Instant::now(),
            timer_changed: Notify::new(),
            room: Notify::new(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        }
    }

    /// Milliseconds since the broker started: the core's time.
    pub(crate) fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the core's time reaches a value.
    pub(crate) fn instant(&self, at: Millis) -> Instant {
        self.started + std::time::Duration::from_millis(at)
    }

    /// Calls into the core and then wakes whom the call concerns.
    pub(crate) fn with<R>(&self, call: impl FnOnce(&mut Core) -> R) -> R {
        self.with_waker(None, call)
    }

    /// As [`Shared::with`], and wakes this task when its session has something new.
    pub(crate) fn with_waker<R>(
        &self,
        waiting: Option<(Link, &Waker)>,
        call: impl FnOnce(&mut Core) -> R,
    ) -> R {
        let mut state = self.lock();
        let timeout = state.core.poll_timeout();
        let result = call(&mut state.core);
        let changed = earlier(state.core.poll_timeout(), timeout);
        let relieved = state.core.take_relieved();
        let keys = state.core.take_wakes();
        let woken: Vec<Waker> = keys.into_iter().filter_map(|key| state.take(key)).collect();
        if let Some((link, waker)) = waiting.filter(|(link, _)| state.core.is_current(*link)) {
            state.register(link.key, waker);
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        if changed {
            self.timer_changed.notify_waiters();
        }
        if relieved {
            self.room.notify_waiters();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside the core would be a bug of ours; the other clients are served on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, key: Key) -> Option<Waker> {
        self.wakers.get_mut(key.0 as usize)?.take()
    }

    fn register(&mut self, key: Key, waker: &Waker) {
        let at = key.0 as usize;
        if self.wakers.len() <= at {
            self.wakers.resize(at + 1, None);
        }
        let place = &mut self.wakers[at];
        if !place.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *place = Some(waker.clone());
        }
    }
}

fn earlier(new: Option<Millis>, old: Option<Millis>) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => new < old,
        (new, None) => new.is_some(),
        (None, _) => false,
    }
}
