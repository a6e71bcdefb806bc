//! What containerd says of a task, in the contract's words.
//!
//! ```text
//!  no task, no mark ─► prepared          stopped ─► exited
//!  created          ─► prepared          no task, but the mark that it was started ─► exited,
//!  running, paused  ─► running             as marram-shim wrote down, or else lost
//!                                        anything else ─► unknown
//! ```
//!
//! Why a task may be gone though nobody removed it: its host was restarted; or containerd was,
//! which since 1.7 takes the shim of a program that ended meanwhile for a leaked one.

use crate::backend::{Inner, Started};
use crate::rpc::{QUICK, found};
use containerd_client::services::v1::{DeleteTaskRequest, GetRequest, KillRequest, WaitRequest};
use containerd_client::types::v1::{Process, Status};
use marram_backend_api::{Exit, ExitReason, Observed, Result, WorkloadId};
use marram_shim::witness::TaskEnd;
use std::time::Duration;

/// SIGKILL, the same on every architecture.
pub(crate) const KILL: u32 = 9;

/// Programs that die by a signal have this much added to its number.
const SIGNAL_OFFSET: u32 = 128;

/// Highest signal number of Linux.
const SIGNAL_MAX: u32 = 64;

/// What `list` and `recover` say of a workload whose container exists.
pub(crate) fn observed(inner: &Inner, id: &WorkloadId, task: Option<&Process>) -> Observed {
    let Some(task) = task else {
        return match inner.started(id) {
            None => Observed::Prepared,
            Some(started) => Observed::Exited(gone(inner, id, started)),
        };
    };
    match task.status() {
        Status::Created => Observed::Prepared,
        status @ (Status::Running | Status::Paused | Status::Pausing) => Observed::Running {
            pid: task.pid,
            started_unix_ms: inner.started(id).map_or(0, |started| started.unix_ms),
            paused: status != Status::Running,
        },
        Status::Stopped => {
            Observed::Exited(exit(inner, id, task.exit_status, task.exited_at.as_ref()))
        }
        Status::Unknown => Observed::Unknown("its containerd shim does not answer".into()),
    }
}

/// How a started workload ended that has no task any more.
pub(crate) fn gone(inner: &Inner, id: &WorkloadId, started: Started) -> Exit {
    let Some(end) = TaskEnd::of(&inner.folder(id), started.pid) else {
        return Exit { reason: ExitReason::Lost, at_unix_ms: 0 };
    };
    let reason = match reason(end.status) {
        ExitReason::Signal(9) if end.memory_kills > 0 => ExitReason::OutOfMemory,
        other => other,
    };
    Exit { reason, at_unix_ms: end.at_unix_ms }
}

/// How a task ended. 137 together with a kill for memory is the kernel's doing; whether a
/// program itself returned a number above 128 or died by a signal cannot be told.
pub(crate) fn exit(
    inner: &Inner,
    id: &WorkloadId,
    status: u32,
    at: Option<&prost_types::Timestamp>,
) -> Exit {
    let killed = || {
        inner.listener.was_out_of_memory(id.as_str())
            || inner.cgroups.memory_kills(&inner.cgroup(id)) > 0
    };
    let reason = match reason(status) {
        ExitReason::Signal(9) if killed() => ExitReason::OutOfMemory,
        other => other,
    };
    Exit { reason, at_unix_ms: crate::time::unix_ms(at) }
}

/// How an exec ended. Kills for memory are counted per workload, not per program.
pub(crate) fn exec_exit(status: u32, at: Option<&prost_types::Timestamp>) -> Exit {
    Exit { reason: reason(status), at_unix_ms: crate::time::unix_ms(at) }
}

fn reason(status: u32) -> ExitReason {
    match status.checked_sub(SIGNAL_OFFSET) {
        Some(signal @ 1..=SIGNAL_MAX) => ExitReason::Signal(i32::try_from(signal).unwrap_or(0)),
        _ => ExitReason::Code(i32::try_from(status).unwrap_or(i32::MAX)),
    }
}

