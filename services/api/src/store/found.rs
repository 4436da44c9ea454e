//! Rollouts and triggers by a text.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use uuid::Uuid;

/// A rollout by its trigger and number.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct FoundRollout {
    pub(crate) id: String,
    /// Name of the trigger.
    pub(crate) trigger: String,
    pub(crate) number: u64,
    pub(crate) state: String,
}

/// Returns the rollout of a trigger, by its present name or an old one, with this number.
pub(crate) async fn rollout(
    db: &mut PgConnection,
    trigger: &str,
    number: i64,
) -> Result<Option<FoundRollout>, sqlx::Error> {
    let row = sqlx::query(
        "select o.id, t.name, o.number, o.state::text as state
         from rollout o join trigger t on t.id = o.trigger_id
         where o.number = $2 and o.trigger_id = coalesce(
             (select id from trigger where name = $1), (select trigger_id from trigger_name where name = $1))",
    )
    .bind(trigger)
    .bind(number)
    .fetch_optional(db)
    .await?;
    let found = |row: PgRow| {
        Ok(FoundRollout {
            id: row.try_get::<Uuid, _>("id")?.to_string(),
            trigger: row.try_get("name")?,
            number: row::unsigned(row.try_get("number")?),
            state: row.try_get("state")?,
        })
    };
    row.map(found).transpose()
}

/// Returns the names of configured triggers that contain a text; at most `limit`.
pub(crate) async fn triggers(
    db: &mut PgConnection,
    part: &str,
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select name from trigger where configured and position(lower($1) in name) > 0
         order by length(name), name limit $2",
    )
    .bind(part)
    .bind(limit)
    .fetch_all(db)
    .await
}
