//! Changes of holds, for ROLLOUTS.

use sqlx::PgConnection;
use tagtrail_condition::changes::{self, Changed, Which};
use tagtrail_proto::Held;

/// Records the holds that have ended by themselves since the last call, and returns the oldest
/// unpublished changes of holds, at most 256.
pub(crate) async fn unpublished(db: &mut PgConnection) -> Result<Vec<Changed<Held>>, sqlx::Error> {
    sqlx::query(
        "insert into hold_change (hold_id, change, changed_at)
         select h.id, 'expired', h.until from hold h
         where h.released_at is null and h.until <= now()
           and exists (select from hold_change c where c.hold_id = h.id and c.change = 'set')
           and not exists (select from hold_change c where c.hold_id = h.id and c.change = 'expired')
         on conflict do nothing",
    )
    .execute(&mut *db)
    .await?;
    changes::holds(db, Which::Unpublished).await
}
