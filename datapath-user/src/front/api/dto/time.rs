//! Points in time: RFC 3339 in UTC with milliseconds, the same for people and for programs.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text;
use crate::model::{
    invalid::Invalid,
    time::{Until, date_of, day_of, digits},
};

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

const DAY: u64 = 86_400_000;

impl Timestamp {
    /// How long until it is; none if it has come.
    pub fn left(self, now: Self) -> Option<Duration> {
        self.0.checked_sub(now.0).filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// How long before `now` it was; nothing if after.
    pub fn age(self, now: Self) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Until> for Timestamp {
    fn from(until: Until) -> Self {
        until.time().into()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_of(self.0 / DAY);
        let of_day = self.0 % DAY;
        let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
        let (second, millis) = (of_day / 1000 % 60, of_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("time", text, "write it in UTC, as 2026-01-31T09:05:00.000Z");
        let part = |from: usize, to: usize| digits(text, from, to).ok_or_else(refuse);
        let day = day_of(part(0, 4)?, part(5, 7)?, part(8, 10)?).ok_or_else(refuse)?;
        let of_day = part(11, 13)? * 3_600_000 + part(14, 16)? * 60_000 + part(17, 19)? * 1000 + part(20, 23)?;
        // What is printed the same was written right: marks, ranges, and days that a month has.
        Some(Self(day * DAY + of_day)).filter(|time| time.to_string() == text).ok_or_else(refuse)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_printed_and_read() {
        let check = |millis: u64, expect: &str| {
            assert_eq!(Timestamp(millis).to_string(), expect);
            assert_eq!(expect.parse::<Timestamp>().unwrap(), Timestamp(millis));
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_795_266_660_123, "2026-11-21T13:11:00.123Z");
        check(4_107_542_399_999, "2100-02-28T23:59:59.999Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-02-29T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-00-01T00:00:00.000Z",
            "2026-01-00T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "2026-01-01 00:00:00.000Z",
            "2026-01-01T00:00:00.000+01:00",
            "1969-12-31T23:59:59.000Z",
            "2026-01-01T00:00:00.0\u{e9}Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(millis in 0..253_402_300_800_000_u64) {
            prop_assert_eq!(Timestamp(millis).to_string().parse::<Timestamp>().unwrap(), Timestamp(millis));
        }
    }
}
