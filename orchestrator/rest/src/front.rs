//! What a tier lends to the calls here: looks at its core, connections, and operations.
//!
//! Why a trait: the root knows users and lets each see their own; a cluster's socket is its
//! operator's. The calls are the same.

use crate::link::Link;
use crate::problem::Problem;
use crate::refusal::Refusal;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use marram_orchestrator_core::{Now, Tier};
use marram_protocol::id::{ApplicationId, ChildId, InstanceId};
use marram_protocol::v1::{Missed, OperationEnd, Verb};
use std::fmt;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Streams that clients hold open: events, logs, exec. Each costs a task and a connection.
pub const WATCHERS_MAX: usize = 128;

/// A tier that answers operators.
pub trait Front: Clone + Send + Sync + 'static {
    /// Who calls.
    type Caller: Clone + Send + Sync + 'static;

    /// What the tier is: `root` or `cluster`.
    const ROLE: &'static str;

    /// Who calls, if they may.
    ///
    /// # Errors
    /// No token, or one that is not taken.
    fn caller(&self, headers: &HeaderMap) -> Result<Self::Caller, Problem>;

    /// Whether somebody may do what concerns all owners.
    ///
    /// # Errors
    /// They may not.
    fn require_operator(&self, caller: &Self::Caller) -> Result<(), Refusal>;

    /// Looks at the state.
    fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Sight<Self::Caller>) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Refusal>> + Send;

    /// Does one operation, and waits for how it went.
    fn operate(&self, order: Order) -> impl Future<Output = Result<OperationEnd, Refusal>> + Send;

    /// Takes a child of another tree when it asks again.
    fn adopt(&self, child: ChildId) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// What ends streams and counts them.
    fn gate(&self) -> &Gate;
}

/// The state at one moment.
pub trait Sight<C> {
    /// The core.
    fn tier(&self) -> &Tier;

    /// When.
    fn now(&self) -> Now;

    /// The application of an instance, where applications are known.
    ///
    /// # Errors
    /// There is no such instance, as far as the caller may know.
    fn permit(&self, caller: &C, id: InstanceId) -> Result<Option<ApplicationId>, Refusal>;

    /// The connection that leads to a child, if there is one now.
    fn link(&self, child: ChildId) -> Option<Arc<Link>>;

    /// What happened to an instance while nobody here could be told, oldest first.
    fn missed(&self, id: InstanceId) -> Vec<Missed>;
}

/// One operation, addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The tier that has to do it.
    pub cluster: ChildId,
    /// Which of its children; the tier as a whole if absent.
    pub child: Option<String>,
    /// What.
    pub verb: Verb,
}

/// Ends streams, and lets in no more than a number of them.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Turns true when the program is asked to end.
    pub stopping: watch::Receiver<bool>,
    watchers: Arc<Semaphore>,
}

impl Gate {
    /// Open until `stopping`.
    pub fn new(stopping: watch::Receiver<bool>) -> Self {
        Self { stopping, watchers: Arc::new(Semaphore::new(WATCHERS_MAX)) }
    }

    /// A place among those who hold a stream open.
    ///
    /// # Errors
    /// All are taken.
    pub fn watcher(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let full = |_| Refusal::Busy(format!("{WATCHERS_MAX} streams are open already"));
        self.watchers.clone().try_acquire_owned().map_err(full)
    }
}

/// Who calls, taken out of a request.
pub struct Caller<F: Front>(pub F::Caller);

impl<F: Front> fmt::Debug for Caller<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}

impl<F: Front> FromRequestParts<F> for Caller<F> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, front: &F) -> Result<Self, Problem> {
        Ok(Self(front.caller(&parts.headers)?))
    }
}
