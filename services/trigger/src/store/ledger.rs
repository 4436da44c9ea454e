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

/// The tables of changes, whose rows ROLLOUTS gets in their order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Changes {
    Rollouts,
    Holds,
    Conditions,
}

/// Marks changes that ROLLOUTS has acknowledged.
pub(crate) async fn mark_published(
    db: &mut PgConnection,
    of: Changes,
    ordinals: &[i64],
) -> Result<(), sqlx::Error> {
    let statement = match of {
        Changes::Rollouts => "update rollout_change set published = true where ordinal = any ($1)",
        Changes::Holds => "update hold_change set published = true where ordinal = any ($1)",
        Changes::Conditions => {
            "update condition_change set published = true where ordinal = any ($1)"
        }
    };
    let marking = sqlx::query(statement).bind(ordinals).execute(db);
    marking.await.map(|_| ())
}
