//! The life of one instance on a node.
//!
//! ```text
//!            Prepare          Start                      exit
//!   Idle ──────────► (busy) ────────► (busy) ─► Running ──────► Ended
//!    ▲  wait over                                  │ Stop         │ wait over
//!    └────────────────────────── (busy) ◄──────────┴──────────────┘ Destroy
//!                                   │
//!                                   └─► gone, if no longer desired
//!   Unseen ─ Recover ─► Running | Ended | Idle      Over, Refused: nothing more to do here
//! ```
//!
//! One effect is in flight at most: while `busy`, [`Slot::next`] gives nothing, and what
//! the result means is decided when it comes (see `outcome`), by what is desired then.
//!
//! Invariants: the phase tells which effect is in flight (Idle: prepare, Prepared: start,
//! Running: stop, Unseen: recover, Ended, Over and Refused: destroy), so a change of desire
//! leaves it alone meanwhile; every phase but Idle, Over and Refused holds something; a wait
//! that is over always gives an effect or another phase, so nobody spins.

mod outcome;

use crate::ledger::{Ending, Entry, HeldEntry};
use crate::{Effect, HandleBytes, Now};
use marram_backend_api::Exit;
use marram_protocol::id::InstanceId;
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{InstanceStatus, ServiceSpec, Workload};

/// Between two looks at whether an instance can be taken, if nothing has happened that
/// could change it: looking costs nothing outside the engine.
const ADMIT_INTERVAL_MS: u64 = 30_000;

/// Where a slot stands when nothing is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Held, and its state is not known: to be recovered at this time, which is never until
    /// its backend has been asked.
    Unseen { at_ms: u64 },
    /// Nothing on the host; to be prepared at this time.
    Idle { at_ms: u64 },
    /// Prepared, to be started.
    Prepared,
    /// Runs.
    Running,
    /// Ended, and what it left is there; to be cleared away for a restart at this time.
    Ended { at_ms: u64 },
    /// Completed or dead: nothing to do unless something else is desired.
    Over,
    /// This node cannot run it: what an attempt has left is cleared away.
    Refused,
}

/// What exists on the host, as far as is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) backend: String,
    /// Of the workload that it was made for.
    pub(crate) digest: u64,
    pub(crate) handle: Option<HandleBytes>,
}

/// One instance.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) instance: InstanceId,
    /// What is desired; `None` to be removed.
    pub(crate) desired: Option<Workload>,
    /// Digest of what is desired: it is compared at every input.
    wanted: Option<u64>,
    pub(crate) held: Option<Held>,
    /// What `held` was made for, once something else is desired: until it is gone, it has
    /// its memory and its ports.
    former: Option<Workload>,
    pub(crate) phase: Phase,
    pub(crate) busy: bool,
    pub(crate) status: InstanceStatus,
    /// Ends in a row of runs that were short.
    failures: u32,
    /// Effects in a row that failed, since it last ran.
    attempts: u32,
    /// What is desired was made ready here at least once.
    pub(crate) has_run: bool,
    /// It came out of the ledger.
    pub(crate) restored: bool,
    /// When what is desired was asked for.
    pub(crate) asked_ms: u64,
    /// Not taken yet, for a reason that may pass by itself.
    waits: bool,
    /// The last attempt to clear away failed: the next one waits for its time.
    clearing_failed: bool,
    running_since_ms: Option<u64>,
    progress_told_ms: Option<u64>,
    /// Came while an effect was in flight; judged after it.
    early_exit: Option<Exit>,
    /// It may not run for lack of a way to the root.
    pub(crate) fenced: bool,
}

/// What a change of a slot asks of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Follow {
    /// It must be written down.
    pub(crate) persist: bool,
    /// The cluster must hear of it.
    pub(crate) report: bool,
}

/// The node's word on an instance that it is told to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// On this backend.
    Take(String),
    /// Not now; what is in the way will go by itself.
    Wait(String),
    /// Not here.
    Refuse(String),
}

/// A slot as shells and tests see it.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotView<'a> {
    /// What is desired.
    pub desired: Option<&'a Workload>,
    /// The backend that has it.
    pub backend: Option<&'a str>,
    /// How it is.
    pub status: &'a InstanceStatus,
    /// It runs, as far as is known.
    pub is_running: bool,
}

const QUIET: Follow = Follow { persist: false, report: false };
const REPORT: Follow = Follow { persist: false, report: true };
const PERSIST: Follow = Follow { persist: true, report: true };

