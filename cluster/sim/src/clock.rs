//! Timestamps as Kubernetes writes them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in RFC 3339 with whole seconds.
pub(crate) fn now() -> String {
    in_seconds(0)
}

/// A moment some seconds from now.
pub(crate) fn in_seconds(seconds: u64) -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    rfc3339(since.as_secs() + seconds)
}

/// Seconds that have passed since a timestamp of [`now`]'s form; none for any other text.
pub(crate) fn since(timestamp: &str) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    seconds_of(timestamp).map_or(0, |then| now.saturating_sub(then))
}

/// The way back from [`rfc3339`].
fn seconds_of(timestamp: &str) -> Option<u64> {
    let digits = |from: usize, to: usize| timestamp.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (march, year) = if month > 2 {
        (month - 3, year)
    } else {
        (month + 9, year - 1)
    };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * march + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let time = digits(11, 13)? * 3_600 + digits(14, 16)? * 60 + digits(17, 19)?;
    Some((days.checked_sub(719_468)?) * 86_400 + time)
}

/// Seconds since 1970 as a date (the proleptic Gregorian calendar, counted from 1 March).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::{rfc3339, seconds_of};

    #[test]
    fn dates_are_read_back() {
        for seconds in [0, 951_782_400, 1_735_689_599, 1_772_323_200, 4_107_542_399] {
            assert_eq!(seconds_of(&rfc3339(seconds)), Some(seconds));
        }
        assert_eq!(seconds_of("yesterday"), None);
    }

    #[test]
    fn dates_of_leap_years_and_ends_of_years() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(rfc3339(1_772_323_200), "2026-03-01T00:00:00Z");
    }
}
