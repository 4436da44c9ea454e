//! Reading and marking the entries of the ledger.

use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_proto::Rollout;
use time::OffsetDateTime;

/// A change of a rollout's state that ROLLOUTS may lack.
#[derive(Debug)]
pub(crate) struct LedgerEntry {
    pub(crate) ordinal: i64,
    pub(crate) rollout: Rollout,
    pub(crate) changed_at: OffsetDateTime,
}

/// Returns the oldest unpublished entries, at most 256.
pub(crate) async fn unpublished(db: &mut PgConnection) -> Result<Vec<LedgerEntry>, sqlx::Error> {
    let rows = sqlx::query(
        "select ordinal, rollout, changed_at from rollout_change where not published order by ordinal limit 256",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let Json(rollout) = row.try_get("rollout")?;
            Ok(LedgerEntry {
                ordinal: row.try_get("ordinal")?,
                rollout,
                changed_at: row.try_get("changed_at")?,
            })
        })
        .collect()
}

/// Marks entries that ROLLOUTS has acknowledged.
pub(crate) async fn mark_published(
    db: &mut PgConnection,
    ordinals: &[i64],
) -> Result<(), sqlx::Error> {
    sqlx::query("update rollout_change set published = true where ordinal = any ($1)")
        .bind(ordinals)
        .execute(db)
        .await
        .map(|_| ())
}
