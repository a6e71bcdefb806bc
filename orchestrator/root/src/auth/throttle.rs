//! How often somebody may try a password.
//!
//! After a few wrong ones each further attempt has to wait twice as long as the one before.
//! Counted per address and user name, so that a stranger elsewhere cannot lock a user out.
//! Pure: the clock is handed in.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Wrong passwords that cost nothing: people mistype.
const FREE_FAILURES: u32 = 3;

/// First wait, doubled from then on.
const WAIT_MS: u64 = 1000;

/// Longest wait: a patient person gets in, a guesser gets 1440 tries a day.
const WAIT_MS_MAX: u64 = 60_000;

/// Failures are forgotten after so long without a further one.
const FORGET_MS: u64 = 15 * 60_000;

/// Pairs of address and name remembered: some 100 KiB. The least recent one makes room.
const TRACKED_MAX: usize = 1024;

/// Longest part of a name that tells users apart here.
const NAME_CHARS_MAX: usize = 64;

/// Counts failures.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: BTreeMap<(IpAddr, String), Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last_ms: u64,
}

impl Failures {
    fn open_at_ms(self) -> u64 {
        let Some(doublings) = self.count.checked_sub(FREE_FAILURES) else { return 0 };
        let wait_ms = WAIT_MS.saturating_mul(1 << doublings.min(16)).min(WAIT_MS_MAX);
        self.last_ms.saturating_add(wait_ms)
    }
}

fn key(from: IpAddr, user: &str) -> (IpAddr, String) {
    (from, user.chars().take(NAME_CHARS_MAX).collect())
}

impl Throttle {
    /// Whether an attempt may be made now, or after how many milliseconds.
    pub fn check(&self, from: IpAddr, user: &str, now_ms: u64) -> Result<(), u64> {
        let Some(failures) = self.failures.get(&key(from, user)) else { return Ok(()) };
        match failures.open_at_ms().checked_sub(now_ms) {
            None | Some(0) => Ok(()),
            Some(wait_ms) => Err(wait_ms),
        }
    }

    /// The attempt was wrong.
    pub fn fail(&mut self, from: IpAddr, user: &str, now_ms: u64) {
        let key = key(from, user);
        if self.failures.len() >= TRACKED_MAX && !self.failures.contains_key(&key) {
            self.failures.retain(|_, f| now_ms.saturating_sub(f.last_ms) < FORGET_MS);
            let oldest =
                self.failures.iter().min_by_key(|(_, f)| f.last_ms).map(|(k, _)| k.clone());
            if self.failures.len() >= TRACKED_MAX
                && let Some(oldest) = oldest
            {
                self.failures.remove(&oldest);
            }
        }
        let failures = self.failures.entry(key).or_insert(Failures { count: 0, last_ms: now_ms });
        if now_ms.saturating_sub(failures.last_ms) >= FORGET_MS {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last_ms = now_ms;
    }

    /// The attempt was right.
    pub fn succeed(&mut self, from: IpAddr, user: &str) {
        self.failures.remove(&key(from, user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn waits_double_up_to_a_minute_and_end_with_success() {
        let mut throttle = Throttle::default();
        let mut now_ms = 5;
        let mut waits = Vec::new();
        for _ in 0..12 {
            if let Err(wait_ms) = throttle.check(HERE, "Admin", now_ms) {
                waits.push(wait_ms);
                assert!(throttle.check(HERE, "Admin", now_ms + wait_ms - 1).is_err());
                now_ms += wait_ms;
            }
            assert_eq!(throttle.check(HERE, "Admin", now_ms), Ok(()));
            throttle.fail(HERE, "Admin", now_ms);
        }
        let seconds: Vec<u64> = waits.iter().map(|ms| ms / 1000).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(throttle.check(HERE, "other", now_ms), Ok(()));
        throttle.succeed(HERE, "Admin");
        assert_eq!(throttle.check(HERE, "Admin", now_ms), Ok(()));
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut throttle = Throttle::default();
        for now_ms in 0..3 {
            throttle.fail(HERE, "Admin", now_ms);
        }
        assert!(throttle.check(HERE, "Admin", 3).is_err());
        throttle.fail(HERE, "Admin", FORGET_MS + 2);
        assert_eq!(throttle.check(HERE, "Admin", FORGET_MS + 2), Ok(()));
    }

    #[test]
    fn a_flood_of_names_does_not_grow_it() {
        let mut throttle = Throttle::default();
        for number in 0..5000 {
            throttle.fail(HERE, &format!("user{number}"), number);
        }
        assert_eq!(throttle.failures.len(), TRACKED_MAX);
        throttle.fail(HERE, &"x".repeat(1 << 20), 5000);
        assert!(throttle.failures.keys().all(|(_, name)| name.len() <= 64));
    }
}
