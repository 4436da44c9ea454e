//! Cron expressions with five fields.

use std::time::Duration;

use jiff::civil::Date;
use time::OffsetDateTime;

use super::zone::Zone;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A cron expression: minute, hour, day of the month, month, day of the week. Where both kinds of
/// days are limited, either suffices, as in cron.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is 0.
    weekdays: u64,
    /// True if one of the two fields of days is `*`, or begins with it: both must match.
    both_days: bool,
}

/// A field: its name, the least and the greatest value, and the names of values.
struct Field {
    name: &'static str,
    least: u32,
    greatest: u32,
    names: &'static [&'static str],
}

impl Cron {
    /// Reads an expression, or returns the mistake with its cure.
    pub(super) fn read(text: &str) -> Result<Cron, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "{text:?} has {} fields; a cron expression has five: minute, hour, day of the month, month, day of the week, such as \"0 22 * * 5\"",
                fields.len()
            ));
        };
        let field = |name, (least, greatest), names| Field {
            name,
            least,
            greatest,
            names,
        };
        let weekdays = field("day of the week", (0, 7), &DAYS).read(weekday)?;
        let cron = Cron {
            minutes: field("minute", (0, 59), &[]).read(minute)?,
            hours: field("hour", (0, 23), &[]).read(hour)?,
            days: field("day of the month", (1, 31), &[]).read(day)?,
            months: field("month", (1, 12), &MONTHS).read(month)?,
            // 7 is Sunday too.
            weekdays: weekdays & 0x7f | weekdays >> 7,
            both_days: day.starts_with('*') || weekday.starts_with('*'),
        };
        // February has at most 29 days; a day of the week alone occurs in each month.
        let longest = |month: u32| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut months = (1..=12).filter(|month| cron.months & 1 << month != 0);
        let occurs = months.any(|month| (1..=longest(month)).any(|day| cron.days & 1 << day != 0));
        match occurs || !cron.both_days {
            true => Ok(cron),
            false => Err(format!("{text:?} names a day that its months do not have")),
        }
    }

    fn on(&self, date: Date) -> bool {
        let has = |set: u64, value: i8| set & 1 << value != 0;
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month())
            && match self.both_days {
                true => day && weekday,
                false => day || weekday,
            }
    }

    /// Returns the hours of a day that count, in order.
    fn hours(&self) -> impl DoubleEndedIterator<Item = i8> {
        (0..24i8).filter(|hour| self.hours & 1 << hour != 0)
    }

    /// Returns the times of an hour, in order.
    fn times<'a>(
        &'a self,
        date: Date,
        hour: i8,
        zone: &'a Zone,
    ) -> impl DoubleEndedIterator<Item = OffsetDateTime> + 'a {
        let minutes = (0..60i8).filter(|minute| self.minutes & 1 << minute != 0);
        minutes.filter_map(move |minute| zone.time(date.at(hour, minute, 0, 0)))
    }

    /// Returns the first time after `at`, if there is one within this number of days.
    pub(super) fn after(
        &self,
        at: OffsetDateTime,
        zone: &Zone,
        days: usize,
    ) -> Option<OffsetDateTime> {
        let mut date = zone.clock(at)?.date();
        for _ in 0..days {
            for hour in self.hours().filter(|_| self.on(date)) {
                let last = self.times(date, hour, zone).next_back();
                if last.is_some_and(|last| last > at) {
                    return self.times(date, hour, zone).find(|time| *time > at);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// Returns the last time up to `at`, if there is one within `length` before.
    pub(super) fn before(
        &self,
        at: OffsetDateTime,
        zone: &Zone,
        length: Duration,
    ) -> Option<OffsetDateTime> {
        let mut date = zone.clock(at)?.date();
        // A day more, since a span of 24 h may begin on the day before the day before.
        for _ in 0..=length.as_secs().div_ceil(24 * 3600) + 1 {
            for hour in self.hours().rev().filter(|_| self.on(date)) {
                let first = self.times(date, hour, zone).next();
                if first.is_some_and(|first| first <= at) {
                    return self.times(date, hour, zone).rfind(|time| *time <= at);
                }
            }
            date = date.yesterday().ok()?;
        }
        None
    }
}

impl Field {
    /// Reads a field as a set of bits: `*`, `5`, `1-5`, `*/10`, `10-40/10`, and lists of them.
    fn read(&self, text: &str) -> Result<u64, String> {
        let mut set = 0;
        for part in text.split(',') {
            let (span, step) = match part.split_once('/') {
                Some((span, step)) => {
                    let step = step.parse().ok().filter(|step: &u32| *step > 0);
                    (span, step.ok_or_else(|| self.refused(part))?)
                }
                None => (part, 1),
            };
            let (from, to) = match span.split_once('-') {
                _ if span == "*" => (self.least, self.greatest),
                Some((from, to)) => (self.value(from, part)?, self.value(to, part)?),
                None if part.contains('/') => (self.value(span, part)?, self.greatest),
                None => {
                    let value = self.value(span, part)?;
                    (value, value)
                }
            };
            if from > to {
                return Err(self.refused(part));
            }
            let steps = usize::try_from(step).unwrap_or(usize::MAX);
            set |= (from..=to)
                .step_by(steps)
                .fold(0, |set, value| set | 1 << value);
        }
        Ok(set)
    }

    fn value(&self, text: &str, part: &str) -> Result<u32, String> {
        let name = text.to_ascii_lowercase();
        let named = self.names.iter().position(|known| *known == name);
        let named = named.and_then(|place| u32::try_from(place).ok());
        // The first month is 1, the first day of the week 0.
        let named = named.map(|place| place + self.least);
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = named.or_else(|| text.parse().ok().filter(|_| digits));
        let in_range = |value: &u32| (self.least..=self.greatest).contains(value);
        value.filter(in_range).ok_or_else(|| self.refused(part))
    }

    fn refused(&self, part: &str) -> String {
        let Field {
            name,
            least,
            greatest,
            ..
        } = self;
        format!(
            "{part:?} is no {name} of a cron expression: write *, a number from {least} to {greatest}, a range such as {least}-{greatest}, or a step such as */2"
        )
    }
}
