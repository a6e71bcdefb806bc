//! The suite that every backend passes: the contract of [`crate::Backend`] as running checks.
//!
//! Why here: a rule that is only prose is kept by nobody. A backend's test file gives a
//! [`Harness`] and gets one test per case:
//!
//! ```ignore
//! struct Mine { /* directory, socket, … */ }
//! impl marram_backend_api::conformance::Harness for Mine { /* … */ }
//! marram_backend_api::conformance_tests!(Mine::new().await);
//! ```
//!
//! The test crate needs `tokio` with `macros`, `rt-multi-thread` and `time`. A case ends by
//! a panic that says what was wrong. Nothing here sleeps to let something happen: a case
//! waits for events, or for a condition with a deadline.
//!
//! Invariants:
//! - each case uses ids of its own, so that cases run side by side on one host;
//! - each case destroys what it made and then asks the harness whether anything remains.

mod exec;
mod exits;
mod interrupt;
mod kill;
mod lifecycle;
mod limits;
mod logs;
mod pause;
mod restart;
mod scene;

use crate::{Backend, BoxFuture, Spec, WorkloadId};
use std::sync::Arc;

/// What a test workload does. Each is a few lines of POSIX shell, see [`Program::script`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Ends at once with this code.
    Exit(i32),
    /// Prints `ready` and runs until SIGTERM, then ends with this code; leaves a child behind
    /// that the backend has to take away.
    UntilTerm(i32),
    /// Prints `ready` and ignores SIGTERM.
    IgnoreTerm,
    /// Prints `line 0` to `line N-1` and ends with 0.
    Lines(u32),
    /// Prints `tick N` about fifty times a second, for ever.
    Ticks,
    /// Prints `to-stdout` and, on the other output, `to-stderr`; ends with 0.
    BothOutputs,
    /// Takes memory without end.
    EatMemory,
    /// Computes without end and prints `spun` now and then.
    SpinCpu,
    /// Prints `MARRAM_TEST=…` and `cwd=…`, ends with 0.
    PrintEnvironment,
    /// Starts this many children, then prints `forked` and waits for ever; a failing fork
    /// ends it with a code other than 0.
    Fork(u32),
}

impl Program {
    /// The program as text for `sh -c`; needs `sleep` with fractions of a second besides.
    pub fn script(self) -> String {
        match self {
            Self::Exit(code) => format!("exit {code}"),
            Self::UntilTerm(code) => format!(
                "trap 'exit {code}' TERM; sleep 1000 & echo ready; \
                 while :; do wait $!; sleep 1000 & done"
            ),
            Self::IgnoreTerm => "trap '' TERM; echo ready; while :; do sleep 1000; done".into(),
            Self::Lines(count) => {
                format!("i=0; while [ $i -lt {count} ]; do echo \"line $i\"; i=$((i+1)); done")
            }
            Self::Ticks => "i=0; while :; do echo \"tick $i\"; i=$((i+1)); sleep 0.02; done".into(),
            Self::BothOutputs => "echo to-stdout; echo to-stderr >&2".into(),
            Self::EatMemory => "x=0123456789abcdef; while :; do x=$x$x; done".into(),
            Self::SpinCpu => "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; \
                              echo spun; done"
                .into(),
            Self::PrintEnvironment => "echo \"MARRAM_TEST=$MARRAM_TEST\"; echo \"cwd=$PWD\"".into(),
            Self::Fork(count) => format!(
                "i=0; while [ $i -lt {count} ]; do sleep 1000 & i=$((i+1)); done; echo forked; \
                 wait"
            ),
        }
    }
}

/// What the suite needs to know of a backend and its host.
pub trait Harness: Send + Sync {
    /// A new object over the same state, as after a restart of the engine. Objects made
    /// before may still exist, or may have been dropped at any point.
    fn backend(&self) -> BoxFuture<'_, Arc<dyn Backend>>;

    /// A specification that runs `program`, valid here, without limits, keeping 1 MiB of
    /// output. The suite sets further fields on it.
    fn spec(&self, program: Program) -> Spec;

    /// The whole id for a case's short name (at most 30 bytes). Default: the name itself,
    /// for harnesses that have the host, or a namespace of it, to themselves.
    fn id(&self, name: &str) -> WorkloadId {
        WorkloadId::new(name).expect("names of cases are ids")
    }

    /// Whether this host should enforce a limit: `memory`, `cpu` or `pids`. The suite
    /// compares it with the fingerprint.
    fn enforces(&self, limit: &str) -> bool;

    /// Sends a signal to a workload from outside the backend. `pid` is as observed.
    fn signal(&self, id: &WorkloadId, pid: u32, signal: i32) {
        let _ = id;
        let status = std::process::Command::new("sh")
            .args(["-c", &format!("kill -{signal} {pid}")])
            .status()
            .expect("a host has sh");
        assert!(status.success(), "kill -{signal} {pid} failed");
    }

    /// Whether the process of a workload still exists, told without the backend.
    fn alive(&self, id: &WorkloadId, pid: u32) -> bool {
        let _ = id;
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    /// Everything that is still on the host of this workload, one line each: processes,
    /// cgroups, mounts, files, snapshots. Empty after `destroy`.
    fn remains<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Vec<String>>;

    /// Whether commands of the `exec` cases exist in the workload: `sh`, `cat`.
    fn has_shell(&self) -> bool {
        true
    }
}

/// One check of the contract.
pub type Case = for<'a> fn(&'a dyn Harness) -> BoxFuture<'a, ()>;

