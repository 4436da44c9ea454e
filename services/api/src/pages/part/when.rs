//! Times: absolute first, in UTC as served; the script turns them into the reader's own on request.

use maud::{Markup, html};
use tagtrail_history::instant::Instant;
use time::{Duration, OffsetDateTime, UtcOffset};

/// The form in which a time is written, as the script knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `2026-11-23 13:58:41`.
    Full,
    /// `13:58:41`, beside a day.
    Clock,
    /// `2026-11-23`.
    Day,
    /// `23 Nov 13:58`.
    Short,
    /// `13:58:41.120`.
    Millis,
    /// `13:58`, below a chart.
    Hour,
    /// `23 Nov`, above a row of time.
    DayOfMonth,
    /// `Mon 23 Nov`, above the times of a day of this year.
    Weekday,
    /// `23 Nov 2026`, above those of another year.
    DayOfYear,
}

impl Form {
    /// Returns the name of the form in the script.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Form::Full => "dt",
            Form::Clock => "t",
            Form::Day => "d",
            Form::Short => "m",
            Form::Millis => "ms",
            Form::Hour => "h",
            Form::DayOfMonth => "md",
            Form::Weekday => "w",
            Form::DayOfYear => "y",
        }
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Returns a time as text, in UTC.
pub(crate) fn written(at: OffsetDateTime, form: Form) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let day = || {
        format!(
            "{:04}-{:02}-{:02}",
            at.year(),
            u8::from(at.month()),
            at.day()
        )
    };
    let clock = || format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second());
    match form {
        Form::Full => format!("{} {}", day(), clock()),
        Form::Clock => clock(),
        Form::Day => day(),
        Form::Short => format!("{} {:02}:{:02}", day_of_month(at), at.hour(), at.minute()),
        Form::Millis => format!("{}.{:03}", clock(), at.millisecond()),
        Form::Hour => format!("{:02}:{:02}", at.hour(), at.minute()),
        Form::DayOfMonth => day_of_month(at),
        Form::Weekday => {
            let weekday: String = at.weekday().to_string().chars().take(3).collect();
            format!("{weekday} {}", day_of_month(at))
        }
        Form::DayOfYear => format!("{} {:04}", day_of_month(at), at.year()),
    }
}

/// Returns the day of a time: `23 Nov`.
pub(crate) fn day_of_month(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let month = MONTHS.get(usize::from(u8::from(at.month())) - 1);
    format!("{:02} {}", at.day(), month.unwrap_or(&""))
}

/// Returns a time.
pub(crate) fn time(at: OffsetDateTime, form: Form) -> Markup {
    html! { time datetime=(Instant(at)) data-f=(form.name()) { (written(at, form)) } }
}

/// Names the clock of the times of a page: the script names the other one after the switch.
pub(crate) fn zone() -> Markup {
    html! { span data-z { "UTC" } }
}

/// Returns the time from `at` to `now` in words. Within the first hour the script keeps it true.
pub(crate) fn ago(at: OffsetDateTime, now: OffsetDateTime) -> Markup {
    html! { span class="q nw" data-rel=(Instant(at)) { (span(now - at)) " ago" } }
}

/// Returns a time with the time since then beside it.
pub(crate) fn since(at: OffsetDateTime, now: OffsetDateTime) -> Markup {
    html! { (time(at, Form::Full)) " " (ago(at, now)) }
}

