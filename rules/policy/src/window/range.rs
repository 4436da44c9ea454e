//! One range of a window: spans of time that recur or do not.

use std::fmt;
use std::time::Duration;

use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime, Weekday};
use time::OffsetDateTime;

use super::cron::Cron;
use super::zone::Zone;
use super::{CronRange, Written};
use crate::selection::duration;

/// The bounds of the span after a cron time.
const SPAN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(31 * 24 * 3600));
/// The days that are searched for the next span.
const DAYS: usize = 10 * 366;
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A range, with the text that people wrote.
#[derive(Debug, Clone)]
pub(super) struct Range {
    written: String,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    /// On these days of the week, from a minute of the day to a later one, which may belong to the
    /// next day.
    Week {
        /// From Monday on.
        days: [bool; 7],
        from: i64,
        to: i64,
    },
    /// Once, from a clock time to another.
    Dates { from: DateTime, to: DateTime },
    /// A span after each time of a cron expression.
    Cron { times: Cron, length: Duration },
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Range {
    /// Reads a range, or returns the mistake with its cure.
    pub(super) fn read(written: &Written) -> Result<Range, String> {
        let (rule, written) = match written {
            Written::Text(text) if text.contains('/') => (dates(text)?, text.trim().to_owned()),
            Written::Text(text) => match text.trim().parse::<Date>() {
                Ok(date) => (days_from(date, date)?, text.trim().to_owned()),
                Err(_) => (week(text)?, text.trim().to_owned()),
            },
            Written::Cron(CronRange { cron, r#for }) => {
                let times = Cron::read(cron)?;
                let length = duration::parse(r#for, SPAN.1)?;
                if length < SPAN.0 {
                    return Err(format!("{for:?} is too short; write at least 1m"));
                }
                let written = format!("{} after each time of cron {:?}", r#for, cron);
                (Rule::Cron { times, length }, written)
            }
        };
        Ok(Range { written, rule })
    }

    /// Returns the end of the span that contains `at`.
    pub(super) fn end_of_span(&self, at: OffsetDateTime, zone: &Zone) -> Option<OffsetDateTime> {
        let ends = match &self.rule {
            Rule::Week { days, from, to } => {
                let today = zone.clock(at)?.date();
                let yesterday = today.yesterday().ok();
                let mut ends = Vec::new();
                for date in [Some(today), yesterday].into_iter().flatten() {
                    if days[weekday(date)] && zone.time(minute(date, *from)?)? <= at {
                        ends.push(zone.time(minute(date, *to)?)?);
                    }
                }
                ends
            }
            Rule::Dates { from, to } => match zone.time(*from)? <= at {
                true => vec![zone.time(*to)?],
                false => Vec::new(),
            },
            Rule::Cron { times, length } => {
                let start = times.before(at, zone, *length)?;
                vec![start.checked_add((*length).try_into().ok()?)?]
            }
        };
        ends.into_iter().filter(|end| *end > at).max()
    }

    /// Returns the start of the first span that begins after `at`.
    pub(super) fn start_after(&self, at: OffsetDateTime, zone: &Zone) -> Option<OffsetDateTime> {
        match &self.rule {
            Rule::Week { days, from, .. } => {
                let mut date = zone.clock(at)?.date();
                // After a week the days repeat; a change of the clock moves a start by hours.
                for _ in 0..9 {
                    if days[weekday(date)] {
                        let start = zone.time(minute(date, *from)?)?;
                        if start > at {
                            return Some(start);
                        }
                    }
                    date = date.tomorrow().ok()?;
                }
                None
            }
            Rule::Dates { from, .. } => zone.time(*from).filter(|start| *start > at),
            Rule::Cron { times, .. } => times.after(at, zone, DAYS),
        }
    }
}

/// Returns the number of the day of the week, Monday being 0.
fn weekday(date: Date) -> usize {
    match date.weekday() {
        Weekday::Monday => 0,
        Weekday::Tuesday => 1,
        Weekday::Wednesday => 2,
        Weekday::Thursday => 3,
        Weekday::Friday => 4,
        Weekday::Saturday => 5,
        Weekday::Sunday => 6,
    }
}

/// Returns the clock time of a minute of a day, which may belong to the next day.
fn minute(date: Date, minute: i64) -> Option<DateTime> {
    date.at(0, 0, 0, 0).checked_add(minute.minutes()).ok()
}

/// Reads `2026-12-20/2027-01-04`, whose last day counts, or two clock times.
fn dates(text: &str) -> Result<Rule, String> {
    let refused = || {
        format!(
            "{text:?} is no pair of dates; write \"2026-12-20/2027-01-04\", both days included, or \"2026-12-20T18:00/2027-01-04T06:00\""
        )
    };
    let (from, to) = text.split_once('/').ok_or_else(refused)?;
    let (from, to) = (from.trim(), to.trim());
    match (from.contains('T'), to.contains('T')) {
        (false, false) => {
            let (from, to) = (from.parse().ok(), to.parse().ok());
            let (from, to) = from.zip(to).ok_or_else(refused)?;
            days_from(from, to)
        }
        (true, true) => {
            let (from, to): (Option<DateTime>, Option<DateTime>) =
                (from.parse().ok(), to.parse().ok());
            let (from, to) = from.zip(to).ok_or_else(refused)?;
            match from < to {
                true => Ok(Rule::Dates { from, to }),
                false => Err(format!("{text:?} ends before it begins")),
            }
        }
        _ => Err(refused()),
    }
}

fn days_from(from: Date, to: Date) -> Result<Rule, String> {
    if to < from {
        return Err(format!("\"{from}/{to}\" ends before it begins"));
    }
    let after = to.tomorrow();
    let after = after.map_err(|_| format!("{to} is too far in the future"))?;
    let start = |date: Date| date.at(0, 0, 0, 0);
    Ok(Rule::Dates {
        from: start(from),
        to: start(after),
    })
}

/// Reads days, clock times or both: `mon-fri 09:00-16:00`, `sat,sun`, `22:00-06:00`.
fn week(text: &str) -> Result<Rule, String> {
    let refused = || {
        format!(
            "{text:?} is no range; write days and clock times such as \"mon-fri 09:00-16:00\", \"sat,sun\" or \"22:00-06:00\", dates such as \"2026-12-20/2027-01-04\", or {{ cron = \"0 22 * * 5\", for = \"58h\" }}"
        )
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, times) = match words.as_slice() {
        [times] if times.contains(':') => (None, Some(*times)),
        [days] => (Some(*days), None),
        [days, times] => (Some(*days), Some(*times)),
        _ => return Err(refused()),
    };
    let days = match days {
        Some(days) => weekdays(days).ok_or_else(refused)?,
        None => [true; 7],
    };
    let (from, to) = match times {
        Some(times) => {
            let (from, to) = times.split_once('-').ok_or_else(refused)?;
            let (from, to) = (clock(from), clock(to));
            let (from, to) = from.zip(to).ok_or_else(refused)?;
            if from == to || from == DAY {
                return Err(format!(
                    "{text:?} has no length; a whole day is \"00:00-24:00\""
                ));
            }
            (from, if to < from { to + DAY } else { to })
        }
        None => (0, DAY),
    };
    Ok(Rule::Week { days, from, to })
}

/// The minutes of a day.
const DAY: i64 = 24 * 60;

/// Reads `09:00`, up to `24:00`, as a minute of the day.
fn clock(text: &str) -> Option<i64> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<i64>().ok()).flatten()
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY).then_some(minutes)
}

/// Reads `mon-fri`, `sat,sun`, `fri-mon`.
fn weekdays(text: &str) -> Option<[bool; 7]> {
    let text = text.to_ascii_lowercase();
    let number = |name: &str| NAMES.iter().position(|known| *known == name);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (number(from)?, number(to)?);
        let mut day = from;
        days[day] = true;
        while day != to {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Some(days)
}
