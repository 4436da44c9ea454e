//! Times on the command line.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use tagtrail_proto::instant;
use time::OffsetDateTime;

use super::api::Failure;

/// A time as given.
#[derive(Debug, Clone)]
pub(crate) enum Time {
    /// A time with a zone.
    Fixed(Timestamp),
    /// A date, or a date and a time of the day, in the zone in which tables have their times.
    Local(DateTime),
    /// The start of a day of that zone, so many days ago.
    Day(i64),
    /// So long ago.
    Ago(Span),
}

/// Parses a time. A `+` may be written `%2B`, as in an address.
pub(crate) fn parse(text: &str) -> Result<Time, String> {
    let plain = text.trim().replace("%2B", "+").replace("%2b", "+");
    // As the lines of the client write it.
    let plain = match plain.strip_suffix(" UTC") {
        Some(utc) => format!("{utc}Z"),
        None => plain,
    };
    let local = || {
        // `DateTime` ignores a zone that it can't use.
        let zoneless = |letter: char| letter.is_ascii_digit() || "-:. T".contains(letter);
        let clock = plain.get(10..).unwrap_or_default();
        let zoneless = plain.chars().all(zoneless) && !clock.contains('-');
        plain.parse().ok().filter(|_| zoneless).map(Time::Local)
    };
    let ago = || {
        let span = plain.parse::<Span>().ok()?;
        Some(Time::Ago(span.abs()))
    };
    let day = || match plain.as_str() {
        "today" => Some(Time::Day(0)),
        "yesterday" => Some(Time::Day(1)),
        _ => None,
    };
    let fixed = plain.parse().ok().map(Time::Fixed);
    let found = fixed.or_else(local).or_else(ago).or_else(day);
    found.filter(|time| time.at(None).is_ok()).ok_or_else(|| {
        "write a time such as 2026-03-03T14:02:00Z, \"2026-03-03 14:02:00\" or 2026-03-03 (without a zone: that of this machine, or with --utc UTC), a time ago such as -1h, 45m or 3d, or today or yesterday".to_owned()
    })
}

impl Time {
    /// Returns the time. `zone` is the zone of a time without one; `None` is UTC.
    pub(crate) fn at(&self, zone: Option<&TimeZone>) -> Result<OffsetDateTime, Failure> {
        let zone = zone.cloned().unwrap_or(TimeZone::UTC);
        let found = match self {
            Time::Fixed(time) => Ok(*time),
            Time::Local(time) => zone.to_ambiguous_timestamp(*time).compatible(),
            // Days are as long as the clocks of the zone make them. Nobody means the fraction.
            Time::Ago(span) => Timestamp::from_second(Timestamp::now().as_second())
                .unwrap_or_default()
                .to_zoned_datetime(zone)
                .checked_sub(*span)
                .map(|time| time.timestamp()),
            Time::Day(ago) => Timestamp::now()
                .to_zoned_datetime(zone)
                .checked_sub(Span::new().days(*ago))
                .and_then(|day| day.start_of_day())
                .map(|day| day.timestamp()),
        };
        let time = found.ok().and_then(|time| {
            let time = OffsetDateTime::from_unix_timestamp_nanos(time.as_nanosecond()).ok()?;
            (0..=9999).contains(&time.year()).then_some(time)
        });
        time.ok_or_else(|| Failure::usage("write a time from the year 0 to 9999"))
    }

    /// Writes the time as the API reads times.
    pub(crate) fn text(&self, zone: Option<&TimeZone>) -> Result<String, Failure> {
        let text = instant::format(self.at(zone)?);
        text.map_err(|_| Failure::usage("write a time from the year 0 to 9999"))
    }
}

/// Writes a time that may be missing as the API reads times.
pub(crate) fn text(
    time: Option<&Time>,
    zone: Option<&TimeZone>,
) -> Result<Option<String>, Failure> {
    time.map(|time| time.text(zone)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: Option<&TimeZone>) -> Option<OffsetDateTime> {
        parse(text).ok()?.at(zone).ok()
    }

    #[test]
    fn times_without_a_zone_are_in_the_zone_of_the_tables() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let noon = "2026-03-03T12:00:00Z";
        for (given, utc, local) in [
            (noon, noon, noon),
            ("2026-03-03T13:00:00+01:00", noon, noon),
            ("2026-03-03T13:00:00%2B01:00", noon, noon),
            ("2026-03-03T13:00:00%2b01:00", noon, noon),
            ("2026-03-03 13:00:00+01:00", noon, noon),
            ("2026-03-03T07:00:00-05:00", noon, noon),
            (" 2026-03-03T12:00:00Z ", noon, noon),
            ("2026-03-03 12:00:00 UTC", noon, noon),
            ("2026-03-03 12:00:00", noon, "2026-03-03T11:00:00Z"),
            ("2026-03-03T12:00", noon, "2026-03-03T11:00:00Z"),
            ("2026-03-03", "2026-03-03T00:00:00Z", "2026-03-02T23:00:00Z"),
        ] {
            assert_eq!(at(given, None), instant::parse(utc), "{given}");
            assert_eq!(at(given, Some(&berlin)), instant::parse(local), "{given}");
        }
    }

    #[test]
    fn a_time_may_be_so_long_ago() {
        for (given, seconds) in [
            ("30s", 30),
            ("45m", 45 * 60),
            ("2h", 2 * 3600),
            ("1h30m", 5400),
            ("2h ago", 2 * 3600),
            ("-1h", 3600),
            ("3d", 3 * 86400),
            ("2w", 14 * 86400),
        ] {
            let before = OffsetDateTime::now_utc() - at(given, None).unwrap();
            let late = before.as_seconds_f64() - f64::from(seconds);
            assert!((-1.0..5.0).contains(&late), "{given}: {before}");
        }
    }

    #[test]
    fn a_day_of_these_days_begins_at_its_midnight_in_the_zone_of_the_tables() {
        // Far from UTC, so that one of the zones has another date.
        for hours in [-11_i8, 0, 13] {
            let zone = TimeZone::fixed(jiff::tz::offset(hours));
            let midnight = |text: &str| {
                let local = at(text, Some(&zone)).unwrap() + time::Duration::hours(hours.into());
                assert_eq!(local.time(), time::Time::MIDNIGHT, "{text} {hours}");
                local.date()
            };
            let today = midnight("today");
            assert_eq!(today.previous_day(), Some(midnight("yesterday")));
            let now = OffsetDateTime::now_utc() + time::Duration::hours(hours.into());
            assert!((now.date() - today).whole_days() <= 1, "{hours}");
        }
    }

    #[test]
    fn a_refused_time_is_cured_by_each_example_of_the_error() {
        for wrong in [
            "tomorrow",
            "",
            "--quiet",
            "2",
            "1772546520",
            "03.03.2026",
            "2026-03-03 12:00+1",
            "2026-03-03T12:00-5",
            "2026-13-03",
            "99999y",
        ] {
            let error = parse(wrong).unwrap_err();
            let plain = error.replace("\"2026-03-03 14:02:00\"", "2026-03-03T14:02:00");
            let words = plain
                .split_whitespace()
                .map(|word| word.trim_end_matches(','));
            let is_example = |word: &&str| {
                let word = word.trim_start_matches('-');
                word.starts_with(|letter: char| letter.is_ascii_digit()) || word.ends_with("day")
            };
            let examples: Vec<&str> = words.filter(is_example).collect();
            assert_eq!(examples.len(), 8, "{error}");
            for example in examples {
                assert!(parse(example).is_ok(), "{example}");
            }
        }
    }
}
