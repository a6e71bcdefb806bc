//! What a tier knows of one instance.

use crate::Now;
use crate::decisions::Decision;
use crate::movement::Leaving;
use marram_protocol::id::ChildId;
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{InstanceStatus, Workload};
use std::collections::{BTreeMap, VecDeque};

/// Children named in an explanation; the rest are counted.
pub(crate) const REASONS_MAX: usize = 6;

/// Children that one instance is offered to before its next retry: what so many have refused
/// the next will refuse as well, and what is remembered of refusals stays small.
pub(crate) const TRIED_MAX: usize = 256;

/// One instance in a tier's books.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub(crate) workload: Workload,
    pub(crate) placed: Option<ChildId>,
    pub(crate) removing: bool,
    /// Number of the child's generation that last spoke of this instance: what the child has
    /// seen under an older one is out of date.
    pub(crate) told: u64,
    pub(crate) status: InstanceStatus,
    pub(crate) tried: BTreeMap<ChildId, String>,
    /// Given back to the parent, which may have placed it elsewhere: nothing is tried with it
    /// until the parent asks for it again.
    pub(crate) handed_back: bool,
    /// When to look for a place again, and how often that was in vain.
    pub(crate) retry_at_ms: Option<u64>,
    pub(crate) retries: u32,
    /// The child it is placed on is silent for too long, or has lost it itself: why nobody else
    /// takes it, once that is known.
    pub(crate) lost: Option<String>,
    /// The child that it was taken over from, until it runs elsewhere or that child returns.
    pub(crate) lost_with: Option<ChildId>,
    /// The copy on the child that it leaves, until it runs where it is placed.
    pub(crate) leaving: Option<Leaving>,
    /// It ends where it is placed, to be placed elsewhere.
    pub(crate) stopping: bool,
    /// It ends there for something more important, and does not go on there.
    pub(crate) yields: bool,
    /// Why it is not moved away, though it should.
    pub(crate) stays: Option<String>,
    /// The last decisions about it.
    pub(crate) decisions: VecDeque<Decision>,
    /// It was placed where a copy of it had come to; who has it there has not confirmed yet
    /// that it follows this tier.
    pub(crate) claimed: bool,
}

impl Instance {
    pub(crate) fn new(workload: Workload, now: Now) -> Self {
        let requested = InstanceState::Requested;
        let mut status = InstanceStatus::bare(workload.instance, requested, now.unix_ms);
        status.revision = workload.revision;
        Self {
            workload,
            placed: None,
            removing: false,
            told: 0,
            status,
            tried: BTreeMap::new(),
            handed_back: false,
            retry_at_ms: None,
            retries: 0,
            lost: None,
            lost_with: None,
            leaving: None,
            stopping: false,
            yields: false,
            stays: None,
            decisions: VecDeque::new(),
            claimed: false,
        }
    }

    /// Notes a state that this tier itself has brought about.
    pub(crate) fn set_state(&mut self, state: InstanceState, detail: &str, now: Now) {
        if self.status.state != state {
            self.status.since_unix_ms = now.unix_ms;
        }
        self.status.state = state;
        self.status.detail = InstanceStatus::detail(detail);
        self.status.revision = self.workload.revision;
    }

    /// Notes that a child refused it. What it said is kept of the first few.
    pub(crate) fn note_refusal(&mut self, by: ChildId, reason: &str) {
        let told = self.tried.values().filter(|reason| !reason.is_empty()).count();
        let reason =
            if told < REASONS_MAX { InstanceStatus::detail(reason) } else { String::new() };
        self.tried.insert(by, reason);
    }

    /// Whether it has no place and waits for one.
    pub(crate) fn waits(&self) -> bool {
        self.placed.is_none() && self.retry_at_ms.is_some()
    }

    /// Whether a place is looked for, though it may have one that is lost.
    pub(crate) fn seeks(&self) -> bool {
        self.retry_at_ms.is_some()
    }

    /// The child it is placed on is there, and no other place is looked for.
    pub(crate) fn found(&mut self) {
        self.lost = None;
        self.retry_at_ms = None;
        self.retries = 0;
    }

    /// Whether resources of the child it is placed on are held for it.
    pub(crate) fn holds(&self) -> bool {
        self.placed.is_some() && !self.status.state.is_over()
    }

    /// Whether the child is told to run it.
    pub(crate) fn is_desired_on(&self, child: ChildId) -> bool {
        let placed = self.placed == Some(child) && !self.stopping;
        !self.removing && (placed || self.leaving() == Some(child))
    }

    /// Number of the generation under which the child was last told of it.
    pub(crate) fn told_to(&self, child: ChildId) -> u64 {
        let leaving = self.leaving.as_ref().filter(|leaving| leaving.from == child);
        leaving.map_or(self.told, |leaving| leaving.told)
    }

    /// The child is told of it under this number.
    pub(crate) fn note_told(&mut self, child: ChildId, number: u64) {
        match &mut self.leaving {
            Some(leaving) if leaving.from == child => leaving.told = number,
            _ if self.placed == Some(child) => self.told = number,
            _ => {}
        }
    }

    /// Whether a copy of it is or may be on the child.
    pub(crate) fn is_at(&self, child: ChildId) -> bool {
        self.placed == Some(child) || self.leaving() == Some(child)
    }

    /// The child that it leaves, while it is moved and until it runs where it is placed. What
    /// it needs is held on both.
    pub fn leaving(&self) -> Option<ChildId> {
        self.leaving.as_ref().map(|leaving| leaving.from)
    }

    /// What is desired.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The child it is placed on.
    pub fn placed(&self) -> Option<ChildId> {
        self.placed
    }

    /// To be gone as soon as the child says so.
    pub fn is_removing(&self) -> bool {
        self.removing
    }

    /// The last that was heard. [`crate::Tier::status`] says what that is worth now.
    pub fn last_status(&self) -> &InstanceStatus {
        &self.status
    }

    /// Children that refused it, with their reasons; those beyond the first few are empty.
    pub fn tried(&self) -> &BTreeMap<ChildId, String> {
        &self.tried
    }
}
