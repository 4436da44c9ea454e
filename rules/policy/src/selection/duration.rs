//! Durations as people write them: `500ms`, `30s`, `2m`, `1h`, `3d`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

const DAY: u64 = 24 * 3600;

/// Parses a number with a unit: `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// For text of another form, and for a duration above `most`.
pub fn parse(text: &str, most: Duration) -> Result<Duration, String> {
    let refused = || {
        format!("{text:?} is not a duration; write a number with ms, s, m, h or d, such as \"3d\"")
    };
    let unit = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(refused)?;
    let (number, unit) = text.split_at(unit);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY * 1000,
        _ => return Err(refused()),
    };
    let number: u64 = number.parse().map_err(|_| refused())?;
    let duration = Duration::from_millis(number.saturating_mul(milliseconds));
    if duration > most {
        let most = most.as_secs();
        let most = if most.is_multiple_of(DAY) {
            format!("{}d", most / DAY)
        } else {
            format!("{}h", most / 3600)
        };
        return Err(format!("{text} is too long; write at most {most}"));
    }
    Ok(duration)
}

/// Reads an optional duration of at most this number of days.
pub(crate) fn days<'de, const DAYS: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "a duration is a number with ms, s, m, h or d, such as \"3d\""
    )]
    enum Written {
        Text(String),
        Number(i64),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Err(serde::de::Error::custom(format!(
            "{number} has no unit; write it with ms, s, m, h or d, such as \"{number}s\""
        ))),
        Written::Text(text) => parse(&text, Duration::from_secs(DAYS * DAY))
            .map(Some)
            .map_err(serde::de::Error::custom),
    }
}

/// Writes a duration as [`parse`] reads it.
pub(crate) fn written<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let Some(duration) = duration else {
        return serializer.serialize_none();
    };
    let milliseconds = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let whole = units
        .iter()
        .find(|(_, unit)| milliseconds.is_multiple_of(*unit));
    let (unit, length) = whole.copied().unwrap_or(("ms", 1));
    serializer.collect_str(&format_args!("{}{unit}", milliseconds / length))
}