/// Detail of one that may not run.
const FENCED: &str = "does not run before the way to the root is whole again (parent_s)";

/// No input has set a time yet.
const NEVER_MS: u64 = u64::MAX;

impl Slot {
    pub(crate) fn new(workload: Workload, now: Now) -> Self {
        let scheduled = InstanceState::NodeScheduled;
        let mut status = InstanceStatus::bare(workload.instance, scheduled, now.unix_ms);
        status.revision = workload.revision;
        Self {
            instance: workload.instance,
            wanted: Some(workload.digest()),
            desired: Some(workload),
            held: None,
            former: None,
            phase: Phase::Idle { at_ms: now.mono_ms },
            busy: false,
            status,
            failures: 0,
            attempts: 0,
            has_run: false,
            restored: false,
            asked_ms: now.mono_ms,
            waits: false,
            clearing_failed: false,
            running_since_ms: None,
            progress_told_ms: None,
            early_exit: None,
            fenced: false,
        }
    }

    /// One of which nothing is desired.
    fn unwanted(instance: InstanceId, now: Now) -> Self {
        let spec = ServiceSpec::default();
        let nothing = Workload { instance, revision: 0, name: String::new(), spec };
        Self { desired: None, wanted: None, ..Self::new(nothing, now) }
    }

    /// Something that exists and is not desired, to be cleared away.
    pub(crate) fn stray(instance: InstanceId, backend: &str, now: Now) -> Self {
        let mut slot = Self::unwanted(instance, now);
        slot.found(backend, now);
        slot
    }

    /// Something of it exists that nobody has made in this or an earlier life: it is
    /// cleared away. One that is over or refused stays so.
    pub(crate) fn found(&mut self, backend: &str, now: Now) {
        self.held = Some(Held { backend: backend.to_owned(), digest: 0, handle: None });
        self.waits = false;
        if let Phase::Idle { .. } = self.phase {
            self.phase = Phase::Ended { at_ms: now.mono_ms };
        }
    }

    /// A slot as it was written down.
    pub(crate) fn restored(entry: Entry, now: Now) -> Self {
        let mut slot = match entry.desired {
            Some(workload) => Self::new(workload, now),
            None => Self::unwanted(entry.instance, now),
        };
        slot.restored = true;
        slot.status.restarts = entry.restarts;
        slot.status.exit = entry.exit;
        slot.held = entry.held.map(|held| Held {
            backend: held.backend,
            digest: held.digest,
            handle: held.handle.map(HandleBytes::from),
        });
        // What was started has a handle or an end; nothing is written only to know it.
        let has_handle = slot.held.as_ref().is_some_and(|held| held.handle.is_some());
        slot.has_run = has_handle || entry.exit.is_some();
        let (phase, state, detail) = match entry.ending {
            Ending::Completed => (Phase::Over, InstanceState::Completed, ""),
            Ending::Dead => {
                (Phase::Over, InstanceState::Dead, "given up before the engine was started")
            }
            Ending::Refused => {
                (Phase::Refused, InstanceState::Refused, "refused before the engine was started")
            }
            Ending::None if slot.held.is_some() => {
                let detail = "the engine has started and looks for it";
                (Phase::Unseen { at_ms: NEVER_MS }, InstanceState::Unknown, detail)
            }
            Ending::None => return slot,
        };
        slot.phase = phase;
        slot.set_state(state, detail, now);
        slot
    }

    /// What is written down of it.
    pub(crate) fn entry(&self) -> Entry {
        let ending = match (self.phase, self.status.state) {
            (Phase::Over, InstanceState::Completed) => Ending::Completed,
            (Phase::Over, _) => Ending::Dead,
            (Phase::Refused, _) => Ending::Refused,
            _ => Ending::None,
        };
        Entry {
            instance: self.instance,
            desired: self.desired.clone(),
            held: self.held.as_ref().map(|held| HeldEntry {
                backend: held.backend.clone(),
                digest: held.digest,
                handle: held.handle.as_ref().map(Into::into),
            }),
            ending,
            restarts: self.status.restarts,
            exit: self.status.exit,
        }
    }

