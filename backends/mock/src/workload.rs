//! One scripted workload: a state machine over virtual time.
//!
//! ```text
//!  prepared ── start ──► running ── end of the script, signal, kill ──► exited
//! ```

use crate::output::Output;
use crate::script::{OnTerm, Script};
use marram_backend_api::{Exit, ExitReason, Observed, Spec, Usage};
use std::time::Duration;

/// Which kernel signal kills for sure.
pub(crate) const KILL: i32 = 9;

/// Which one asks.
pub(crate) const TERM: i32 = 15;

/// Memory of a workload that eats none.
const MEMORY_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone)]
pub(crate) enum State {
    Prepared,
    Running { pid: u32, started: Duration, paused: bool },
    Exited(Exit),
}

#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) spec: Spec,
    pub(crate) script: Script,
    pub(crate) incarnation: u64,
    pub(crate) state: State,
    pub(crate) output: Output,
    /// How long it has run, without pauses.
    ran: Duration,
    ticks_printed: u64,
    /// A signal that came while it was paused.
    pending: Option<i32>,
}

impl Workload {
    pub(crate) fn new(spec: &Spec, script: Script, incarnation: u64) -> Self {
        Self {
            spec: spec.clone(),
            script,
            incarnation,
            state: State::Prepared,
            output: Output::new(spec.log_bytes_max),
            ran: Duration::ZERO,
            ticks_printed: 0,
            pending: None,
        }
    }

    pub(crate) fn start(&mut self, pid: u32, now: Duration) {
        self.state = State::Running { pid, started: now, paused: false };
        self.output.push(&self.script.output.clone());
        let pids_max = self.spec.resources.pids_max.map_or(u32::MAX, |max| max.saturating_sub(1));
        if self.script.eats_memory && self.spec.resources.memory_bytes_max.is_some() {
            self.exit(ExitReason::OutOfMemory, now);
        } else if self.script.forks > pids_max {
            self.exit(ExitReason::Code(2), now);
        } else if self.script.forks > 0 {
            self.output.push("forked\n");
        }
        self.advance(Duration::ZERO, now);
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, by: Duration, now: Duration) {
        if !matches!(self.state, State::Running { paused: false, .. }) {
            return;
        }
        self.ran += by;
        if let Some((name, every)) = self.script.ticks.clone() {
            let due = self.ran.as_millis() / every.as_millis().max(1);
            while u128::from(self.ticks_printed) <= due {
                self.output.push(&format!("{name} {}\n", self.ticks_printed));
                self.ticks_printed += 1;
            }
        }
        if self.script.run_for.is_some_and(|run_for| self.ran >= run_for) {
            self.exit(ExitReason::Code(self.script.exit_code), now);
        }
    }

    pub(crate) fn exit(&mut self, reason: ExitReason, now: Duration) {
        let at_unix_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.state = State::Exited(Exit { reason, at_unix_ms });
    }

    pub(crate) fn signal(&mut self, signal: i32, now: Duration) {
        match self.state {
            State::Running { paused: true, .. } if signal != KILL => self.pending = Some(signal),
            State::Running { .. } => match (signal, self.script.on_term) {
                (TERM, OnTerm::Ignore) => {}
                (TERM, OnTerm::End(reason)) => self.exit(reason, now),
                _ => self.exit(ExitReason::Signal(signal), now),
            },
            State::Prepared | State::Exited(_) => {}
        }
    }

    /// Freezes or thaws; tells whether it runs.
    pub(crate) fn pause(&mut self, pause: bool, now: Duration) -> bool {
        let State::Running { paused, .. } = &mut self.state else { return false };
        *paused = pause;
        if !pause && let Some(signal) = self.pending.take() {
            self.signal(signal, now);
        }
        true
    }

    pub(crate) fn observed(&self) -> Observed {
        match &self.state {
            State::Prepared => Observed::Prepared,
            State::Running { pid, started, paused } => Observed::Running {
                pid: *pid,
                started_unix_ms: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
                paused: *paused,
            },
            State::Exited(exit) => Observed::Exited(exit.clone()),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let share = u128::from(self.spec.resources.cpu_millicores_max.unwrap_or(1000).min(1000));
        let used = if self.script.spins { self.ran.as_micros() * share / 1000 } else { 0 };
        Usage {
            cpu_usec: u64::try_from(used).unwrap_or(u64::MAX),
            memory_bytes: MEMORY_BYTES,
            pids: self.script.forks + 1,
            ..Usage::default()
        }
    }
}
