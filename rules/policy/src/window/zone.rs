//! Clock times of a zone, and changes of its clock.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use time::OffsetDateTime;

/// A zone, with the rule for clock times that do not exist or exist twice.
#[derive(Debug, Clone)]
pub(super) struct Zone(pub(super) TimeZone);

impl Zone {
    pub(super) fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// Returns the clock time at a time; `None` outside the years that jiff knows.
    pub(super) fn clock(&self, at: OffsetDateTime) -> Option<DateTime> {
        let at = Timestamp::from_nanosecond(at.unix_timestamp_nanos()).ok()?;
        Some(self.0.to_datetime(at))
    }

    /// Returns the time of a clock time. A skipped one counts as the end of the skipped span, a
    /// repeated one as the first.
    pub(super) fn time(&self, clock: DateTime) -> Option<OffsetDateTime> {
        let at = match self.0.to_ambiguous_timestamp(clock).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(clock),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(clock),
            // By the offset after the change the clock time lies before the change.
            AmbiguousOffset::Gap { after, .. } => {
                let before = after.to_timestamp(clock).ok()?;
                let change = self.0.following(before).next()?;
                Ok(change.timestamp())
            }
        };
        OffsetDateTime::from_unix_timestamp_nanos(at.ok()?.as_nanosecond()).ok()
    }
}