    pub(crate) fn view(&self) -> SlotView<'_> {
        SlotView {
            desired: self.desired.as_ref(),
            backend: self.held.as_ref().map(|held| held.backend.as_str()),
            status: &self.status,
            is_running: self.phase == Phase::Running,
        }
    }

    pub(crate) fn set_state(&mut self, state: InstanceState, detail: &str, now: Now) {
        if self.status.state != state {
            self.status.since_unix_ms = now.unix_ms;
        }
        self.status.state = state;
        self.status.detail = InstanceStatus::detail(detail);
        if let Some(workload) = &self.desired {
            self.status.revision = workload.revision;
        }
    }

    /// Takes another desire. What exists is replaced only if it was made for another one.
    pub(crate) fn desire(&mut self, workload: Option<Workload>, now: Now) {
        if workload == self.desired {
            return;
        }
        let was_current = self.is_current();
        self.wanted = workload.as_ref().map(Workload::digest);
        let before = std::mem::replace(&mut self.desired, workload);
        if was_current {
            self.former = before;
        } else if self.is_current() {
            self.former = None;
        }
        self.has_run &= self.is_current();
        self.restored = false;
        self.asked_ms = now.mono_ms;
        self.failures = 0;
        self.attempts = 0;
        self.clearing_failed = false;
        self.waits = false;
        match self.phase {
            Phase::Ended { .. } => self.phase = Phase::Ended { at_ms: now.mono_ms },
            Phase::Idle { .. } if self.busy => {}
            Phase::Over | Phase::Refused | Phase::Idle { .. } => {
                self.wait_until(now.mono_ms);
            }
            Phase::Unseen { .. } | Phase::Prepared | Phase::Running => {}
        }
        // What was said of another desire is not said of this one.
        let is_idle = matches!(self.phase, Phase::Idle { .. }) && !self.busy;
        // It has ended, and was told of as running only since it was to go.
        let is_stopped = matches!(self.phase, Phase::Ended { .. })
            && self.status.state == InstanceState::Running;
        let is_told = is_idle || is_stopped || self.status.state.is_over();
        if self.desired.is_some() && is_told {
            self.set_state(InstanceState::NodeScheduled, "", now);
        }
    }

    /// Nothing runs; from this time on what is left is cleared away and the next is made.
    fn wait_until(&mut self, at_ms: u64) {
        self.phase =
            if self.held.is_some() { Phase::Ended { at_ms } } else { Phase::Idle { at_ms } };
    }

    /// Nothing is on the host any more.
    fn let_go(&mut self) {
        self.held = None;
        self.former = None;
        self.clearing_failed = false;
        self.running_since_ms = None;
    }

    /// Whether what is on the host was made for what is desired.
    fn is_current(&self) -> bool {
        self.held.as_ref().is_some_and(|held| Some(held.digest) == self.wanted)
    }

    /// The next effect, once it is due; `drain` stops what runs and starts nothing.
    pub(crate) fn next(&mut self, now: Now, drain: bool) -> Option<Effect> {
        let drain = drain || self.fenced;
        if self.busy {
            return None;
        }
        let instance = self.instance;
        let held = self.held.as_ref()?;
        let current = self.is_current();
        let keep = current && !drain;
        let backend = || held.backend.clone();
        let destroy = || Effect::Destroy { backend: backend(), instance };
        let effect = match (self.phase, &held.handle) {
            (Phase::Prepared, Some(handle)) if keep => {
                Effect::Start { backend: backend(), instance, handle: handle.clone() }
            }
            (Phase::Prepared, _) => destroy(),
            (Phase::Running, _) if !keep => {
                Effect::Stop { backend: backend(), instance, grace_ms: self.grace_ms() }
            }
            (Phase::Unseen { at_ms }, Some(handle)) if at_ms <= now.mono_ms => {
                Effect::Recover { backend: backend(), instance, handle: handle.clone() }
            }
            (Phase::Unseen { at_ms }, None) if at_ms <= now.mono_ms => destroy(),
            (Phase::Ended { at_ms }, _) if at_ms <= now.mono_ms => destroy(),
            // What is not to run again is not kept waiting by what it did.
            (Phase::Ended { .. }, _) if !keep && !self.clearing_failed => destroy(),
            (Phase::Over, _) if !current && !self.clearing_failed => destroy(),
            (Phase::Refused, _) if !self.clearing_failed => destroy(),
            (Phase::Idle { at_ms }, _) if at_ms <= now.mono_ms && !drain => {
                Effect::Prepare { backend: backend(), workload: Box::new(self.desired.clone()?) }
            }
            _ => return None,
        };
        let ends = !matches!(self.phase, Phase::Over | Phase::Refused);
        if ends && matches!(effect, Effect::Destroy { .. }) {
            self.phase = Phase::Ended { at_ms: now.mono_ms };
        }
        self.busy = true;
        Some(effect)
    }

    /// As the one that runs was promised; ten seconds if that is not known any more.
    fn grace_ms(&self) -> u64 {
        let made_for = self.former.as_ref().or(self.desired.as_ref());
        u64::from(made_for.map_or(10, |workload| workload.spec.stop_grace_s)) * 1000
    }

    /// What others must leave room for; with `leaving` also what is on its way out.
    pub(crate) fn claims(&self, leaving: bool) -> impl Iterator<Item = &Workload> {
        let holds = match self.phase {
            Phase::Over | Phase::Refused => false,
            // It waits to be made again, and nobody shall take its room meanwhile.
            Phase::Idle { .. } => self.held.is_some() || self.has_run,
            _ => true,
        };
        let desired = self.desired.as_ref().filter(|_| holds);
        desired.into_iter().chain(self.former.as_ref().filter(|_| holds && leaving))
    }

    /// Whether the node's word on it is due.
    pub(crate) fn is_admission_due(&self, now: Now) -> bool {
        let due = matches!(self.phase, Phase::Idle { at_ms } if at_ms <= now.mono_ms);
        due && self.desired.is_some() && self.held.is_none() && !self.busy && !self.fenced
    }

    /// Something has changed that it may be waiting for.
    pub(crate) fn look_again(&mut self, now: Now) {
        if std::mem::take(&mut self.waits) {
            self.phase = Phase::Idle { at_ms: now.mono_ms };
        }
    }

    /// The node's word on whether it takes the instance.
    pub(crate) fn admitted(&mut self, admission: Admission, now: Now) -> Follow {
        self.waits = false;
        match (admission, self.wanted) {
            (Admission::Take(backend), Some(digest)) => {
                self.held = Some(Held { backend, digest, handle: None });
                PERSIST
            }
            (Admission::Wait(why), _) => {
                self.waits = true;
                self.phase = Phase::Idle { at_ms: now.mono_ms.saturating_add(ADMIT_INTERVAL_MS) };
                let state = match self.has_run {
                    true => InstanceState::Failed,
                    false => InstanceState::NodeScheduled,
                };
                let known = (self.status.state, self.status.detail.clone());
                self.set_state(state, &why, now);
                let told = known == (self.status.state, self.status.detail.clone());
                if told { QUIET } else { REPORT }
            }
            (Admission::Refuse(why), _) => self.refuse(&why, now),
            (Admission::Take(_), None) => QUIET,
        }
    }

    /// When something is due without a further input. Nothing is prepared unless `prepares`:
    /// not by a node that is drained, nor by one that does not know its host yet.
    pub(crate) fn due_ms(&self, prepares: bool) -> Option<u64> {
        let at_ms = match self.phase {
            Phase::Ended { at_ms } | Phase::Unseen { at_ms } => at_ms,
            Phase::Idle { at_ms } if prepares && !self.fenced && self.desired.is_some() => at_ms,
            Phase::Idle { .. }
            | Phase::Prepared
            | Phase::Running
            | Phase::Over
            | Phase::Refused => NEVER_MS,
        };
        (!self.busy && at_ms < NEVER_MS).then_some(at_ms)
    }

    /// Something of it runs, or does as far as is known.
    pub(crate) fn may_run(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Unseen { .. })
    }

    /// Takes note of whether it may run; whether that is news to tell.
    pub(crate) fn note_fence(&mut self, fenced: bool, now: Now) -> bool {
        if self.fenced == fenced {
            return false;
        }
        self.fenced = fenced;
        let (idle, over) = (!self.busy && !self.may_run(), self.status.state.is_over());
        if idle && !over && self.desired.is_some() {
            let detail = if fenced { FENCED } else { "" };
            self.set_state(InstanceState::NodeScheduled, detail, now);
            return true;
        }
        false
    }

    /// Nothing of it runs or is about to.
    pub(crate) fn is_still(&self) -> bool {
        let is_over = matches!(self.phase, Phase::Over | Phase::Refused);
        !self.busy && (self.held.is_none() || is_over)
    }

    /// Nothing is desired, and nothing is there.
    pub(crate) fn is_gone(&self) -> bool {
        self.desired.is_none() && self.held.is_none() && !self.busy
    }

    /// Its backend has been asked what it has: what that means for one that should be there
    /// is asked of it alone, since the answer may be older than the last effect.
    pub(crate) fn listed(&mut self, now: Now) {
        if !self.busy && matches!(self.phase, Phase::Unseen { .. } | Phase::Running) {
            self.phase = Phase::Unseen { at_ms: now.mono_ms };
        }
    }
}
