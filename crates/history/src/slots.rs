//! Counts by evenly spaced slots of time, as statements return them: the numbers of the slots that
//! have any, and their counts.

use sqlx::postgres::PgRow;
use sqlx::{Error, Row as _};
use tagtrail_postgres::row;

/// Half hours of a day.
pub const HALF_HOURS: usize = 48;
/// Minutes of an hour.
pub const MINUTES: usize = 60;

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
