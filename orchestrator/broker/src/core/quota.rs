//! Two token buckets per client: messages and bytes.
//!
//! Apart from the connection because it is arithmetic over a time that is handed in.
//! Invariant: over any span a client gets at most the rate times the span plus one burst, plus
//! the one packet that took it below zero.

use super::Millis;
use crate::config::Quota;

/// What is left of a client's quota, in thousandths so that short spans are not rounded away.
#[derive(Debug)]
pub(crate) struct Buckets {
    quota: Quota,
    messages_milli: i64,
    bytes_milli: i64,
    filled_at: Millis,
}

impl Buckets {
    /// Full buckets.
    pub(crate) fn new(quota: Quota, now: Millis) -> Self {
        let full = |rate: u32| i64::from(rate) * i64::from(quota.burst_s) * 1000;
        Self {
            messages_milli: full(quota.messages_per_s),
            bytes_milli: full(quota.bytes_per_s),
            quota,
            filled_at: now,
        }
    }

    /// Takes one message of a size out. It may go below zero; the next one then has to wait.
    pub(crate) fn charge(&mut self, now: Millis, bytes: usize) {
        self.fill(now);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 1000);
        self.messages_milli -= 1000;
        self.bytes_milli = self.bytes_milli.saturating_sub(bytes.saturating_mul(1000));
    }

    /// When the next message may come; none if at once.
    pub(crate) fn blocked_until(&mut self, now: Millis) -> Option<Millis> {
        self.fill(now);
        let wait = |have: i64, rate: u32| {
            // At `rate` a second a bucket gains `rate` thousandths a millisecond.
            (-have).max(0).unsigned_abs().div_ceil(u64::from(rate.max(1)))
        };
        let wait_ms = wait(self.messages_milli, self.quota.messages_per_s)
            .max(wait(self.bytes_milli, self.quota.bytes_per_s));
        (wait_ms > 0).then(|| now + wait_ms)
    }

    fn fill(&mut self, now: Millis) {
        let span = i64::try_from(now.saturating_sub(self.filled_at)).unwrap_or(i64::MAX);
        self.filled_at = self.filled_at.max(now);
        let fill = |have: i64, rate: u32| {
            let full = i64::from(rate) * i64::from(self.quota.burst_s) * 1000;
            have.saturating_add(span.saturating_mul(i64::from(rate))).min(full)
        };
        self.messages_milli = fill(self.messages_milli, self.quota.messages_per_s);
        self.bytes_milli = fill(self.bytes_milli, self.quota.bytes_per_s);
    }
}
