//! What results and exits mean for a slot.

use super::{FENCED, Follow, PERSIST, Phase, QUIET, REPORT, Slot};
use crate::restart::{self, Verdict};
use crate::{HandleBytes, Now, Outcome};
use marram_backend_api::{ErrorKind, Exit, ExitReason, Observed};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::ExitCause;

/// Attempts to prepare one that never ran here, before another node shall try.
const PREPARES_MAX: u32 = 6;

/// Progress is told this often at most.
const PROGRESS_INTERVAL_MS: u64 = 2_000;

impl Slot {
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
                self.attempts = 0;
                self.running_since_ms = Some(now.mono_ms);
                self.set_state(InstanceState::Running, "", now);
                let persist = self.keep_handle(handle);
                Follow { persist, report: true }
            }
            Outcome::Recovered(observed) => self.observed(observed, now),
            Outcome::Stopped(exit) => {
                self.status.exit = Some(cause(exit.reason));
                self.running_since_ms = None;
                self.phase = Phase::Ended { at_ms: now.mono_ms };
                // Nothing of it is prepared any more. Of one that goes for good the cluster may
                // not hear so before its ports are free, and of any other nothing is there yet.
                match self.desired {
                    None => self.set_state(self.status.state, "stopped, being removed", now),
                    Some(_) => {
                        let detail =
                            if self.fenced { FENCED } else { "stopped, to be started anew" };
                        self.set_state(InstanceState::NodeScheduled, detail, now);
                    }
                }
                REPORT
            }
            Outcome::Destroyed => {
                self.let_go();
                if !matches!(self.phase, Phase::Over | Phase::Refused) {
                    self.phase = Phase::Idle { at_ms: now.mono_ms };
                }
                PERSIST
            }
            Outcome::Failed(kind, why) => self.failed(kind, &why, now),
        }
    }

    fn keep_handle(&mut self, handle: HandleBytes) -> bool {
        let Some(held) = &mut self.held else { return false };
        let handle = Some(handle);
        let changed = held.handle != handle;
        held.handle = handle;
        changed
    }

    fn failed(&mut self, kind: ErrorKind, why: &str, now: Now) -> Follow {
        let wait = restart::backoff_ms(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        let at_ms = now.mono_ms.saturating_add(wait);
        match self.phase {
            Phase::Idle { .. } | Phase::Prepared => {
                let hopeless = !kind.is_retryable()
                    || (!self.has_run
                        && (kind == ErrorKind::Exhausted || self.attempts >= PREPARES_MAX));
                if hopeless && self.is_current() {
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
            Phase::Ended { .. } => {
                self.clearing_failed = true;
                self.phase = Phase::Ended { at_ms };
                self.set_state(InstanceState::Failed, why, now);
            }
            // It stays as it is and is cleared away when it is removed or wanted again.
            Phase::Over | Phase::Refused => self.clearing_failed = true,
        }
        REPORT
    }

    /// Says no to the cluster, which will take it away again.
    pub(super) fn refuse(&mut self, why: &str, now: Now) -> Follow {
        self.phase = Phase::Refused;
        self.set_state(InstanceState::Refused, why, now);
        PERSIST
    }

    /// The backend's word on what exists, asked for by recovering.
    fn observed(&mut self, observed: Observed, now: Now) -> Follow {
        match observed {
            Observed::Running { .. } => {
                self.running_since_ms.get_or_insert(now.mono_ms);
                self.phase = Phase::Running;
                self.has_run = true;
                self.attempts = 0;
                let told = self.status.state == InstanceState::Running;
                self.set_state(InstanceState::Running, "", now);
                if told { QUIET } else { REPORT }
            }
            Observed::Prepared => {
                self.phase = Phase::Prepared;
                self.set_state(InstanceState::Created, "", now);
                REPORT
            }
            Observed::Exited(exit) => self.exited(&exit, now),
            Observed::Absent => {
                let was_current = self.is_current();
                let ran_ms = self.ran_ms(now);
                self.let_go();
                let exit = Exit { reason: ExitReason::Lost, at_unix_ms: now.unix_ms };
                self.ended(&exit, was_current, ran_ms, now)
            }
            Observed::Unknown(why) => {
                let wait = restart::backoff_ms(self.attempts);
                self.attempts = self.attempts.saturating_add(1);
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
        let ran_ms = self.ran_ms(now);
        self.ended(exit, self.is_current(), ran_ms, now)
    }

    /// How long it has been seen running; `None` if this engine never saw it.
    fn ran_ms(&self, now: Now) -> Option<u64> {
        self.running_since_ms.map(|since| now.mono_ms.saturating_sub(since))
    }

    fn ended(&mut self, exit: &Exit, current: bool, ran_ms: Option<u64>, now: Now) -> Follow {
        self.status.exit = Some(cause(exit.reason));
        self.running_since_ms = None;
        // Of one that is to go or to be replaced, the end decides nothing.
        let Some(workload) = self.desired.as_ref().filter(|_| current) else {
            self.wait_until(now.mono_ms);
            return QUIET;
        };
        if ran_ms.is_some_and(|ms| ms >= restart::STABLE_MS) {
            self.failures = 0;
        }
        let text = describe(exit.reason);
        match restart::judge(&workload.spec, exit.reason, self.failures) {
            Verdict::Again { wait_ms } => {
                // A host that went down under it is no failure of the workload.
                if exit.reason != ExitReason::Lost || ran_ms.is_some() {
                    self.failures = self.failures.saturating_add(1);
                }
                self.status.restarts = self.status.restarts.saturating_add(1);
                self.wait_until(now.mono_ms.saturating_add(wait_ms));
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
                PERSIST
            }
        }
    }

    /// A preparation goes on.
    pub(crate) fn progress(&mut self, done: u64, all: u64, now: Now) -> Follow {
        let told = self.progress_told_ms;
        let due = told.is_none_or(|ms| ms.saturating_add(PROGRESS_INTERVAL_MS) <= now.mono_ms);
        if self.status.state != InstanceState::Creating || !due {
            return QUIET;
        }
        self.progress_told_ms = Some(now.mono_ms);
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
