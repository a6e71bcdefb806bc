//! Times in containerd's two forms: protobuf timestamps in, RFC 3339 text out.
//!
//! Why our own: two conversions do not earn a calendar library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 now.
pub(crate) fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970 of a timestamp; 0 for none and for times before 1970, which
/// containerd uses for "never".
pub(crate) fn unix_ms(time: Option<&prost_types::Timestamp>) -> u64 {
    let Some(time) = time else { return 0 };
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let nanos = u64::try_from(time.nanos).unwrap_or(0);
    if seconds == 0 { 0 } else { seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000) }
}

/// `2026-11-23T14:00:00Z`. Days to a date by the usual era arithmetic (400 years have
/// 146 097 days), with years that begin in March so that leap days come last.
pub(crate) fn rfc3339(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_442_400, "2026-11-23T14:00:00Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(rfc3339(seconds), expected);
        }
    }

    #[test]
    fn never_is_zero() {
        assert_eq!(unix_ms(None), 0);
        let time = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        assert_eq!(unix_ms(Some(&time(-62_135_596_800, 0))), 0);
        assert_eq!(unix_ms(Some(&time(2, 5_000_000))), 2005);
    }
}
