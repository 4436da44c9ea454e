//! Counts by evenly spaced slots of time, as statements return them: the numbers of the slots that
//! have any, and their counts.

use sqlx::postgres::PgRow;
use sqlx::{Error, Row as _};
use tagtrail_postgres::row;
use time::{Duration, OffsetDateTime};

/// Half hours of a day.
pub const HALF_HOURS: usize = 48;
/// Minutes of an hour.
pub const MINUTES: usize = 60;

/// Returns the first of the 48 half hours that end with the present one, as half hours since 1970.
#[must_use]
pub fn first_half_hour(now: OffsetDateTime) -> i32 {
    first(now, 1800, HALF_HOURS)
}

/// Returns the first of the 60 minutes that end with the present one, as minutes since 1970.
#[must_use]
pub fn first_minute(now: OffsetDateTime) -> i32 {
    first(now, 60, MINUTES)
}

/// Returns the begin of the first of the 60 minutes that end with the present one.
#[must_use]
pub fn first_minute_at(now: OffsetDateTime) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::minutes(first_minute(now).into())
}

fn first(now: OffsetDateTime, seconds: i64, slots: usize) -> i32 {
    let present = i32::try_from(now.unix_timestamp().div_euclid(seconds)).unwrap_or(i32::MAX);
    present.saturating_add(1) - i32::try_from(slots).unwrap_or(0)
}

/// Reads the columns `slots` and `counts`. Slots that a row does not name have no counts, and those
/// outside of the time are left out.
pub(crate) fn slots<const N: usize>(found: &PgRow) -> Result<[u64; N], Error> {
    let places: Option<Vec<i32>> = found.try_get("slots")?;
    let counts: Option<Vec<i64>> = found.try_get("counts")?;
    let mut slots = [0; N];
    for (place, count) in places.iter().flatten().zip(counts.iter().flatten()) {
        let place = usize::try_from(*place).ok();
        if let Some(slot) = place.and_then(|place| slots.get_mut(place)) {
            *slot = row::unsigned(*count);
        }
    }
    Ok(slots)
}
