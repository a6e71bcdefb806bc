//! When a workload that has ended is started again, and when no more.
//!
//! One that ran long enough starts anew with a clean record; one that fails again and again
//! waits twice as long each time, so that a broken image does not wear out a flash disk; one
//! that has used up its budget is reported dead and left to whoever is above.

use marram_backend_api::ExitReason;
use marram_protocol::v1::{RestartPolicy, ServiceSpec};

/// Wait before the first restart.
pub const BACKOFF_FIRST_MS: u64 = 500;

/// Longest wait: a remote fault that lasts hours is noticed within minutes of its end.
pub const BACKOFF_MAX_MS: u64 = 300_000;

/// A run of at least this long ends a row of failures.
pub const STABLE_MS: u64 = 60_000;

/// Failures in a row before it is dead: with the waits above about 25 minutes.
pub const FAILURES_MAX: u32 = 12;

/// What follows from an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start again after so long.
    Again { wait_ms: u64 },
    /// It has done what it should.
    Completed,
    /// It may not be started again here.
    Dead,
}

/// Wait before attempt number `failures` + 1.
pub(crate) fn backoff_ms(failures: u32) -> u64 {
    BACKOFF_FIRST_MS.saturating_mul(1 << failures.min(20)).min(BACKOFF_MAX_MS)
}

/// Judges an exit; `failures` counts those in a row before it.
pub(crate) fn judge(spec: &ServiceSpec, reason: ExitReason, failures: u32) -> Verdict {
    let policy = if spec.one_shot && spec.restart == RestartPolicy::Always {
        RestartPolicy::OnFailure
    } else {
        spec.restart
    };
    // A host that went down under a workload is no fault of it: it starts at once and is never
    // given up. One that is lost again and again waits all the same, or it would spin.
    let lost = reason == ExitReason::Lost;
    match (policy, reason.is_success()) {
        (RestartPolicy::OnFailure | RestartPolicy::Never, true) => Verdict::Completed,
        (RestartPolicy::Never, false) => Verdict::Dead,
        (RestartPolicy::Always | RestartPolicy::OnFailure, _) if lost => {
            Verdict::Again { wait_ms: failures.checked_sub(1).map_or(0, backoff_ms) }
        }
        (RestartPolicy::Always | RestartPolicy::OnFailure, _) if failures >= FAILURES_MAX => {
            Verdict::Dead
        }
        (RestartPolicy::Always | RestartPolicy::OnFailure, _) => {
            Verdict::Again { wait_ms: backoff_ms(failures) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ExitReason::{Code, Lost, OutOfMemory, Signal};
    use RestartPolicy::{Always, Never, OnFailure};

    #[test]
    fn exits_are_judged_by_policy() {
        let again = |wait_ms| Verdict::Again { wait_ms };
        let table = [
            (false, Always, Code(0), 0, again(500)),
            (false, Always, Code(1), 1, again(1000)),
            (false, Always, Signal(9), 9, again(256_000)),
            (false, Always, OutOfMemory, 11, again(BACKOFF_MAX_MS)),
            (false, Always, Code(1), FAILURES_MAX, Verdict::Dead),
            (false, Always, Lost, 0, again(0)),
            (false, Always, Lost, 1, again(500)),
            (false, Always, Lost, FAILURES_MAX + 1, again(BACKOFF_MAX_MS)),
            (true, Always, Code(0), 0, Verdict::Completed),
            (true, Always, Code(1), 0, again(500)),
            (false, OnFailure, Code(0), 0, Verdict::Completed),
            (false, OnFailure, Signal(15), 0, again(500)),
            (false, Never, Code(0), 0, Verdict::Completed),
            (false, Never, Code(1), 0, Verdict::Dead),
            (true, Never, Lost, 0, Verdict::Dead),
        ];
        for (one_shot, restart, reason, failures, expected) in table {
            let spec = ServiceSpec { one_shot, restart, ..ServiceSpec::default() };
            let verdict = judge(&spec, reason, failures);
            assert_eq!(verdict, expected, "{one_shot} {restart:?} {reason:?} {failures}");
        }
    }
}
