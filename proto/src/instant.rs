//! Times in messages and answers: RFC 3339, written in UTC with six decimals, so that times sort as
//! text (nine only for a time that has nanoseconds), read with any offset.

use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Writes a time as messages and answers have it.
///
/// # Errors
/// If the time is outside the years 0 to 9999.
pub fn serialize<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    json(*time)
        .map_err(serde::ser::Error::custom)?
        .serialize(serializer)
}

/// Reads a time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| serde::de::Error::custom(NOT_A_TIME))
}

const NOT_A_TIME: &str = "a time is written as RFC 3339, such as 2026-03-03T14:02:00Z";

/// Returns a time as messages and answers have it.
///
/// # Errors
/// Fails only for a year that RFC 3339 can't express.
pub fn json(time: OffsetDateTime) -> Result<String, time::error::Format> {
    let nanos = time.nanosecond();
    let whole = format(time.replace_nanosecond(0).unwrap_or(time))?;
    let whole = whole.trim_end_matches('Z');
    Ok(match nanos % 1000 {
        0 => format!("{whole}.{:06}Z", nanos / 1000),
        _ => format!("{whole}.{nanos:09}Z"),
    })
}

/// Returns a time as RFC 3339 in UTC, for texts: without needless zeros.
///
/// # Errors
/// Fails only for a year that RFC 3339 can't express.
pub fn format(time: OffsetDateTime) -> Result<String, time::error::Format> {
    time.to_offset(UtcOffset::UTC).format(&Rfc3339)
}

/// Reads RFC 3339 with any offset. Returns `None` for any other text, and for a time that in UTC is
/// outside the years 0 to 9999.
#[must_use]
pub fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()?
        .checked_to_offset(UtcOffset::UTC)
}

/// Times that may be unknown.
pub mod option {
    use super::{Deserializer, OffsetDateTime, Serializer};

    /// Writes the time, or null.
    ///
    /// # Errors
    /// If the time is outside the years 0 to 9999.
    pub fn serialize<S: Serializer>(
        time: &Option<OffsetDateTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a time, or null.
    ///
    /// # Errors
    /// If the text is no time in RFC 3339.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OffsetDateTime>, D::Error> {
        let text =
            <Option<std::borrow::Cow<'de, str>> as serde::Deserialize>::deserialize(deserializer)?;
        text.map(|text| {
            super::parse(&text).ok_or_else(|| serde::de::Error::custom(super::NOT_A_TIME))
        })
        .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_text() {
        for (given, written) in [
            ("2026-03-03T14:02:00Z", "2026-03-03T14:02:00.000000Z"),
            ("2026-03-03T15:02:00.5+01:00", "2026-03-03T14:02:00.500000Z"),
            ("2026-03-03T14:02:00.000001Z", "2026-03-03T14:02:00.000001Z"),
            (
                "2026-03-03T14:02:00.12345678Z",
                "2026-03-03T14:02:00.123456780Z",
            ),
            ("0000-01-01T00:00:00.1Z", "0000-01-01T00:00:00.100000Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ] {
            let time = parse(given).unwrap();
            assert_eq!(json(time).unwrap(), written);
            assert_eq!(parse(written), Some(time));
        }
    }
}
