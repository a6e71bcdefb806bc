//! How long to wait before dialling again.
//!
//! Pure: who dials brings the randomness and the clock.

/// The first pause: long enough for a parent to restart.
pub const BACKOFF_MS_MIN: u64 = 1_000;

/// The longest pause: what an operator waits for a site to come back without wondering.
pub const BACKOFF_MS_MAX: u64 = 60_000;

/// Pauses that double from [`BACKOFF_MS_MIN`] to [`BACKOFF_MS_MAX`], each less a random part of
/// up to half, so that the children of a parent that restarts do not come back all at once.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure, in milliseconds; `random` is any number.
    pub fn next_ms(&mut self, random: u64) -> u64 {
        let doubled = BACKOFF_MS_MIN.saturating_mul(1 << self.failures.min(16));
        let whole = doubled.min(BACKOFF_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        whole - random % (whole / 2 + 1)
    }

    /// The way has been well: the next failure is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..9).map(|_| backoff.next_ms(0)).collect();
        assert_eq!(pauses, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        backoff.reset();
        assert_eq!(backoff.next_ms(0), 1000);
    }

    proptest::proptest! {
        #[test]
        fn a_pause_is_never_longer_nor_less_than_half(failures in 0..200u32, random: u64) {
            let mut backoff = Backoff { failures };
            let whole = Backoff { failures }.next_ms(0);
            let pause = backoff.next_ms(random);
            proptest::prop_assert!(pause <= whole && pause >= whole / 2);
            proptest::prop_assert!((BACKOFF_MS_MIN / 2..=BACKOFF_MS_MAX).contains(&pause));
        }
    }
}
