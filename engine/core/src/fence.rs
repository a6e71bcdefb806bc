//! Which workloads may not run for lack of a way to the root.
//!
//! Some services must never run twice. Who has them waits, when a node is silent, until the
//! node has stopped them by itself: their `patience.parent_s` is shorter than the patience of
//! those above. They pay with autonomy: without a way to the root they end after that time,
//! and do not start before the root has spoken again.
//!
//! Invariants: such a workload runs while the way is whole, or was whole less than its patience
//! ago; in this life of the engine it is not started before the way was whole once, though what
//! runs already goes on until its patience is over.

use crate::Now;
use crate::slot::Slot;
use marram_protocol::assurance::Assurance;
use marram_protocol::v1::Workload;

/// What is known of the way to the root.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fence {
    pub(crate) assurance: Assurance,
    /// Since when it is not sure; the engine's start counts as such a moment.
    broken_since_ms: Option<u64>,
    /// It was sure once since the engine's start.
    was_sure: bool,
}

impl Fence {
    pub(crate) fn new(now: Now) -> Self {
        Self { broken_since_ms: Some(now.mono_ms), ..Self::default() }
    }

    /// Takes note of what the last input has made of the way.
    pub(crate) fn note(&mut self, now: Now) {
        if self.assurance.is_sure() {
            self.was_sure = true;
            self.broken_since_ms = None;
        } else {
            self.broken_since_ms.get_or_insert(now.mono_ms);
        }
    }

    /// Whether the workload may not run now.
    pub(crate) fn holds(&self, slot: &Slot, now: Now) -> bool {
        let Some((patience_ms, since_ms)) = self.terms(slot.desired.as_ref()) else {
            return false;
        };
        let over = now.mono_ms.saturating_sub(since_ms) >= patience_ms;
        over || (!self.was_sure && !slot.may_run())
    }

    /// When the workload may not run any more, if it may now.
    pub(crate) fn due_ms(&self, slot: &Slot) -> Option<u64> {
        if slot.fenced {
            return None;
        }
        let (patience_ms, since_ms) = self.terms(slot.desired.as_ref())?;
        Some(since_ms.saturating_add(patience_ms))
    }

    fn terms(&self, workload: Option<&Workload>) -> Option<(u64, u64)> {
        let seconds = workload?.spec.patience.parent_s?;
        Some((u64::from(seconds).saturating_mul(1_000), self.broken_since_ms?))
    }
}
