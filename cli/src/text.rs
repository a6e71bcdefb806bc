//! Small readings and writings of text: times, durations, and what may go to a terminal.
//!
//! Why apart: pure functions that several commands share and that tests go through in tables.
//!
//! Invariant: nothing that came from a server reaches a terminal with control characters in it,
//! except the output of the user's own programs (`logs`, `exec`).

use std::time::Duration;

/// One line without control characters: escape sequences in a name or an error text could
/// otherwise rewrite what the operator sees.
pub(crate) fn line(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Like [`line`], but keeps line breaks and tabs.
pub(crate) fn lines(text: &str) -> String {
    let keep = |c: char| c == '\n' || c == '\t' || !c.is_control();
    text.chars().filter(|c| keep(*c)).collect()
}

/// How long ago, in the largest unit that fits: `12s`, `5m`, `3h`, `2d`.
pub(crate) fn age(now_unix_ms: u64, then_unix_ms: u64) -> String {
    let seconds = now_unix_ms.saturating_sub(then_unix_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A moment as RFC 3339 in UTC, to the second.
pub(crate) fn moment(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970. Counts years from March, so that the leap day is the
/// last of its year, in cycles of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    const CYCLE_DAYS: u64 = 146_097;
    const DAYS_TO_1970: u64 = 719_468;
    let shifted = days + DAYS_TO_1970;
    let (cycle, day) = (shifted / CYCLE_DAYS, shifted % CYCLE_DAYS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + u64::from(month <= 2), month, day_of_month)
}

/// A duration as people write it: `90`, `90s`, `5m`, `2h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(DURATION_FORM.into()),
    };
    let number: u64 = number.parse().map_err(|_| DURATION_FORM.to_owned())?;
    match number.checked_mul(factor) {
        Some(seconds) if (1..=DURATION_SECONDS_MAX).contains(&seconds) => {
            Ok(Duration::from_secs(seconds))
        }
        _ => Err(DURATION_FORM.into()),
    }
}

const DURATION_FORM: &str = "a number of seconds, or with a unit: 90s, 5m, 2h; from 1s to 24h";

/// Longest time to wait for anything: whoever waits longer wants a service, not a command.
const DURATION_SECONDS_MAX: u64 = 24 * 3_600;

/// Milliseconds since 1970, for ages. A clock before 1970 counts as 1970.
pub(crate) fn now_unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A text for one segment or value of a URL.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_pass() {
        assert_eq!(line("a\x1b[31mb\nc\u{9b}d "), "a [31mb c d");
        assert_eq!(lines("a\x1b[31mb\n\tc\r"), "a[31mb\n\tc");
    }

    #[test]
    fn ages_use_the_largest_unit() {
        let ages = [0, 119, 120, 7_199, 7_200, 172_799, 172_800, 8_640_000];
        let shown: Vec<_> =
            ages.iter().map(|s| age(9_000_000_000 + s * 1000, 9_000_000_000)).collect();
        assert_eq!(shown, ["0s", "119s", "2m", "119m", "2h", "47h", "2d", "100d"]);
        assert_eq!(age(5, 10), "0s");
    }

    #[test]
    fn moments_know_leap_years() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_795_342_753, "2026-11-22T10:19:13Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(moment(seconds * 1000), text);
        }
        assert!(moment(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn durations_have_units_and_limits() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("5m", 300), ("24h", 86_400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in ["", "0", "s", "5d", "-1", "1.5", "25h", "99999999999999999999h", "5 m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_carry_any_argument() {
        assert_eq!(percent_encode("a b&c=ä/.."), "a%20b%26c%3D%C3%A4%2F..");
    }
}
