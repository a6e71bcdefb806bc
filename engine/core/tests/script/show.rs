//! Effects in words.

use marram_engine_core::Effect;
use marram_protocol::v1::{ExitCause, Generation, InstanceStatus, Scope, Up};

/// One line for an effect.
pub(crate) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Persist { generation, .. } => format!("persist {generation}"),
        Effect::Prepare { backend, workload } => {
            let (number, revision) = (workload.instance.number, workload.revision);
            format!("prepare {number} revision {revision} on {backend}")
        }
        Effect::Start { backend, instance, .. } => {
            format!("start {} on {backend}", instance.number)
        }
        Effect::Recover { backend, instance, .. } => {
            format!("recover {} on {backend}", instance.number)
        }
        Effect::Stop { backend, instance, grace_ms } => {
            format!("stop {} on {backend}, {grace_ms} ms of grace", instance.number)
        }
        Effect::Destroy { backend, instance } => {
            format!("destroy {} on {backend}", instance.number)
        }
        Effect::Send(message) => format!("send {}", up(message)),
        Effect::Drained => "drained".into(),
    }
}

fn up(message: &Up) -> String {
    match message {
        Up::Hello(hello) => {
            let memory = hello.summary.capacity.memory_mib;
            format!("hello, {} MiB, holding {}", memory, generation(hello.generation))
        }
        Up::Observed { generation: held, scope, statuses } => {
            let scope = match scope {
                Scope::Change => "observed",
                Scope::Snapshot { .. } => "snapshot",
            };
            let statuses: Vec<String> = statuses.iter().map(status).collect();
            format!("{scope} under {}: [{}]", generation(*held), statuses.join("; "))
        }
        Up::Resync(held) => format!("resync, holding {}", generation(*held)),
        Up::Fetch { instances, .. } => {
            let numbers: Vec<u32> = instances.iter().map(|id| id.number).collect();
            format!("fetch {numbers:?}")
        }
        Up::Summary(summary) => format!("summary, {} MiB", summary.capacity.memory_mib),
        Up::Telemetry(telemetry) => {
            let usage = |u: &marram_protocol::v1::WorkloadUsage| {
                format!("{}={} MiB", u.instance.number, u.memory_mib)
            };
            let usages: Vec<String> = telemetry.workloads.iter().map(usage).collect();
            let (sequence, cpu) = (telemetry.sequence, telemetry.cpu_permille);
            format!("telemetry {sequence}: cpu {cpu}, [{}]", usages.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn generation(generation: Generation) -> String {
    match generation.epoch {
        0 => "nothing".into(),
        epoch => format!("{epoch}/{}", generation.number),
    }
}

fn status(status: &InstanceStatus) -> String {
    let mut text =
        format!("{} r{} {}", status.instance.number, status.revision, status.state.name());
    if !status.detail.is_empty() {
        text.push_str(&format!(" {:?}", status.detail));
    }
    if status.restarts > 0 {
        text.push_str(&format!(", restarts {}", status.restarts));
    }
    match status.exit {
        None => {}
        Some(ExitCause::Code(code)) => text.push_str(&format!(", code {code}")),
        Some(ExitCause::Signal(signal)) => text.push_str(&format!(", signal {signal}")),
        Some(ExitCause::OutOfMemory) => text.push_str(", out of memory"),
        Some(ExitCause::Lost) => text.push_str(", lost"),
    }
    text
}
