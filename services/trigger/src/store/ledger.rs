//! What is to be published, and what was.

use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_proto::Rollout;
use time::OffsetDateTime;

/// A change of state to be published.
#[derive(Debug)]
pub(crate) struct LedgerEntry {
    pub(crate) ordinal: i64,
    pub(crate) rollout: Rollout,
    pub(crate) changed_at: OffsetDateTime,
}

/// The oldest changes that are not published.
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

/// Notes that these changes were acknowledged.
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
