//! Counts changes by repository and day, behind the recording of pushes, in the session that counts
//! changes for the coverage report. The position moves in the transaction that changes the numbers,
//! so nothing is counted twice or passed over. After an upgrade, history is counted in batches.

use sqlx::{Connection as _, PgConnection};
use tagtrail_history::recorded::{self, OrdinalRange};

use crate::coverage::share;
use crate::store::days as store;

/// Counts a batch. Returns whether more revisions are waiting.
pub(crate) async fn count(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mut tx = db
        .begin_with("begin isolation level repeatable read")
        .await?;
    let counted = store::counted(&mut tx).await?;
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
    store::add(&mut tx, &ranges).await?;
    tx.commit().await?;
    Ok(more)
}
