//! The statements of the workers.

use std::time::Duration;

use sqlx::{PgConnection, Row as _};
use tagtrail_failpoint::FailPoint;
use tagtrail_postgres::row;
use tagtrail_proto::{Rollout, RolloutState, TraceContext};
use time::OffsetDateTime;

use super::columns::{columns, recorded};

/// The rollouts that need an attempt.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Ids of triggers with a due rollout, including attempts that are already under way.
    pub(crate) due: Vec<i32>,
    /// The time until the next rollout is due.
    pub(crate) next: Option<Duration>,
}

/// Returns the backlog of the triggers with these names.
pub(crate) async fn backlog(db: &mut PgConnection, names: &[&str]) -> Result<Backlog, sqlx::Error> {
    let rows = sqlx::query(
        "select o.trigger_id, greatest(extract(epoch from o.next_attempt_at - now()), 0)::float8 as due_in_seconds
         from rollout o join trigger t on t.id = o.trigger_id
         where o.state in ('pending', 'running') and t.configured and t.state = 'active' and t.name = any ($1)
         order by o.next_attempt_at limit 256",
    )
    .bind(names)
    .fetch_all(db)
    .await?;
    let mut backlog = Backlog::default();
    for row in &rows {
        let seconds: f64 = row.try_get("due_in_seconds")?;
        if seconds > 0.0 {
            backlog.next = Some(Duration::from_secs_f64(seconds));
            break;
        }
        backlog.due.push(row.try_get("trigger_id")?);
    }
    backlog.due.dedup();
    Ok(backlog)
}

/// An attempt as recorded at its begin.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) rollout: Rollout,
    /// The time of the first attempt.
    pub(crate) started_at: OffsetDateTime,
    /// The trace of the revision that led to the rollout.
    pub(crate) trace: Option<TraceContext>,
}

/// Begins an attempt of the newest live rollout of a trigger, and supersedes all older live
/// rollouts. A rollout with an image whose head has changed before the first attempt is withdrawn
/// instead: the planner decides again on the present heads. `None` if no rollout may be attempted
/// now, or if the planner recorded a rollout meanwhile; the caller tries again later. The caller
/// holds the lock of the target, so no other attempt is under way.
pub(crate) async fn begin(
    db: &mut PgConnection,
    trigger: i32,
) -> Result<Option<Attempt>, sqlx::Error> {
    let row = sqlx::query(concat!(
        "with held as (
             select id from trigger where id = $1 and configured and state = 'active' for update
         ), newest as (
             select o.id, o.number, o.state, o.images from held join rollout o on o.trigger_id = held.id
             where o.state in ('pending', 'running') order by o.number desc limit 1
         ), moved as (
             select n.id, min(i.value ->> 'image') as image from newest n cross join lateral jsonb_each(n.images) i
             where n.state = 'pending' and not exists (
                 select from repository r join tag t on t.repository_id = r.id
                 where r.registry = split_part(i.value ->> 'image', '/', 1)
                   and r.name = substring(i.value ->> 'image' from '^[^/]+/(.*):[^:]+$')
                   and t.name = substring(i.value ->> 'image' from '[^:]+$')
                   and encode(t.head_digest, 'hex') = split_part(i.value ->> 'digest', ':', 2))
             group by n.id
         ), withdrawn as (
             update rollout o set state = 'superseded', finished_at = now(),
                 error = 'not begun: ' || m.image || ' has changed since this rollout was recorded'
             from moved m where o.id = m.id and o.state = 'pending'
             returning o.*, true as changed
         ), old as (
             update rollout o set state = 'superseded', finished_at = now()
             from newest n where $2 and not exists (select from moved) and o.trigger_id = $1 and o.state in ('pending', 'running') and o.number < n.number
             returning o.*, true as changed
         ), new as (
             update rollout o set state = 'running', attempts = attempts + 1, started_at = coalesce(started_at, now())
             from newest n where not exists (select from moved) and o.id = n.id and o.state in ('pending', 'running') and o.next_attempt_at <= now()
             returning o.*, n.state = 'pending' as changed
         ), o as (
             select * from withdrawn union all select * from old union all select * from new where changed
         ), told as (
             ", recorded!(), "
         )
         select o.started_at, o.traceparent, ", columns!(), " from new o join trigger t on t.id = o.trigger_id"
    ))
    .bind(trigger)
    .bind(!FailPoint::TriggerSupersede.skipped())
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let trace = row.try_get::<Option<&str>, _>("traceparent")?;
        Ok(Attempt {
            rollout: row::rollout(&row)?,
            started_at: row.try_get("started_at")?,
            trace: trace.and_then(|text| text.parse().ok()),
        })
    })
    .transpose()
}

/// Locks the row of the trigger. Returns whether a newer live rollout exists, and the time by the
/// clock of the database.
pub(crate) async fn newer(
    db: &mut PgConnection,
    trigger: i32,
    number: u64,
) -> Result<(bool, OffsetDateTime), sqlx::Error> {
    let row = sqlx::query(
        "with held as (select id from trigger where id = $1 for update)
         select exists (select from rollout o where o.trigger_id = held.id and o.number > $2 and o.state in ('pending', 'running')) as newer,
             clock_timestamp() as now
         from held",
    )
    .bind(trigger)
    .bind(row::signed(number))
    .fetch_one(db)
    .await?;
    Ok((row.try_get("newer")?, row.try_get("now")?))
}

/// Ends a rollout in a final state.
pub(crate) async fn finish(
    db: &mut PgConnection,
    id: &str,
    state: RolloutState,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "with o as (update rollout set state = $2::rollout_state, finished_at = now(), error = $3 where id = $1::uuid returning *) ",
        recorded!()
    ))
    .bind(id)
    .bind(state.as_str())
    .bind(error)
    .execute(db)
    .await
    .map(|_| ())
}

/// Records the time of the next attempt and the error of the last attempt.
pub(crate) async fn retry(
    db: &mut PgConnection,
    id: &str,
    at: OffsetDateTime,
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("update rollout set next_attempt_at = $2, error = $3 where id = $1::uuid")
        .bind(id)
        .bind(at)
        .bind(error)
        .execute(db)
        .await
        .map(|_| ())
}
