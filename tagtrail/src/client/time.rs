//! Times on the command line.

use tagtrail_proto::instant;
use time::OffsetDateTime;

/// Parses a time with a zone, or a date. A `+` may be written `%2B`, as in an address.
pub(crate) fn parse(text: &str) -> Result<OffsetDateTime, String> {
    let plain = text.trim().replace("%2B", "+").replace("%2b", "+");
    instant::parse(&plain)
        .or_else(|| instant::parse(&format!("{plain}T00:00:00Z")))
        .ok_or_else(|| {
            "write a time with its zone, such as 2026-03-03T14:02:00Z or 2026-03-03T15:02:00+01:00, or a date such as 2026-03-03 (from midnight UTC)".to_owned()
        })
}

/// Parses a time, and writes it as the API reads times.
pub(crate) fn text(text: &str) -> Result<String, String> {
    instant::format(parse(text)?).map_err(|_| "write a time from the year 0 to 9999".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_zone_and_dates_begin_at_midnight() {
        let noon = "2026-03-03T12:00:00Z";
        for (given, expected) in [
            (noon, noon),
            ("2026-03-03T13:00:00+01:00", noon),
            ("2026-03-03T13:00:00%2B01:00", noon),
            ("2026-03-03T13:00:00%2b01:00", noon),
            ("2026-03-03T07:00:00-05:00", noon),
            (" 2026-03-03T12:00:00Z ", noon),
            ("2026-03-03", "2026-03-03T00:00:00Z"),
        ] {
            assert_eq!(parse(given).ok(), instant::parse(expected), "{given}");
        }
    }

    #[test]
    fn a_refused_time_is_cured_by_each_example_of_the_error() {
        for wrong in [
            "2026-03-03T14:02:00",
            "yesterday",
            "2h ago",
            "",
            "1772546520",
            "03.03.2026",
        ] {
            let error = parse(wrong).unwrap_err();
            let examples = error
                .split_whitespace()
                .map(|word| word.trim_end_matches(','));
            let examples: Vec<&str> = examples.filter(|word| word.starts_with("20")).collect();
            assert_eq!(examples.len(), 3, "{error}");
            for example in examples {
                assert!(parse(example).is_ok(), "{example}");
            }
        }
    }
}
