//! The statements of the workers.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, Row as _};
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::retry::Phase;
use tagtrail_postgres::{rollout_is_live, row};
use tagtrail_proto::{Rollout, RolloutState, TraceContext};

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
        concat!("select o.trigger_id, greatest(extract(epoch from o.next_attempt_at - now()), 0)::float8 as due_in_seconds
         from rollout o join trigger t on t.id = o.trigger_id
         where ", rollout_is_live!("o"), " and t.configured and t.state = 'active' and t.name = any ($1)
         order by o.next_attempt_at limit 256"),
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
    /// The trace of the revision that led to the rollout.
    pub(crate) trace: Option<TraceContext>,
}

/// Begins an attempt of the newest rollout of a trigger, unless that one has ended, and supersedes
/// all older ones that have not ended. A rollout with an image whose head has changed before the
/// first attempt is withdrawn instead: the planner decides again on the present heads. `None` if no
/// rollout may be attempted now, or if the planner recorded a rollout meanwhile; the caller tries
/// again later. The caller holds the lock of the target, so no other attempt is under way.
pub(crate) async fn begin(
    db: &mut PgConnection,
    trigger: i32,
) -> Result<Option<Attempt>, sqlx::Error> {
    let row = sqlx::query(concat!(
        "with held as (
             select id from trigger where id = $1 and configured and state = 'active' for update
         ), newest as (
             select o.id, o.number, o.state, o.images, o.ended from held join rollout o on o.trigger_id = held.id
             where o.state <> 'superseded' order by o.number desc limit 1
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
             from newest n where $2 and not exists (select from moved) and o.trigger_id = $1 and o.number < n.number
                 and ", rollout_is_live!("o"), "
             returning o.*, true as changed
         ), new as (
             update rollout o set state = case o.state when 'failed' then o.state else 'running' end,
                 attempts = attempts + 1, started_at = coalesce(started_at, now())
             from newest n where not exists (select from moved) and o.id = n.id and o.next_attempt_at <= now()
                 and ", rollout_is_live!("o"), "
             returning o.*, n.state = 'pending' as changed
         ), o as (
             select * from withdrawn union all select * from old union all select * from new where changed
         ), told as (
             ", recorded!(), "
         )
         select o.traceparent, ", columns!(), " from new o join trigger t on t.id = o.trigger_id"
    ))
    .bind(trigger)
    .bind(!FailPoint::TriggerSupersede.skipped())
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let trace = row.try_get::<Option<&str>, _>("traceparent")?;
        Ok(Attempt {
            rollout: row::rollout(&row)?,
            trace: trace.and_then(|text| text.parse().ok()),
        })
    })
    .transpose()
}

/// The facts that decide about the next step of a rollout after an attempt.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Whether a newer rollout may begin.
    pub(crate) newer: bool,
    /// The phase of retries before the attempt, or since a person's order during the attempt.
    pub(crate) phase: Phase,
}

/// Locks the row of the trigger, and returns the standing of its rollout `number`.
pub(crate) async fn standing(
    db: &mut PgConnection,
    trigger: i32,
    number: u64,
) -> Result<Standing, sqlx::Error> {
    let row = sqlx::query(
        "with held as (select id from trigger where id = $1 for update)
         select o.phase_attempts, o.phase_ms, o.state = 'failed' as slow, exists (
             select from rollout n where n.trigger_id = o.trigger_id and n.number > o.number and n.state in ('pending', 'running')) as newer
         from held join rollout o on o.trigger_id = held.id where o.number = $2",
    )
    .bind(trigger)
    .bind(row::signed(number))
    .fetch_one(db)
    .await?;
    let attempts: i32 = row.try_get("phase_attempts")?;
    Ok(Standing {
        newer: row.try_get("newer")?,
        phase: Phase {
            attempts: u32::try_from(attempts).unwrap_or(0),
            counted: Duration::from_millis(row::unsigned(row.try_get("phase_ms")?)),
            slow: row.try_get("slow")?,
        },
    })
}

/// Ends a rollout: it succeeded, was superseded, or failed for good.
pub(crate) async fn finish(
    db: &mut PgConnection,
    id: &str,
    state: RolloutState,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "with o as (
             update rollout set state = $2::rollout_state, finished_at = now(), error = $3, ended = ($2 = 'failed')
             where id = $1::uuid returning *) ",
        recorded!()
    ))
    .bind(id)
    .bind(state.as_str())
    .bind(error)
    .execute(db)
    .await
    .map(|_| ())
}

/// Records a failed attempt, after which another one of the fast phase follows.
pub(crate) async fn retry(
    db: &mut PgConnection,
    id: &str,
    (pause, counted): (Duration, Duration),
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update rollout set next_attempt_at = clock_timestamp() + $2, error = $3,
             phase_attempts = phase_attempts + 1, phase_ms = $4
         where id = $1::uuid",
    )
    .bind(id)
    .bind(interval(pause))
    .bind(error)
    .bind(milliseconds(counted))
    .execute(db)
    .await
    .map(|_| ())
}

/// Records a failed attempt, after which another one of the slow phase follows.
pub(crate) async fn fail(
    db: &mut PgConnection,
    id: &str,
    pause: Duration,
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "with before as (
             select id, state from rollout where id = $1::uuid
         ), failed as (
             update rollout r set state = 'failed', next_attempt_at = clock_timestamp() + $2, error = $3
             from before b where r.id = b.id returning r.*, b.state <> 'failed' as changed
         ), o as (
             select * from failed where changed
         ) ",
        recorded!()
    ))
    .bind(id)
    .bind(interval(pause))
    .bind(error)
    .execute(db)
    .await
    .map(|_| ())
}

/// Makes the rollouts of configured triggers that wait for another attempt due within `within`, in
/// the fast phase: the service starts, perhaps after the cause of the failures was mended.
pub(crate) async fn start_over(
    db: &mut PgConnection,
    names: &[&str],
    within: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "with waiting as (
             select o.id, o.state from rollout o join trigger t on t.id = o.trigger_id
             where (o.state = 'running' or o.state = 'failed' and not o.ended) and t.configured and t.name = any ($1)
             for update of o
         ), due as (
             update rollout o set state = 'running', finished_at = null, phase_attempts = 0, phase_ms = 0,
                 next_attempt_at = least(o.next_attempt_at, now() + random() * $2)
             from waiting w where o.id = w.id returning o.*, w.state = 'failed' as changed
         ), o as (
             select * from due where changed
         ) ",
        recorded!()
    ))
    .bind(names)
    .bind(interval(within))
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns a duration for Postgres, which counts in microseconds.
fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
