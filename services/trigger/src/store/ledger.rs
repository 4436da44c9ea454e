//! Marking the entries of the ledger.

use sqlx::PgConnection;
use tagtrail_condition::changes::Changes;

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
