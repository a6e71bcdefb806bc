//! The two clocks: one that never goes back, one that people read.

use marram_orchestrator_core::Now;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Tells the time since a start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        Now { mono_ms: millis(self.start.elapsed()), unix_ms: unix_ms() }
    }

    /// The moment at which [`Clock::now`] will say `mono_ms`.
    pub fn at(&self, mono_ms: u64) -> Instant {
        self.start + Duration::from_millis(mono_ms)
    }
}

/// The wall clock.
pub fn unix_ms() -> u64 {
    // A clock before 1970 is no clock.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// The wall clock as tokens write it.
pub fn unix_s() -> u64 {
    unix_ms() / 1000
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
