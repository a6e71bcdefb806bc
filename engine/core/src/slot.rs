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
//! the result means is decided when it comes, by what is desired then.

use crate::restart::{self, Verdict};
use crate::{Effect, HandleBytes, Now, Outcome};
use marram_backend_api::{ErrorKind, Exit, ExitReason, Observed};
use marram_protocol::id::InstanceId;
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{ExitCause, InstanceStatus, ServiceSpec, Workload};

/// Attempts to prepare one that never ran here, before another node shall try.
const PREPARES_MAX: u32 = 6;

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
    pub(crate) held: Option<Held>,
    pub(crate) phase: Phase,
    pub(crate) busy: bool,
    pub(crate) status: InstanceStatus,
    /// Failures in a row, of starting or of running.
    pub(crate) failures: u32,
    /// It has run here at least once.
    pub(crate) has_run: bool,
    running_since_ms: u64,
    progress_told_ms: u64,
    /// Came while an effect was in flight; judged after it.
    early_exit: Option<Exit>,
}

/// What a change of a slot asks of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Follow {
    /// It must be written down.
    pub(crate) persist: bool,
    /// The cluster must hear of it.
    pub(crate) report: bool,
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

/// No input has set a time yet.
pub(crate) const NEVER_MS: u64 = u64::MAX;

/// Progress is told this often at most.
const PROGRESS_INTERVAL_MS: u64 = 2_000;

impl Slot {
    pub(crate) fn new(workload: Workload, now: Now) -> Self {
        let scheduled = InstanceState::NodeScheduled;
        let mut status = InstanceStatus::bare(workload.instance, scheduled, now.unix_ms);
        status.revision = workload.revision;
        Self {
            instance: workload.instance,
            desired: Some(workload),
            held: None,
            phase: Phase::Idle { at_ms: now.mono_ms },
            busy: false,
            status,
            failures: 0,
            has_run: false,
            running_since_ms: 0,
            progress_told_ms: 0,
            early_exit: None,
        }
    }

    /// Something that exists and is not desired, to be cleared away.
    pub(crate) fn stray(instance: InstanceId, backend: &str, now: Now) -> Self {
        let nothing =
            Workload { instance, revision: 0, name: String::new(), spec: ServiceSpec::default() };
        let held = Held { backend: backend.to_owned(), digest: 0, handle: None };
        let phase = Phase::Ended { at_ms: now.mono_ms };
        Self { desired: None, held: Some(held), phase, ..Self::new(nothing, now) }
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
        self.desired = workload;
        self.failures = 0;
        if let Phase::Over | Phase::Refused | Phase::Idle { .. } = self.phase {
            self.wait_until(now.mono_ms);
        }
    }

    /// Nothing runs; from this time on what is left is cleared away and the next is made.
    fn wait_until(&mut self, at_ms: u64) {
        self.phase =
            if self.held.is_some() { Phase::Ended { at_ms } } else { Phase::Idle { at_ms } };
    }

    /// Whether what is on the host was made for what is desired.
    fn is_current(&self) -> bool {
        match (&self.held, &self.desired) {
            (Some(held), Some(workload)) => held.digest == workload.digest(),
            _ => false,
        }
    }

    /// The next effect, once it is due; `drain` stops what runs and starts nothing.
    pub(crate) fn next(&mut self, now: Now, drain: bool) -> Option<Effect> {
        if self.busy {
            return None;
        }
        let instance = self.instance;
        let keep = self.is_current() && !drain;
        let backend = self.held.as_ref().map(|held| held.backend.clone());
        let handle = self.held.as_ref().and_then(|held| held.handle.clone());
        let effect = match (self.phase, backend, handle) {
            (Phase::Prepared, Some(backend), Some(handle)) if keep => {
                Effect::Start { backend, instance, handle }
            }
            (Phase::Running, Some(backend), _) if !keep => {
                Effect::Stop { backend, instance, grace_ms: self.grace_ms() }
            }
            (Phase::Unseen { at_ms }, Some(backend), Some(handle)) if at_ms <= now.mono_ms => {
                Effect::Recover { backend, instance, handle }
            }
            (Phase::Ended { at_ms }, Some(backend), _) if !keep || at_ms <= now.mono_ms => {
                Effect::Destroy { backend, instance }
            }
            (Phase::Prepared, Some(backend), _) if !keep => Effect::Destroy { backend, instance },
            (Phase::Over, Some(backend), _) if !self.is_current() => {
                Effect::Destroy { backend, instance }
            }
            (Phase::Refused, Some(backend), _) => Effect::Destroy { backend, instance },
            (Phase::Idle { at_ms }, Some(backend), _) if at_ms <= now.mono_ms && !drain => {
                let workload = Box::new(self.desired.clone()?);
                Effect::Prepare { backend, workload }
            }
            _ => return None,
        };
        self.busy = true;
        Some(effect)
    }

