//! The conformance suite on the mock: with limits that hold, and with limits that do not.

use marram_backend_api::conformance::{Harness, Program};
use marram_backend_api::{Backend, BoxFuture, ExitReason, Observed, Spec, WorkloadId};
use marram_backend_mock::{MockBackend, MockHost, OnTerm, Script};
use std::sync::Arc;
use std::time::Duration;

/// A host whose time is the wall's.
struct Mock {
    host: MockHost,
    enforces: bool,
    clock: tokio::task::AbortHandle,
}

impl Mock {
    fn new(enforces: bool) -> Self {
        let host = MockHost::new();
        if !enforces {
            host.enforce_nothing("it was told not to");
        }
        host.lose_image("mock-and-no-such-thing");
        let ticking = host.clone();
        let clock = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(5));
            let mut last = every.tick().await;
            loop {
                let now = every.tick().await.max(last);
                // Not the tick's nominal time: never ahead of the wall.
                ticking.advance(now - last);
                last = now;
            }
        });
        Self { host, enforces, clock: clock.abort_handle() }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.clock.abort();
    }
}

/// What a shell would make of the program.
fn script(program: Program) -> Script {
    let ends = Script { run_for: Some(Duration::ZERO), ..Script::default() };
    let ready = Script { output: "ready\n".into(), ..Script::default() };
    match program {
        Program::Exit(exit_code) => Script { exit_code, ..ends },
        Program::UntilTerm(code) => {
            Script { on_term: OnTerm::End(ExitReason::Code(code)), ..ready }
        }
        Program::IgnoreTerm => Script { on_term: OnTerm::Ignore, ..ready },
        Program::Lines(count) => {
            let output = (0..count).map(|line| format!("line {line}\n")).collect();
            Script { output, ..ends }
        }
        Program::Ticks => {
            Script { ticks: Some(("tick".into(), Duration::from_millis(20))), ..Script::default() }
        }
        Program::BothOutputs => Script { output: "to-stdout\nto-stderr\n".into(), ..ends },
        Program::EatMemory => Script { eats_memory: true, ..Script::default() },
        Program::SpinCpu => Script {
            spins: true,
            output: "spun\n".into(),
            ticks: Some(("spun".into(), Duration::from_millis(20))),
            ..Script::default()
        },
        Program::PrintEnvironment => {
            Script { output: "MARRAM_TEST=it's \"quoted\" $HOME ü\ncwd=/tmp\n".into(), ..ends }
        }
        Program::Fork(forks) => Script { forks, ..Script::default() },
    }
}

impl Harness for Mock {
    fn backend(&self) -> BoxFuture<'_, Arc<dyn Backend>> {
        let backend: Arc<dyn Backend> = Arc::new(MockBackend::new(self.host.clone()));
        Box::pin(async { backend })
    }

    fn spec(&self, program: Program) -> Spec {
        Spec {
            image: "mock".into(),
            args: script(program).to_arguments(),
            log_bytes_max: 1 << 20,
            ..Spec::default()
        }
    }

    fn enforces(&self, _limit: &str) -> bool {
        self.enforces
    }

    fn signal(&self, id: &WorkloadId, _pid: u32, signal: i32) {
        self.host.signal(id, signal);
    }

    fn alive(&self, id: &WorkloadId, pid: u32) -> bool {
        matches!(self.host.observed(id), Observed::Running { pid: now, .. } if now == pid)
    }

    fn remains<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Vec<String>> {
        let left = match self.host.observed(id) {
            Observed::Absent => Vec::new(),
            other => vec![format!("{other:?}")],
        };
        Box::pin(async { left })
    }

    fn has_shell(&self) -> bool {
        false
    }
}

mod with_limits {
    use super::*;
    marram_backend_api::conformance_tests!(Mock::new(true));
}

mod without_limits {
    use super::*;
    marram_backend_api::conformance_tests!(Mock::new(false));
}