/// Returns a length of time in the unit that fits.
pub(crate) fn span(length: Duration) -> String {
    let seconds = length.whole_seconds().max(0);
    match seconds {
        0 => format!("{} ms", length.whole_milliseconds().max(0)),
        1..60 => {
            let tenths = length.whole_milliseconds() / 100;
            match seconds {
                1..10 if tenths % 10 != 0 => format!("{}.{} s", tenths / 10, tenths % 10),
                _ => format!("{seconds} s"),
            }
        }
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => match seconds % 3600 / 60 {
            minutes @ 1.. if seconds < 36_000 => format!("{} h {minutes} min", seconds / 3600),
            _ => format!("{} h", seconds / 3600),
        },
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Reads the time that a person typed, in one of the common forms. Without an offset, UTC.
pub(crate) fn read(text: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
    typed(text, now).map(|(at, _)| at)
}

/// Reads the past that a person asks about. A time with seconds means the end of its second: pages
/// cut times to the second, so a time copied from a page includes the revision beside it. RFC 3339
/// is exact, as in the API.
pub(crate) fn read_past(text: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let (at, step) = typed(text, now)?;
    let rest = (step - Duration::MICROSECOND).max(Duration::ZERO);
    match at.checked_add(rest)? {
        end if end > now => Some(at.max(now)),
        end => Some(end),
    }
}

/// Reads a typed time, and the unit to which it is exact; zero for one without seconds.
fn typed(text: &str, now: OffsetDateTime) -> Option<(OffsetDateTime, Duration)> {
    let text = text.trim();
    if text.len() > 40 || !text.is_ascii() {
        return None;
    }
    if let Some(at) = tagtrail_proto::instant::parse(text) {
        return Some((at, Duration::ZERO));
    }
    let ago = ago_in_words(text, now).map(|at| (at, Duration::ZERO));
    ago.or_else(|| of_calendar(text, now))
}

/// Reads `2 h ago`, `yesterday`, `yesterday 12:00`, `yesterday noon`, `now`.
fn ago_in_words(text: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let lower = text.to_ascii_lowercase();
    if lower == "now" {
        return Some(now);
    }
    if let Some(clock) = lower.strip_prefix("yesterday") {
        let day = (now - Duration::DAY).date();
        return Some(day.with_time(clock_of(clock.trim())?.0).assume_utc());
    }
    let amount = lower.strip_suffix("ago")?.trim();
    let digits = amount.find(|char: char| !char.is_ascii_digit())?;
    let (count, unit) = amount.split_at(digits);
    let unit = match unit.trim() {
        "s" | "sec" | "second" | "seconds" => Duration::SECOND,
        "m" | "min" | "minute" | "minutes" => Duration::MINUTE,
        "h" | "hour" | "hours" => Duration::HOUR,
        "d" | "day" | "days" => Duration::DAY,
        "w" | "week" | "weeks" => Duration::WEEK,
        _ => return None,
    };
    let count = count.parse::<i32>().ok()?;
    now.checked_sub(unit.checked_mul(count)?)
}

/// Reads `2026-03-03 14:02`, `2026-03-03T14:02:05`, `3 Mar 14:02`, `3 Mar 2026`.
fn of_calendar(text: &str, now: OffsetDateTime) -> Option<(OffsetDateTime, Duration)> {
    let text = text.strip_suffix("UTC").unwrap_or(text).trim();
    let text = text
        .strip_suffix('Z')
        .unwrap_or(text)
        .replace(['T', ','], " ");
    let mut words = text.split_whitespace().peekable();
    let first = words.next()?;
    let date = match first.split('-').collect::<Vec<_>>()[..] {
        [year, month, day] => {
            let month = time::Month::try_from(month.parse::<u8>().ok()?).ok()?;
            time::Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?
        }
        _ => {
            let name = words.next()?.to_ascii_lowercase();
            let place = MONTHS
                .iter()
                .position(|month| name.starts_with(&month.to_ascii_lowercase()))?;
            let month = time::Month::try_from(u8::try_from(place + 1).ok()?).ok()?;
            let day = first.parse().ok()?;
            let year = match words.peek() {
                Some(year) if !year.contains(':') => words.next()?.parse().ok()?,
                _ => {
                    let this = time::Date::from_calendar_date(now.year(), month, day).ok()?;
                    now.year() - i32::from(this > now.date())
                }
            };
            time::Date::from_calendar_date(year, month, day).ok()?
        }
    };
    let (clock, step) = clock_of(words.next().unwrap_or_default())?;
    let at = date.with_time(clock).assume_utc();
    let in_range = words.next().is_none() && (0..=9999).contains(&at.year());
    in_range.then_some((at, step))
}

/// Reads `14:02`, `14:02:05` or `14:02:05.25`, and the unit of its last digit, if it has seconds;
/// nothing is midnight.
fn clock_of(text: &str) -> Option<(time::Time, Duration)> {
    if text.is_empty() {
        return Some((time::Time::MIDNIGHT, Duration::ZERO));
    }
    let text = if text == "noon" { "12:00" } else { text };
    let (hour, rest) = text.split_once(':')?;
    let (minute, seconds) = match rest.split_once(':') {
        Some((minute, seconds)) => (minute, Some(seconds)),
        None => (rest, None),
    };
    let (second, fraction) = seconds
        .unwrap_or("0")
        .split_once('.')
        .unwrap_or((seconds.unwrap_or("0"), ""));
    let digits: String = fraction.chars().take(6).collect();
    let step = Duration::SECOND / 10_i32.pow(u32::try_from(digits.len()).ok()?);
    let time = time::Time::from_hms_micro(
        hour.parse().ok()?,
        minute.parse().ok()?,
        second.parse().ok()?,
        format!("{digits:0<6}").parse().ok()?,
    )
    .ok()?;
    Some((time, seconds.map_or(Duration::ZERO, |_| step)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> OffsetDateTime {
        tagtrail_proto::instant::parse("2026-11-23T14:31:08Z").unwrap()
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (typed, expected) in [
            ("2026-03-03T14:02:00Z", "2026-03-03 14:02:00"),
            ("2026-03-03T15:02:00+01:00", "2026-03-03 14:02:00"),
            ("2026-03-03 14:02", "2026-03-03 14:02:00"),
            ("2026-03-03 14:02:05 UTC", "2026-03-03 14:02:05"),
            ("2026-03-03", "2026-03-03 00:00:00"),
            ("3 Mar 14:02", "2026-03-03 14:02:00"),
            ("3 March 2025", "2025-03-03 00:00:00"),
            ("24 Nov 10:00", "2025-11-24 10:00:00"),
            ("2 h ago", "2026-11-23 12:31:08"),
            ("3 days ago", "2026-11-20 14:31:08"),
            ("yesterday 12:00", "2026-11-22 12:00:00"),
            ("now", "2026-11-23 14:31:08"),
        ] {
            let read = read(typed, now()).map(|at| written(at, Form::Full));
            assert_eq!(read.as_deref(), Some(expected), "{typed}");
        }
        for wrong in [
            "",
            "soon",
            "2026-13-01",
            "32 Mar",
            "25:00",
            "999999999999 d ago",
            "é ago",
        ] {
            assert_eq!(read(wrong, now()), None, "{wrong}");
        }
    }

    #[test]
    fn a_typed_past_includes_the_second_that_a_page_shows() {
        let exact = |text: &str| tagtrail_proto::instant::parse(text).unwrap();
        for (typed, expected) in [
            ("2026-03-03 14:02:05", "2026-03-03T14:02:05.999999Z"),
            ("2026-03-03T14:02:05", "2026-03-03T14:02:05.999999Z"),
            ("3 Mar 14:02:05.12", "2026-03-03T14:02:05.129999Z"),
            ("2026-03-03 14:02:05.123456", "2026-03-03T14:02:05.123456Z"),
            // No seconds: the beginning of the minute or day, as people mean it.
            ("2026-03-03 14:02", "2026-03-03T14:02:00Z"),
            ("2026-03-03", "2026-03-03T00:00:00Z"),
            // The form of the API is exact.
            ("2026-03-03T14:02:05Z", "2026-03-03T14:02:05Z"),
            ("2 h ago", "2026-11-23T12:31:08Z"),
            // The present second has not ended.
            ("2026-11-23 14:31:08", "2026-11-23T14:31:08Z"),
            ("2026-11-23 14:31:09", "2026-11-23T14:31:09Z"),
        ] {
            let read = read_past(typed, now());
            assert_eq!(read, Some(exact(expected)), "{typed}");
        }
        for wrong in [
            "2026-03-03 14:02:05.x",
            "2026-03-03 14:02:",
            "2026-03-03 14:02:61",
        ] {
            assert_eq!(read_past(wrong, now()), None, "{wrong}");
        }
    }

    #[test]
    fn lengths_have_the_unit_that_fits() {
        for (millis, expected) in [
            (0, "0 ms"),
            (870, "870 ms"),
            (4_200, "4.2 s"),
            (41_000, "41 s"),
            (1_920_000, "32 min"),
            (11_520_000, "3 h 12 min"),
            (147_600_000, "41 h"),
            (604_800_000, "7 days"),
        ] {
            assert_eq!(span(Duration::milliseconds(millis)), expected);
        }
    }
}
