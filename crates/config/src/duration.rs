//! Durations as people write them: `0s`, `500ms`, `2m`, `1h`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Err(serde::de::Error::custom(format!(
            "{number} has no unit; write it with ms, s, m or h, such as \"{number}s\""
        ))),
        Written::Text(text) => parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is not a duration; write a number with ms, s, m or h, such as \"30s\""
            ))
        }),
    }
}

/// A duration as written. A number is a mistake, which the error explains.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a duration is a number with ms, s, m or h, such as \"30s\""
)]
enum Written {
    Text(String),
    Number(i64),
}

/// For a setting without a default.
pub(crate) mod option {
    use super::{Deserializer, Duration};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

pub(crate) fn parse(text: &str) -> Option<Duration> {
    let unit = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(unit)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    /// A longer duration is a mistake.
    const MOST: Duration = Duration::from_secs(7 * 24 * 3600);
    let duration = Duration::from_millis(number.checked_mul(milliseconds)?);
    (duration <= MOST).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
        ] {
            assert_eq!(parse(text), expected.map(Duration::from_millis), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1d",
            "99999999999h",
            "18446744073709551616s",
            "1 s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
