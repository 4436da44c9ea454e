//! Rollouts.

use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::Rollout;
use uuid::Uuid;

use tagtrail_history::instant::{of_key, to_micros};

/// Returns all rollouts, newest first. Key: time of recording, row id of the trigger, number.
pub(crate) async fn all(
    db: &mut PgConnection,
    after: Option<[i64; 3]>,
    limit: i64,
) -> Result<Vec<([i64; 3], Rollout)>, sqlx::Error> {
    let after = after
        .map(|[at, trigger, number]| of_key(at).map(|at| (at, trigger, number)))
        .transpose()?;
    let rows = sqlx::query(
        "select t.name as trigger, o.trigger_id::bigint as trigger_id,
                o.id, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error
         from rollout o join trigger t on t.id = o.trigger_id
         where (o.created_at, o.trigger_id, o.number) < (coalesce($1::timestamptz, 'infinity'), coalesce($2, 0), coalesce($3, 0))
         order by o.created_at desc, o.trigger_id desc, o.number desc limit $4",
    )
    .bind(after.map(|(at, _, _)| at))
    .bind(after.map(|(_, trigger, _)| trigger))
    .bind(after.map(|(_, _, number)| number))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let key = [
                to_micros(row.try_get("created_at")?),
                row.try_get("trigger_id")?,
                row.try_get("number")?,
            ];
            Ok((key, row::rollout(row)?))
        })
        .collect()
}

/// Returns the rollouts of a trigger, newest first. Key: number.
pub(crate) async fn of(
    db: &mut PgConnection,
    trigger: i32,
    after: Option<[i64; 1]>,
    limit: i64,
) -> Result<Vec<([i64; 1], Rollout)>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name as trigger,
                o.id, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error
         from rollout o join trigger t on t.id = o.trigger_id
         where o.trigger_id = $1 and o.number < coalesce($2, 9223372036854775807)
         order by o.number desc limit $3",
    )
    .bind(trigger)
    .bind(after.map(|[number]| number))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok(([row.try_get("number")?], row::rollout(row)?)))
        .collect()
}

/// Returns a rollout.
pub(crate) async fn one(db: &mut PgConnection, id: Uuid) -> Result<Option<Rollout>, sqlx::Error> {
    let found = sqlx::query(
        "select t.name as trigger,
                o.id, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error
         from rollout o join trigger t on t.id = o.trigger_id
         where o.id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    found.as_ref().map(row::rollout).transpose()
}