    fn grace_ms(&self) -> u64 {
        let seconds = self.desired.as_ref().map_or(10, |w| w.spec.stop_grace_s);
        u64::from(seconds) * 1000
    }

    /// Whether others must leave room for it.
    pub(crate) fn holds_room(&self) -> bool {
        self.held.is_some() && !matches!(self.phase, Phase::Over | Phase::Refused)
    }

    /// The node's word on whether it takes the instance, and with which backend.
    pub(crate) fn admitted(
        &mut self,
        verdict: Result<String, String>,
        workload: &Workload,
        now: Now,
    ) -> Follow {
        match verdict {
            Ok(backend) => {
                self.held = Some(Held { backend, digest: workload.digest(), handle: None });
                PERSIST
            }
            // It ran here before: what it needs will be back, as a daemon that starts late.
            Err(why) if self.has_run => {
                let wait = restart::backoff_ms(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.phase = Phase::Idle { at_ms: now.mono_ms.saturating_add(wait) };
                self.set_state(InstanceState::Failed, &why, now);
                REPORT
            }
            Err(why) => self.refuse(&why, now),
        }
    }

    /// When something is due without a further input; a drained node starts nothing.
    pub(crate) fn due_ms(&self, drain: bool) -> Option<u64> {
        let at_ms = match self.phase {
            Phase::Ended { at_ms } | Phase::Unseen { at_ms } => at_ms,
            Phase::Idle { at_ms } if !drain => at_ms,
            Phase::Idle { .. }
            | Phase::Prepared
            | Phase::Running
            | Phase::Over
            | Phase::Refused => NEVER_MS,
        };
        (!self.busy && at_ms < NEVER_MS).then_some(at_ms)
    }

    /// Nothing of it runs or is about to.
    pub(crate) fn is_still(&self) -> bool {
        !self.busy && (self.held.is_none() || self.phase == Phase::Over)
    }

    /// Nothing is desired, and nothing is there.
    pub(crate) fn is_gone(&self) -> bool {
        self.desired.is_none() && self.held.is_none() && !self.busy
    }

    /// An effect has been performed.
    pub(crate) fn done(&mut self, outcome: Outcome, now: Now) -> Follow {
        self.busy = false;
        let follow = self.outcome(outcome, now);
        match self.early_exit.take() {
            Some(exit) if self.phase == Phase::Running => {
                let after = self.exited(&exit, now);
                Follow { persist: follow.persist || after.persist, report: true }
            }
            _ => follow,
        }
    }

    fn outcome(&mut self, outcome: Outcome, now: Now) -> Follow {
        match outcome {
            Outcome::Prepared(handle) => {
                self.phase = Phase::Prepared;
                self.set_state(InstanceState::Created, "", now);
                self.keep_handle(handle);
                PERSIST
            }
            Outcome::Started(handle) => {
                self.phase = Phase::Running;
                self.has_run = true;
                self.running_since_ms = now.mono_ms;
                self.set_state(InstanceState::Running, "", now);
                let persist = self.keep_handle(handle);
                Follow { persist, report: true }
            }
            Outcome::Recovered(observed) => self.observed(observed, now),
            Outcome::Stopped(exit) => {
                self.status.exit = Some(cause(exit.reason));
                self.phase = Phase::Ended { at_ms: now.mono_ms };
                self.set_state(InstanceState::Created, "stopped", now);
                REPORT
            }
            Outcome::Destroyed => {
                self.held = None;
                if self.phase != Phase::Refused {
                    self.phase = Phase::Idle { at_ms: now.mono_ms };
                }
                PERSIST
            }
            Outcome::Failed(kind, why) => self.failed(kind, &why, now),
        }
    }

    fn keep_handle(&mut self, handle: HandleBytes) -> bool {
        let Some(held) = &mut self.held else { return false };
        held.handle.replace(handle) != held.handle
    }

    fn failed(&mut self, kind: ErrorKind, why: &str, now: Now) -> Follow {
        let wait = restart::backoff_ms(self.failures);
        self.failures = self.failures.saturating_add(1);
        let at_ms = now.mono_ms.saturating_add(wait);
        match self.phase {
            Phase::Idle { .. } | Phase::Prepared => {
                let hopeless = !kind.is_retryable()
                    || (!self.has_run
                        && (kind == ErrorKind::Exhausted || self.failures >= PREPARES_MAX));
                if hopeless && self.desired.is_some() {
                    return self.refuse(why, now);
                }
                // What a failed attempt has left is cleared away before the next.
                self.phase = Phase::Ended { at_ms };
                self.set_state(InstanceState::Failed, why, now);
            }
            Phase::Running | Phase::Unseen { .. } => {
                // Stopping or recovering failed: the state is not known, so ask again.
                self.phase = Phase::Unseen { at_ms };
                self.set_state(InstanceState::Unknown, why, now);
            }
            Phase::Ended { .. } | Phase::Over => {
                self.phase = Phase::Ended { at_ms };
                self.set_state(InstanceState::Failed, why, now);
            }
            // It stays as it is and is cleared away when it is removed or wanted again.
            Phase::Refused => self.phase = Phase::Over,
        }
        REPORT
    }

    /// Says no to the cluster, which will take it away again.
    pub(crate) fn refuse(&mut self, why: &str, now: Now) -> Follow {
        self.phase = Phase::Refused;
        self.set_state(InstanceState::Refused, why, now);
        REPORT
    }

    /// The backend's word on what exists.
    pub(crate) fn observed(&mut self, observed: Observed, now: Now) -> Follow {
        match observed {
            Observed::Running { .. } => {
                if self.phase != Phase::Running {
                    self.running_since_ms = now.mono_ms;
                }
                self.phase = Phase::Running;
                self.has_run = true;
                self.set_state(InstanceState::Running, "", now);
                REPORT
            }
            Observed::Prepared => {
                self.phase = Phase::Prepared;
                self.set_state(InstanceState::Created, "", now);
                REPORT
            }
            Observed::Exited(exit) => self.exited(&exit, now),
            Observed::Absent => {
                self.held = None;
                match self.phase {
                    Phase::Running | Phase::Unseen { .. } => {
                        let at_unix_ms = now.unix_ms;
                        self.exited(&Exit { reason: ExitReason::Lost, at_unix_ms }, now)
                    }
                    Phase::Prepared => {
                        self.phase = Phase::Idle { at_ms: now.mono_ms };
                        REPORT
                    }
                    Phase::Ended { at_ms } => {
                        self.phase = Phase::Idle { at_ms };
                        REPORT
                    }
                    Phase::Idle { .. } | Phase::Over | Phase::Refused => QUIET,
                }
            }
            Observed::Unknown(why) => {
                let wait = restart::backoff_ms(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.phase = Phase::Unseen { at_ms: now.mono_ms.saturating_add(wait) };
                self.set_state(InstanceState::Unknown, &why, now);
                REPORT
            }
        }
    }

    /// The workload has ended by itself.
    pub(crate) fn exited(&mut self, exit: &Exit, now: Now) -> Follow {
        if self.busy {
            self.early_exit = Some(exit.clone());
            return QUIET;
        }
        if !matches!(self.phase, Phase::Running | Phase::Unseen { .. }) {
            return QUIET;
        }
        self.status.exit = Some(cause(exit.reason));
        let Some(workload) = &self.desired else {
            self.wait_until(now.mono_ms);
            return QUIET;
        };
        let ran_ms = now.mono_ms.saturating_sub(self.running_since_ms);
        if self.phase == Phase::Running && ran_ms >= restart::STABLE_MS {
            self.failures = 0;
        }
        let text = describe(exit.reason);
        match restart::judge(&workload.spec, exit.reason, self.failures) {
            Verdict::Again { wait_ms } => {
                if exit.reason != ExitReason::Lost {
                    self.failures = self.failures.saturating_add(1);
                }
                self.status.restarts = self.status.restarts.saturating_add(1);
                let at_ms = now.mono_ms.saturating_add(wait_ms);
                self.wait_until(at_ms);
                self.set_state(InstanceState::Failed, &text, now);
                REPORT
            }
            Verdict::Completed => {
                self.phase = Phase::Over;
                self.set_state(InstanceState::Completed, &text, now);
                PERSIST
            }
            Verdict::Dead => {
                self.phase = Phase::Over;
                self.set_state(InstanceState::Dead, &text, now);
                REPORT
            }
        }
    }

    /// A preparation goes on.
    pub(crate) fn progress(&mut self, done: u64, all: u64, now: Now) -> Follow {
        let due = self.progress_told_ms.saturating_add(PROGRESS_INTERVAL_MS) <= now.mono_ms;
        if self.status.state != InstanceState::Creating || !due {
            return QUIET;
        }
        self.progress_told_ms = now.mono_ms;
        let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
        let text = match all {
            0 => format!("fetched {} MiB", mib(done)),
            _ => format!("fetched {} of {} MiB", mib(done), mib(all)),
        };
        self.set_state(InstanceState::Creating, &text, now);
        REPORT
    }
}

fn cause(reason: ExitReason) -> ExitCause {
    match reason {
        ExitReason::Code(code) => ExitCause::Code(code),
        ExitReason::Signal(signal) => ExitCause::Signal(signal),
        ExitReason::OutOfMemory => ExitCause::OutOfMemory,
        ExitReason::Lost => ExitCause::Lost,
    }
}

fn describe(reason: ExitReason) -> String {
    match reason {
        ExitReason::Code(code) => format!("ended with code {code}"),
        ExitReason::Signal(signal) => format!("killed by signal {signal}"),
        ExitReason::OutOfMemory => "killed for its memory limit".into(),
        ExitReason::Lost => "was gone without a trace".into(),
    }
}
