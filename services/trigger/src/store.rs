//! All SQL of the trigger service, by who runs it. Functions that write expect the caller's transaction. Whoever changes a
//! rollout holds its trigger's row (`for update`), so the changes of one trigger are recorded in the order in which they are
//! committed.

pub(crate) mod ledger;
pub(crate) mod planning;
pub(crate) mod working;

use sqlx::PgConnection;
use sqlx::types::Json;
use tagtrail_proto::Rollout;

/// Columns of a rollout `o` with its trigger `t`, as [`tagtrail_postgres::row::rollout`] reads them.
macro_rules! columns {
    () => {
        "o.id, t.name as trigger, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error"
    };
}
use columns;

/// Adds changes of state to the ledger.
async fn record(db: &mut PgConnection, changed: &[Rollout]) -> Result<(), sqlx::Error> {
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into rollout_change (rollout_id, state, rollout)
         select id::uuid, state::rollout_state, rollout from unnest($1::text[], $2::text[], $3::jsonb[]) as c (id, state, rollout)",
    )
    .bind(changed.iter().map(|rollout| rollout.id.as_str()).collect::<Vec<_>>())
    .bind(changed.iter().map(|rollout| rollout.state.as_str()).collect::<Vec<_>>())
    .bind(changed.iter().map(Json).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}
