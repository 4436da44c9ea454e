//! The one reader for the times that senders write.
//!
//! Accepted: RFC 3339, also with a blank before the time or the zone, and with a zone without a
//! colon (`date +%FT%T%z`, Java, git); RFC 2822; and the time since 1970 in seconds, milliseconds,
//! microseconds or nanoseconds, as a number or text. Year 1 and 1970-01-01 are the zeros of Go and
//! Unix, and count as absent.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tagtrail_proto::{clean_text, instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// A time as a sender wrote it: a text or number of JSON. Any other value is kept for the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamp(Option<String>);

/// The reason why a time can't be read. The event counts as of its receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the time in `{field}` {problem}, so the time of receipt counts: {value:?}")]
pub(crate) struct UnreadTime {
    field: &'static str,
    problem: &'static str,
    value: String,
}

/// The time of an event: absent, read, or unreadable.
pub(super) type EventTime = Result<Option<OffsetDateTime>, UnreadTime>;

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stamp, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        let text = serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
        Ok(Stamp((raw != "null").then_some(text)))
    }
}

impl From<Option<&str>> for Stamp {
    fn from(text: Option<&str>) -> Stamp {
        Stamp(text.map(str::to_owned))
    }
}

impl Stamp {
    /// Most bytes of a time in a reason.
    const SHOWN: usize = 64;

    /// Reads the time. `field` is the name of the field, for the reason.
    pub(super) fn read(&self, field: &'static str) -> EventTime {
        let text = self.0.as_deref().map(str::trim).unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        match parse(text) {
            Ok(time) => Ok((time > OffsetDateTime::UNIX_EPOCH).then_some(time)),
            Err(problem) => Err(UnreadTime {
                field,
                problem,
                value: clean_text(text, Stamp::SHOWN),
            }),
        }
    }
}

/// Returns the first time that is present and readable, or else the first reason.
pub(super) fn first_of(times: impl IntoIterator<Item = EventTime>) -> EventTime {
    let mut unread = Ok(None);
    for time in times {
        match time {
            Ok(Some(time)) => return Ok(Some(time)),
            Ok(None) => {}
            Err(reason) if unread.is_ok() => unread = Err(reason),
            Err(_) => {}
        }
    }
    unread
}

const NOT_UNDERSTOOD: &str = "is not understood";
const NO_ZONE: &str = "has no zone (such as Z or +01:00)";

fn parse(text: &str) -> Result<OffsetDateTime, &'static str> {
    match text.as_bytes().get(4) {
        Some(b'-') => rfc_3339(text),
        _ if text.contains(' ') => rfc_2822(text),
        _ => since_1970(text).ok_or(NOT_UNDERSTOOD),
    }
}

fn rfc_2822(text: &str) -> Result<OffsetDateTime, &'static str> {
    // The names of UTC that RFC 2822 calls obsolete are common.
    let zone = text.rsplit_once(' ').filter(|(_, zone)| {
        ["GMT", "UT", "UTC", "Z"]
            .iter()
            .any(|utc| zone.eq_ignore_ascii_case(utc))
    });
    let named = zone.map(|(rest, _)| format!("{rest} +0000"));
    OffsetDateTime::parse(named.as_deref().unwrap_or(text), &Rfc2822).map_err(|_| {
        match OffsetDateTime::parse(&format!("{text} +0000"), &Rfc2822) {
            Ok(_) => NO_ZONE,
            Err(_) => NOT_UNDERSTOOD,
        }
    })
}

fn rfc_3339(text: &str) -> Result<OffsetDateTime, &'static str> {
    const DATE: usize = "2026-03-03".len();
    let (date, rest) = text.split_at_checked(DATE).ok_or(NOT_UNDERSTOOD)?;
    let clock = rest
        .strip_prefix(['T', 't', ' '])
        .ok_or(NOT_UNDERSTOOD)?
        .trim_start();
    let Some(zone_at) = clock.find(['Z', 'z', '+', '-']) else {
        let complete = instant::parse(&format!("{date}T{clock}Z"));
        return Err(complete.map_or(NOT_UNDERSTOOD, |_| NO_ZONE));
    };
    let (clock, zone) = clock.split_at(zone_at);
    // `+hhmm`.
    let zone = match (zone.len(), zone.split_at_checked(3)) {
        (5, Some((hours, minutes))) => format!("{hours}:{minutes}"),
        _ => zone.to_ascii_uppercase(),
    };
    instant::parse(&format!("{date}T{}{zone}", clock.trim_end())).ok_or(NOT_UNDERSTOOD)
}

