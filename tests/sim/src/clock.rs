//! The clocks of one program: its own steady one, and the machine's wall clock.
//!
//! As in the shells, the steady one begins at 0 with the program. It drifts; the wall clock
//! may say anything, and jumps.

use crate::Random;

/// When a world begins, by a right wall clock.
const BEGINNING_UNIX_MS: i64 = 1_800_000_000_000;

/// A crystal is wrong by less than this; boards in the sun are the worst.
const DRIFT_PPM_MAX: u64 = 500;

const MILLION: u64 = 1_000_000;

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started_ms: u64,
    /// Its milliseconds in a million true ones.
    rate: u64,
    wall_offset_ms: i64,
    /// There is no battery: each boot begins in 1970.
    forgets: bool,
}

impl Clock {
    pub(crate) fn draw(random: &mut Random, faults: bool) -> Self {
        let rate = MILLION - DRIFT_PPM_MAX + random.below(2 * DRIFT_PPM_MAX + 1);
        let rate = if faults { rate } else { MILLION };
        Self { started_ms: 0, rate, wall_offset_ms: 0, forgets: faults && random.chance(25) }
    }

    /// The program starts; with `boot` the machine as well.
    pub(crate) fn start(&mut self, now_ms: u64, boot: bool) {
        self.started_ms = now_ms;
        if boot && self.forgets {
            self.wall_offset_ms = -BEGINNING_UNIX_MS - i64::try_from(now_ms).unwrap_or(i64::MAX);
        }
    }

    /// Somebody sets the wall clock, rightly or not.
    pub(crate) fn set_wall(&mut self, offset_ms: i64) {
        self.wall_offset_ms = offset_ms;
    }

    /// The steady clock and the wall clock.
    pub(crate) fn read(&self, now_ms: u64) -> (u64, u64) {
        let since = now_ms - self.started_ms;
        let mono_ms = since / MILLION * self.rate + since % MILLION * self.rate / MILLION;
        let wall = BEGINNING_UNIX_MS + i64::try_from(now_ms).unwrap_or(i64::MAX);
        let wall = wall.saturating_add(self.wall_offset_ms);
        // As in the shells: before 1970 there is none.
        (mono_ms, u64::try_from(wall).unwrap_or(0))
    }

    /// The first true time at which the steady clock says `mono_ms`.
    pub(crate) fn when(&self, mono_ms: u64) -> u64 {
        let whole = mono_ms / self.rate * MILLION;
        let rest = (mono_ms % self.rate * MILLION).div_ceil(self.rate);
        self.started_ms + whole + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_reached_when_it_is_said_to_be() {
        let mut random = Random::new(3);
        for _ in 0..1000 {
            let mut clock = Clock::draw(&mut random, true);
            clock.start(random.below(100_000), false);
            let mono_ms = random.span_ms(40);
            let at = clock.when(mono_ms);
            assert!(clock.read(at).0 >= mono_ms);
            assert!(at == clock.started_ms || clock.read(at - 1).0 <= mono_ms);
        }
    }

    #[test]
    fn a_clock_without_a_battery_begins_in_1970() {
        let mut clock = Clock { started_ms: 0, rate: MILLION, wall_offset_ms: 0, forgets: true };
        clock.start(5_000, true);
        assert_eq!(clock.read(6_000), (1_000, 1_000));
        clock.start(7_000, false);
        assert_eq!(clock.read(7_000), (0, 2_000));
    }
}