/// The task of a workload, if it has one.
pub(crate) async fn get(inner: &Inner, id: &WorkloadId) -> Result<Option<Process>> {
    let request = GetRequest { container_id: id.as_str().into(), exec_id: String::new() };
    let answer = inner.rpc.tasks().await?.get(inner.rpc.request(QUICK, request)).await;
    Ok(found("asking for the task", answer)?.and_then(|answer| answer.into_inner().process))
}

/// Sends a signal to a task's first process, or to an exec's. What has ended takes none.
pub(crate) async fn kill(inner: &Inner, id: &str, exec_id: &str, signal: u32) -> Result<()> {
    let request =
        KillRequest { container_id: id.into(), exec_id: exec_id.into(), signal, all: false };
    let answer = inner.rpc.tasks().await?.kill(inner.rpc.request(QUICK, request)).await;
    match found("sending a signal", answer) {
        // Between a process's end and containerd's hearing of it.
        Err(error)
            if error.why.contains("process already finished")
                || error.why.contains("is not running") =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Waits for the end of a task or exec; `None` after `limit`, or if it is not there.
pub(crate) async fn wait(
    inner: &Inner,
    id: &str,
    exec_id: &str,
    limit: Duration,
) -> Result<Option<(u32, Option<prost_types::Timestamp>)>> {
    let request = WaitRequest { container_id: id.into(), exec_id: exec_id.into() };
    let mut client = inner.rpc.tasks().await?;
    let answer = client.wait(inner.rpc.endless(request));
    match tokio::time::timeout(limit, answer).await {
        Err(_) => Ok(None),
        Ok(answer) => {
            let answer = found("waiting for the end", answer)?.map(|answer| answer.into_inner());
            Ok(answer.map(|answer| (answer.exit_status, answer.exited_at)))
        }
    }
}

/// Removes a stopped task with its shim, mounts and cgroup.
pub(crate) async fn delete(inner: &Inner, id: &WorkloadId) -> Result<()> {
    let request = DeleteTaskRequest { container_id: id.as_str().into() };
    let request = inner.rpc.request(crate::rpc::RUNTIME, request);
    let answer = inner.rpc.tasks().await?.delete(request).await;
    found("removing the task", answer).map(drop)
}

/// The number of a signal as images name it: `SIGQUIT`, `QUIT` or `3`; SIGTERM if it is
/// none that is known.
pub(crate) fn signal_number(name: Option<&str>) -> u32 {
    const TERM: u32 = 15;
    const NAMES: &[(&str, u32)] = &[
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", KILL),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", TERM),
        ("WINCH", 28),
        ("PWR", 30),
    ];
    let Some(name) = name.map(str::trim) else { return TERM };
    if let Ok(number @ 1..=SIGNAL_MAX) = name.parse() {
        return number;
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    // Counted from 34, as C libraries do: they keep the first two for themselves.
    if let Some(Ok(above @ 0..=30)) = bare.strip_prefix("RTMIN+").map(str::parse::<u32>) {
        return 34 + above;
    }
    NAMES.iter().find(|(known, _)| *known == bare).map_or(TERM, |(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_signals_are_told_apart() {
        let cases = [
            (0, ExitReason::Code(0)),
            (1, ExitReason::Code(1)),
            (128, ExitReason::Code(128)),
            (137, ExitReason::Signal(9)),
            (143, ExitReason::Signal(15)),
            (192, ExitReason::Signal(64)),
            (193, ExitReason::Code(193)),
            (255, ExitReason::Code(255)),
        ];
        for (status, expected) in cases {
            assert_eq!(reason(status), expected, "{status}");
        }
    }

    #[test]
    fn stop_signals_are_read() {
        let cases = [
            (None, 15),
            (Some("SIGQUIT"), 3),
            (Some("quit"), 3),
            (Some("9"), 9),
            (Some("SIGRTMIN+3"), 37),
            (Some("SIGNOPE"), 15),
            (Some("99"), 15),
        ];
        for (name, expected) in cases {
            assert_eq!(signal_number(name), expected, "{name:?}");
        }
    }
}