/// Parses the time since 1970. The number of digits tells the unit, for the years 2001 to 2286: so
/// no date such as 20260303140200 is taken for a number.
fn since_1970(text: &str) -> Option<OffsetDateTime> {
    if text.contains(['e', 'E']) {
        return exponent(text);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let zeros = match whole.len() {
        _ if whole == "0" => 9,
        10 => 9,
        13 => 6,
        16 => 3,
        19 => 0,
        _ => return None,
    };
    let fraction: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(zeros)
        .collect();
    let nanoseconds = format!("{whole}{fraction}").parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()
}

/// Parses a number with an exponent, such as 1.417566161e9 in Docker's page.
fn exponent(text: &str) -> Option<OffsetDateTime> {
    let number: f64 = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())?;
    match number.abs() < 1e19 {
        // A number of this size is precise to microseconds.
        true => since_1970(&format!("{number:.6}")),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn read(json: &str) -> EventTime {
        serde_json::from_str::<Stamp>(json).unwrap().read("when")
    }

    #[test]
    fn every_spelling_of_one_instant_is_read() {
        for json in [
            "\"2026-05-06T07:08:09Z\"",
            "\"2026-05-06t07:08:09z\"",
            "\"2026-05-06T09:08:09+02:00\"",
            "\"2026-05-06T09:08:09+0200\"",
            "\"2026-05-06T02:08:09.000-0500\"",
            "\"2026-05-06 07:08:09Z\"",
            "\"2026-05-06 07:08:09+00:00\"",
            "\"2026-05-06 07:08:09 +0000\"",
            "\"2026-05-06T07:08:09 Z\"",
            "\" 2026-05-06T07:08:09Z\\n\"",
            "\"Wed, 06 May 2026 09:08:09 +0200\"",
            "\"Wed, 06 May 2026 07:08:09 GMT\"",
            "\"6 May 2026 07:08:09 +0000\"",
            "1778051289",
            "\"1778051289\"",
            "1778051289.0",
            "1.778051289e9",
            "1778051289000",
            "\"1778051289000\"",
            "1778051289000000",
            "1778051289000000000",
            "\"1778051289000000000\"",
        ] {
            let expected = datetime!(2026-05-06 07:08:09 UTC);
            assert_eq!(read(json), Ok(Some(expected)), "{json}");
        }
    }

    #[test]
    fn fractions_are_kept() {
        for (json, nanosecond) in [
            ("\"2026-05-06T09:08:09.123456789+0200\"", 123_456_789),
            ("1778051289.5", 500_000_000),
            ("\"1778051289.123456789\"", 123_456_789),
            ("1778051289123", 123_000_000),
            ("1778051289123456", 123_456_000),
            ("1778051289123456789", 123_456_789),
        ] {
            let time = read(json).unwrap().unwrap();
            assert_eq!(time.nanosecond(), nanosecond, "{json}");
            assert_eq!(time.unix_timestamp(), 1_778_051_289, "{json}");
        }
    }

    #[test]
    fn zeros_are_no_time() {
        for json in [
            "null",
            "\"\"",
            "0",
            "\"0\"",
            "\"0001-01-01T00:00:00Z\"",
            "\"1970-01-01T00:00:00Z\"",
        ] {
            assert_eq!(read(json), Ok(None), "{json}");
        }
    }

    #[test]
    fn the_reason_names_field_and_value() {
        for (json, problem, shown) in [
            ("\"2026-05-06T07:08:09\"", NO_ZONE, "2026-05-06T07:08:09"),
            ("\"2026-05-06 07:08:09.5\"", NO_ZONE, "07:08:09.5"),
            ("\"Wed, 06 May 2026 07:08:09\"", NO_ZONE, "06 May"),
            ("\"2026-05-06\"", NOT_UNDERSTOOD, "2026-05-06"),
            ("\"2026-05-06 noon\"", NOT_UNDERSTOOD, "noon"),
            ("\"2026-13-06T25:08:09Z\"", NOT_UNDERSTOOD, "2026-13"),
            ("\"20260506T070809Z\"", NOT_UNDERSTOOD, "20260506T"),
            ("20260506070809", NOT_UNDERSTOOD, "20260506070809"),
            ("20260506", NOT_UNDERSTOOD, "20260506"),
            ("-1778051289", NOT_UNDERSTOOD, "-1778051289"),
            ("1e400", NOT_UNDERSTOOD, "1e400"),
            ("\"yesterday\"", NOT_UNDERSTOOD, "yesterday"),
            ("\"9999-12-31T23:59:59-14:00\"", NOT_UNDERSTOOD, "9999"),
            ("\"2026-05-06T07:08:09+é0\"", NOT_UNDERSTOOD, "+é0"),
            ("\"é026-05é06T\"", NOT_UNDERSTOOD, "é026"),
            ("{\"seconds\":1}", NOT_UNDERSTOOD, "seconds"),
            ("[1778051289]", NOT_UNDERSTOOD, "[1778051289]"),
            ("true", NOT_UNDERSTOOD, "true"),
        ] {
            let unread = read(json).expect_err(json);
            let reason = unread.to_string();
            assert_eq!(unread.problem, problem, "{json}");
            assert!(reason.contains("`when`"), "{reason}");
            assert!(reason.contains(&shown.replace('"', "")), "{reason}");
        }
        let long = format!("\"{}\"", "x".repeat(5000));
        assert!(read(&long).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn the_first_readable_time_counts() {
        let times = ["null", "\"soon\"", "1778051289"].map(read);
        assert!(first_of(times).unwrap().is_some());
        let times = ["null", "\"soon\"", "\"later\""].map(read);
        assert_eq!(first_of(times).unwrap_err().value, "soon");
        assert_eq!(first_of([]), Ok(None));
    }
}
