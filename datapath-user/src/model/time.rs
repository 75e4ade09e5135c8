//! Points in time as people write them: RFC 3339, in UTC.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::invalid::Invalid;

/// When a rule ends: whole seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Until(u64);

/// Seconds of a day.
const DAY: u64 = 86_400;

/// The first second of the year 10000, which has no text.
const LAST: u64 = 253_402_300_800;

impl Until {
    /// The second that is nearest to `length` after `now`.
    pub fn after(now: SystemTime, length: Duration) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default() + length + Duration::from_millis(500);
        Self(since.as_secs().min(LAST - 1))
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// The same for clocks.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0)
    }
}

/// The date of a day counted from 1970-01-01, after Howard Hinnant's `civil_from_days`: years start in March,
/// so that the leap day is the last, and 400 of them are 146097 days.
pub fn date_of(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// The other way.
pub fn day_of(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100;
    (era * 146_097 + of_era + of_year).checked_sub(719_468)
}

/// The number that the digits from `from` to `to` of a text are.
pub fn digits(text: &str, from: usize, to: usize) -> Option<u64> {
    let part = text.get(from..to).filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
    part.and_then(|part| part.parse().ok())
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_of(self.0 / DAY);
        let of_day = self.0 % DAY;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl FromStr for Until {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let part = |from, to| digits(text, from, to);
        let read = || {
            let day = day_of(part(0, 4)?, part(5, 7)?, part(8, 10)?)?;
            Some(Self(day * DAY + part(11, 13)? * 3600 + part(14, 16)? * 60 + part(17, 19)?))
        };
        // What is printed the same was written right: marks, ranges, and days that a month has.
        let found = read().filter(|until| until.to_string() == text);
        found.ok_or_else(|| Invalid::new("time", text, "write it in UTC, as 2026-01-31T09:05:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ends_are_printed_and_read() {
        let check = |seconds: u64, expect: &str| {
            assert_eq!(Until(seconds).to_string(), expect);
            assert_eq!(expect.parse::<Until>().unwrap(), Until(seconds));
        };
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_795_266_660, "2026-11-21T13:11:00Z");
        for text in [
            "",
            "2026-11-21",
            "2026-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.000Z",
            "2026-01-01T00:00:00+01:00",
            "1969-12-31T23:59:59Z",
        ] {
            let error = text.parse::<Until>().unwrap_err().to_string();
            assert!(error.ends_with("is no time: write it in UTC, as 2026-01-31T09:05:00Z"), "{error}");
        }
    }

    #[test]
    fn a_length_ends_at_the_nearest_second() {
        let check = |now: u64, length: u64, expect: u64| {
            let found = Until::after(UNIX_EPOCH + Duration::from_millis(now), Duration::from_secs(length));
            assert_eq!(found, Until(expect));
        };
        check(10_499, 600, 610);
        check(10_500, 600, 611);
        assert_eq!(Until::after(SystemTime::UNIX_EPOCH, Duration::from_secs(u64::MAX / 2)), Until(LAST - 1));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(seconds in 0..LAST) {
            prop_assert_eq!(Until(seconds).to_string().parse::<Until>().unwrap(), Until(seconds));
        }
    }
}