macro_rules! cases {
    ($($(#[doc = $doc:literal])+ $name:ident = $path:path;)+) => {
        /// Every case by name.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($name), |h| Box::pin($path(h)))),+];

        /// One `#[tokio::test]` per case of the suite; the expression makes the [`Harness`]
        /// and may await.
        #[macro_export]
        macro_rules! conformance_tests {
            ($harness:expr) => {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $name() {
                        let harness = $harness;
                        $crate::conformance::run(stringify!($name), &harness).await;
                    }
                )+
            };
        }
    };
}

cases! {
    /// Prepare, start, stop, destroy, and what is observed in between.
    lifecycle_happy_path = lifecycle::happy_path;
    /// Each verb done twice ends in the same place.
    every_verb_twice = lifecycle::every_verb_twice;
    /// Stop and destroy of what is absent succeed; start of it does not.
    verbs_on_the_absent = lifecycle::absent;
    /// Destroy of a running workload takes it away, children too.
    destroy_while_running = lifecycle::destroy_running;
    /// An id that exists refuses another specification.
    two_of_one_id = lifecycle::two_of_one_id;
    /// Validate touches nothing and refuses what cannot be honoured.
    validate_touches_nothing = lifecycle::validate;
    /// List shows exactly what is ours.
    list_is_exact = lifecycle::list;
    /// Capabilities agree with the optional faces, the fingerprint with the harness.
    says_what_it_can = lifecycle::says_what_it_can;
    /// A program that does not exist is an error of start or prepare, and leaves nothing.
    unknown_program = lifecycle::unknown_program;
    /// Environment and working directory arrive.
    environment_and_directory = lifecycle::environment;
    /// Codes are told, 0 and others.
    exit_codes = exits::codes;
    /// Signals are told apart from codes.
    exit_by_signal = exits::signal;
    /// Stop lets the program end by itself within its grace.
    stop_with_grace = exits::stop_with_grace;
    /// Stop forces what ignores it, and not before the grace has passed.
    stop_by_force = exits::stop_by_force;
    /// An ended workload is not started again.
    start_after_end = exits::start_after_end;
    /// A running workload survives a new backend object, which then hears of its exit.
    exit_after_restart_is_pushed = restart::exit_after_restart;
    /// What ended while no engine was there is known afterwards.
    exit_without_engine_is_known = restart::exit_without_engine;
    /// A prepared workload is known after a restart and can be started.
    prepared_survives_restart = restart::prepared;
    /// Handles of another layout or of nothing are answered, never guessed.
    strange_handles = restart::strange_handles;
    /// A prepare that was dropped at any await is repaired by the next one.
    interrupted_prepare = interrupt::prepare;
    /// The same for start.
    interrupted_start = interrupt::start;
    /// The same for stop.
    interrupted_stop = interrupt::stop;
    /// The same for destroy.
    interrupted_destroy = interrupt::destroy;
    /// An engine killed while it prepares and starts leaves what the next one finishes or clears.
    killed_on_the_way_up = kill::on_the_way_up;
    /// The same for one that stops and destroys.
    killed_on_the_way_down = kill::on_the_way_down;
    /// Output is read by cursor, in pieces of any size.
    logs_by_cursor = logs::by_cursor;
    /// Both outputs are kept.
    logs_of_both_outputs = logs::both_outputs;
    /// Output is bounded, cursors stay true when the oldest is dropped.
    logs_are_bounded = logs::bounded;
    /// The last lines are found.
    logs_tail = logs::tail;
    /// Waiting ends by new output, and by the end of the workload.
    logs_follow = logs::follow;
    /// Output is whole across a restart of the engine.
    logs_across_restart = logs::across_restart;
    /// Exec: output, both streams, exit code, input, environment.
    exec_output_and_code = exec::output_and_code;
    /// Exec reads its input to the end.
    exec_input = exec::input;
    /// Exec of what does not exist is `NotFound`; in what does not run as well.
    exec_refused = exec::refused;
    /// Dropping an exec kills it.
    exec_dropped = exec::dropped;
    /// Exec with a terminal.
    exec_terminal = exec::terminal;
    /// Usage grows with what is used.
    usage_is_plausible = limits::usage;
    /// The memory limit kills, and the exit says so.
    memory_limit_kills = limits::memory;
    /// The processor quota throttles.
    cpu_quota_throttles = limits::cpu;
    /// The process limit stops forks.
    pids_limit_holds = limits::pids;
    /// A paused workload makes no progress, a resumed one goes on.
    pause_and_resume = pause::pause_and_resume;
    /// A paused workload can be stopped and destroyed.
    stop_while_paused = pause::stop_while_paused;
    /// A pause survives a restart of the engine.
    pause_survives_restart = pause::across_restart;
}

/// Runs the case of this name; panics with what was wrong.
pub async fn run(name: &str, harness: &dyn Harness) {
    let (_, case) = CASES
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or_else(|| panic!("no case is called {name:?}"));
    case(harness).await;
}
