//! Counts changes and tags for pages, behind the recording of pushes, in the session that counts
//! changes for the coverage report. The position moves in the transaction that changes the numbers,
//! so nothing is counted twice or passed over. After an upgrade, history is counted in batches.

use sqlx::{Connection as _, PgConnection};
use tagtrail_history::recorded::{self, OrdinalRange};

use crate::coverage::share;
use crate::store::{days, position, stats};

/// Counts a batch of each kind of numbers. Returns whether more revisions are waiting.
pub(crate) async fn count(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let by_day = batch(db, days::COUNTED, days::add).await?;
    let recent = batch(db, stats::COUNTED, stats::add).await?;
    Ok(by_day || recent)
}

/// Counts a batch: the statement `counted` returns the ordinal of the last revision that is
/// counted, by partition, and `add` counts ranges. Returns whether more revisions are waiting.
async fn batch(
    db: &mut PgConnection,
    counted: &'static str,
    add: impl AsyncFnOnce(&mut PgConnection, &[OrdinalRange]) -> Result<(), sqlx::Error>,
) -> Result<bool, sqlx::Error> {
    let mut tx = db
        .begin_with("begin isolation level repeatable read")
        .await?;
    let counted = position::counted(&mut tx, counted).await?;
    let waiting = recorded::ends(&mut tx)
        .await?
        .into_iter()
        .map(|(partition, until)| OrdinalRange {
            partition,
            after: counted.get(&partition).copied().unwrap_or(0),
            until,
        })
        .collect();
    let (ranges, more) = share(waiting);
    if ranges.iter().all(|range| range.after >= range.until) {
        tx.rollback().await?;
        return Ok(false);
    }
    add(&mut tx, &ranges).await?;
    tx.commit().await?;
    Ok(more)
}
