//! Windows: the times at which rollouts may begin.
//!
//! A window is open while one of its `open` ranges applies (always, if there is none), and no
//! `closed` range does. Clock times are those of the window's zone. A time that a change of the
//! clock skips counts as the end of the skipped span; a repeated time counts as the first one.

mod cron;
mod range;
mod zone;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use jiff::tz::TimeZone;

use range::Range;
use zone::Zone;

/// Most ranges of a list.
const RANGES: usize = 100;
/// Most changes of single ranges that are looked at before the next change of the window.
const STEPS: usize = 1000;

/// The settings of a window, as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSettings {
    /// The ranges in which rollouts may begin. Without one: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Written>,
    /// The ranges in which no rollout begins, also inside of `open`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<Written>,
    /// The zone of the clock times, such as `Europe/Berlin`. Without it: UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// A range as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "a range is a text such as \"mon-fri 09:00-16:00\" or \"2026-12-20/2027-01-04\", or { cron = \"0 22 * * 5\", for = \"58h\" }"
)]
pub enum Written {
    /// Days of the week with clock times, or dates.
    Text(String),
    /// A span after each time of a cron expression.
    Cron(CronRange),
}

/// A span after each time of a cron expression.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CronRange {
    /// Minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// The length of the span: from 1 minute to 31 days.
    pub r#for: String,
}

/// A mistake in the settings of a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {cause}")]
pub struct Refused {
    /// The setting: `open`, `closed` or `zone`.
    pub field: &'static str,
    /// The mistake with its cure.
    pub cause: String,
}

/// A window.
#[derive(Debug, Clone)]
pub struct Window {
    open: Vec<Range>,
    closed: Vec<Range>,
    zone: Zone,
}

/// The state of a window at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The reason, if the window is closed.
    pub closed: Option<String>,
    /// Of a closed window, the time at which it opens; of an open one, a time up to which it stays
    /// open. `None` if there is none in ten years, or if it is not known.
    pub changes_at: Option<OffsetDateTime>,
}

impl WindowSettings {
    /// Reads the ranges. `zone` is the zone that the settings name; the caller loads it.
    ///
    /// # Errors
    /// For a range that can't be read, and for a window without a range.
    pub fn compile(&self, zone: TimeZone) -> Result<Window, Refused> {
        let read = |field, list: &[Written]| {
            let refused = |cause| Refused { field, cause };
            if list.len() > RANGES {
                return Err(refused(format!("has more than {RANGES} ranges")));
            }
            let ranges = list.iter().map(|range| Range::read(range).map_err(refused));
            ranges.collect::<Result<Vec<Range>, Refused>>()
        };
        if self.open.is_empty() && self.closed.is_empty() {
            let cause = "the window has no range; write open = [\"mon-fri 09:00-16:00\"], or leave the window out";
            return Err(Refused {
                field: "open",
                cause: cause.to_owned(),
            });
        }
        Ok(Window {
            open: read("open", &self.open)?,
            closed: read("closed", &self.closed)?,
            zone: Zone(zone),
        })
    }
}

impl Window {
    /// Returns the state of the window.
    #[must_use]
    pub fn at(&self, now: OffsetDateTime) -> State {
        State {
            closed: self.closed_because(now),
            changes_at: self.changes_after(now),
        }
    }

    fn is_closed(&self, at: OffsetDateTime) -> bool {
        let applies = |range: &Range| range.end_of_span(at, &self.zone).is_some();
        self.closed.iter().any(applies) || !self.open.is_empty() && !self.open.iter().any(applies)
    }

    fn closed_because(&self, now: OffsetDateTime) -> Option<String> {
        let applies = |range: &&Range| range.end_of_span(now, &self.zone).is_some();
        let zone = self.zone.name();
        if let Some(range) = self.closed.iter().find(applies) {
            return Some(format!("closed by {range} ({zone})"));
        }
        self.is_closed(now).then(|| {
            let ranges: Vec<String> = self.open.iter().take(3).map(ToString::to_string).collect();
            let more = if self.open.len() > 3 { ", …" } else { "" };
            format!("open only {}{more} ({zone})", ranges.join(", "))
        })
    }

    /// Returns the first time after `now` at which the window is open if it is closed now, or
    /// closed if it is open now. If that is too far away, an open window stays open up to the
    /// returned time at least.
    fn changes_after(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let closed = self.is_closed(now);
        let mut at = now;
        for _ in 0..STEPS {
            let ranges = self.open.iter().chain(&self.closed);
            let next = ranges.filter_map(|range| {
                let end = range.end_of_span(at, &self.zone);
                end.into_iter()
                    .chain(range.start_after(at, &self.zone))
                    .min()
            });
            at = next.min()?;
            if self.is_closed(at) != closed {
                return Some(at);
            }
        }
        Some(at).filter(|_| !closed)
    }
}

#[cfg(test)]
mod tests;
