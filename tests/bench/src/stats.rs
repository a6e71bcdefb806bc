//! Repeats within bounds, and what is told of many measurements.

use anyhow::ensure;
use std::time::{Duration, Instant};

/// Fewer repetitions are no basis for a median.
const REPETITIONS_MIN: usize = 3;

/// Durations of one thing measured again and again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle one; of an even number, the mean of the middle two.
    pub(crate) fn median_ms(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let middle = sorted.len() / 2;
        let upper = sorted.get(middle).copied().unwrap_or_default();
        let lower = match sorted.len() % 2 {
            0 => sorted.get(middle.saturating_sub(1)).copied().unwrap_or_default(),
            _ => upper,
        };
        (lower + upper).as_secs_f64() * 1000.0 / 2.0
    }

    /// The longest.
    pub(crate) fn most_ms(&self) -> f64 {
        self.0.iter().max().map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }
}

/// Does something up to `count` times, and stops earlier once `time_max` has passed.
pub(crate) fn repeat(
    what: &str,
    count: usize,
    time_max: Duration,
    mut once: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    for at in 0..count {
        if began.elapsed() > time_max {
            ensure!(at >= REPETITIONS_MIN, "{what}: only {at} repetitions within {time_max:?}");
            return Ok(());
        }
        once(at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let mut times = Times::default();
        for ms in [40, 10, 30] {
            times.push(Duration::from_millis(ms));
        }
        assert_eq!((times.median_ms(), times.most_ms()), (30.0, 40.0));
        times.push(Duration::from_millis(20));
        assert_eq!(times.median_ms(), 25.0);
    }

    #[test]
    fn too_few_repetitions_are_an_error() {
        let slow = |_| {
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        };
        assert!(repeat("x", 10, Duration::ZERO, slow).is_err());
        let mut done = 0;
        let count = |_| {
            done += 1;
            Ok(())
        };
        repeat("x", 7, Duration::from_secs(60), count).expect("within bounds");
        assert_eq!(done, 7);
    }
}
