//! Attempts at rollouts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

/// An attempt at a rollout: one call of the target.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Attempt {
    /// Number: 1, 2, 3 … per rollout.
    pub(crate) number: u32,
    #[serde(with = "tagtrail_proto::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(crate) started_at: OffsetDateTime,
    /// Null while the attempt runs.
    #[serde(with = "tagtrail_proto::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(crate) finished_at: Option<OffsetDateTime>,
    /// `done`, `applied`, `failed`, `refused`, `gone`, `interrupted` (cut off, as by a stop of the
    /// service) or `cancelled`. Null while the attempt runs.
    pub(crate) outcome: Option<String>,
    /// HTTP status or exit code, if the target answered.
    pub(crate) status: Option<i32>,
    /// Cause of the failure, for people.
    pub(crate) error: Option<String>,
    /// Time of the next attempt as planned at the end of this one, if one followed.
    #[serde(with = "tagtrail_proto::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(crate) next_at: Option<OffsetDateTime>,
    /// The end of the target's answer or output. It grows while a command runs.
    pub(crate) said: String,
}

/// Returns the attempts at a rollout, newest first. Key: number.
pub(crate) async fn of(
    db: &mut PgConnection,
    rollout: Uuid,
    after: Option<[i64; 1]>,
    limit: i64,
) -> Result<Vec<([i64; 1], Attempt)>, sqlx::Error> {
    let rows = sqlx::query(
        "select number, started_at, finished_at, outcome::text as outcome, status, error, next_at, said
         from rollout_attempt where rollout_id = $1 and number < coalesce($2, 2147483647)
         order by number desc limit $3",
    )
    .bind(rollout)
    .bind(after.map(|[number]| i32::try_from(number).unwrap_or(i32::MAX)))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let number: i32 = row.try_get("number")?;
            let attempt = Attempt {
                number: u32::try_from(number).unwrap_or(0),
                started_at: row.try_get("started_at")?,
                finished_at: row.try_get("finished_at")?,
                outcome: row.try_get("outcome")?,
                status: row.try_get("status")?,
                error: row.try_get("error")?,
                next_at: row.try_get("next_at")?,
                said: row.try_get("said")?,
            };
            Ok(([i64::from(number)], attempt))
        })
        .collect()
}

/// Returns whether there is a rollout with this id.
pub(crate) async fn has_rollout(db: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from rollout where id = $1)")
        .bind(id)
        .fetch_one(db)
        .await
}
