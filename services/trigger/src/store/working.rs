//! The statements of attempts: their begin, and the steps after them.
//!
//! Each statement first locks the row of the trigger, then the rollout, then the attempt.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _};
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::retry::Phase;
use tagtrail_postgres::{rollout_is_live, row};
use tagtrail_proto::{Rollout, RolloutState, TraceContext};

use super::columns::{columns, recorded, unfinished};
use super::holds::{in_force_are, may_begin, no_hold, not_rejected};
use crate::act::Owner;
use crate::settings::Hash;

/// Most rollouts that one query returns.
const SET: i64 = 256;

/// The rollouts that need an attempt.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// The triggers with a due rollout that no attempt carries out: those without an attempt so far
    /// first, then by the time at which they became due.
    pub(crate) due: Vec<Due>,
    /// The time until the next rollout is due.
    pub(crate) next: Option<Duration>,
}

/// A trigger with a due rollout.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) trigger: i32,
    pub(crate) name: String,
    /// The time since which an attempt is due.
    pub(crate) since: Duration,
}

/// Returns the backlog of the triggers with these names, as far as their recorded settings are
/// those of this process.
pub(crate) async fn backlog(
    db: &mut PgConnection,
    own: &[(&str, Hash)],
) -> Result<Backlog, sqlx::Error> {
    let names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
    let hashes: Vec<&[u8]> = own.iter().map(|(_, hash)| &hash[..]).collect();
    let rows = sqlx::query(concat!(
        // A rollout that may not begin, because of a newer one or a hold, must not take the place
        // of one that may.
        "select n.trigger_id, t.name, extract(epoch from n.next_attempt_at - now())::float8 as due_in_seconds
         from unnest($1::text[], $3::bytea[]) as own (name, hash)
         join trigger t on t.name = own.name and ", in_force_are!("own"), "
         join rollout n on n.trigger_id = t.id
         where n.state in ('pending', 'running', 'failed') and ", rollout_is_live!("n"), "
             and t.configured and t.state = 'active'
             and not exists (
                 select from rollout_attempt a
                 where a.finished_at is null and (a.trigger_id = t.id or a.group_name = t.group_name))
             and not exists (
                 select from rollout newer where newer.trigger_id = n.trigger_id and newer.number > n.number
                     and newer.state not in ('held', 'awaiting_approval', 'superseded', 'rejected', 'cancelled'))
             and ($4 or ", may_begin!(), ") and ", not_rejected!(), "
         order by n.next_attempt_at > now(), n.next_attempt_at <= now() and n.attempts > 0, n.next_attempt_at
         limit $2"
    ))
    .bind(names)
    .bind(SET)
    .bind(hashes)
    .bind(FailPoint::TriggerMayBegin.skipped())
    .fetch_all(db)
    .await?;
    let mut backlog = Backlog::default();
    for row in &rows {
        let seconds: f64 = row.try_get("due_in_seconds")?;
        if seconds > 0.0 {
            backlog.next = Some(Duration::from_secs_f64(seconds));
            break;
        }
        backlog.due.push(Due {
            trigger: row.try_get("trigger_id")?,
            name: row.try_get("name")?,
            since: Duration::from_secs_f64(-seconds),
        });
    }
    backlog.due.dedup_by_key(|due| due.trigger);
    Ok(backlog)
}

/// A trigger as this process can act on it.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) trigger: i32,
    /// The settings that this process has: an attempt begins only if the recorded ones are these.
    pub(crate) hash: Hash,
    /// The place of the target.
    pub(crate) identity: String,
    /// Whether its sets may be partial.
    pub(crate) partial: bool,
}

/// An attempt as recorded at its begin.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// The id of the trigger.
    pub(crate) trigger: i32,
    /// The rollout with the number of attempts begun, this one included.
    pub(crate) rollout: Rollout,
    /// The trace of the revision that led to the rollout.
    pub(crate) trace: Option<TraceContext>,
    /// The ids of earlier rollouts of the trigger that were attempted after its last success; read
    /// at the begin of an attempt alone.
    pub(crate) unfinished: Vec<String>,
    /// The places that had the images when an attempt succeeded; read by looks for changes by
    /// others alone.
    pub(crate) places: Vec<String>,
}

/// Reads an attempt from the columns of its rollout, with `trigger_id` and `traceparent`.
pub(super) fn attempt(row: &PgRow) -> Result<Attempt, sqlx::Error> {
    let trace = row.try_get::<Option<&str>, _>("traceparent")?;
    Ok(Attempt {
        trigger: row.try_get("trigger_id")?,
        rollout: row::rollout(row)?,
        trace: trace.and_then(|text| text.parse().ok()),
        unfinished: Vec::new(),
        places: Vec::new(),
    })
}

/// Reads an attempt that begins, from these columns and `unfinished`.
pub(super) fn begun(row: &PgRow) -> Result<Attempt, sqlx::Error> {
    Ok(Attempt {
        unfinished: row.try_get("unfinished")?,
        ..attempt(row)?
    })
}

/// Begins an attempt of the newest rollout of each of these triggers that no gate holds, unless
/// that one has ended, and supersedes all older ones that have not ended. The triggers are given
/// with the places that their targets act on. A rollout with an image whose head has changed before
/// the first attempt is withdrawn instead: the planner decides again on the present heads.
///
/// Returns the attempts that began. A trigger is left out if its rollout may not be attempted now,
/// if an attempt of it runs, or if another session changes it at this moment: the statement waits
/// for no lock, and the next look at the backlog names the trigger again.
pub(crate) async fn begin(
    db: &mut PgConnection,
    own: &[Own],
    owner: &Owner,
) -> Result<Vec<Attempt>, sqlx::Error> {
    let triggers: Vec<i32> = own.iter().map(|own| own.trigger).collect();
    let identities: Vec<&str> = own.iter().map(|own| own.identity.as_str()).collect();
    let hashes: Vec<&[u8]> = own.iter().map(|own| &own.hash[..]).collect();
    let rows = sqlx::query(concat!(
        // The planner raises `issued` with each rollout. A trigger whose `issued` has changed since
        // the snapshot of this statement may have a newer rollout than the statement can see.
        "with held as (
             select t.id, t.group_name, own.partial from unnest($1::int[], $8::bytea[], $10::boolean[]) as own (id, hash, partial)
             join trigger t on t.id = own.id and ", in_force_are!("own"), "
             join trigger snapshot on snapshot.id = t.id and snapshot.issued = t.issued
             where t.configured and t.state = 'active' for update of t skip locked
         ), number as (
             select held.id as trigger_id, held.group_name, held.partial, (
                 select max(o.number) from rollout o
                 where o.trigger_id = held.id
                     and o.state not in ('held', 'awaiting_approval', 'superseded', 'rejected', 'cancelled')) as number
             from held
         ), newest as (
             select o.id, o.trigger_id, o.number, o.state, o.images, o.attempts, o.next_attempt_at <= now() as due,
                 o.fixed, o.actor, o.closes_at, o.cause -> 'changed' as images_changed, n.group_name, n.partial
             from number n join rollout o on o.trigger_id = n.trigger_id and o.number = n.number
             where o.state in ('pending', 'running', 'failed') and ", rollout_is_live!("o"), "
             for update of o skip locked
         ), moved as (
             select n.id, min(i.value ->> 'image') as image from newest n cross join lateral jsonb_each(n.images) i
             where n.state = 'pending' and not n.fixed
             -- The others of a partial set stay as they are, although their tags may have moved.
             and (not n.partial or n.images_changed ? i.key)
             -- The images of a trigger that follows others are those of upstream, not the heads.
             and not exists (select from trigger f where f.id = n.trigger_id and f.gate_settings ? 'follow') and not exists (
                 select from repository r join tag t on t.repository_id = r.id
                 where r.registry = split_part(i.value ->> 'image', '/', 1)
                   and r.name = substring(i.value ->> 'image' from '^[^/]+/(.*):[^:]+$')
                   and t.name = substring(i.value ->> 'image' from '[^:]+$')
                   and encode(t.head_digest, 'hex') = split_part(i.value ->> 'digest', ':', 2))
             group by n.id
         ), withdrawn as (
             update rollout o set state = 'superseded', finished_at = now(),
                 error = 'not begun: ' || m.image || ' has changed since this rollout was recorded'
             from moved m where o.id = m.id returning o.*, true as changed
         ), attempt as (
             insert into rollout_attempt (rollout_id, number, trigger_id, instance, machine, pid, pid_started, group_name)
             select n.id, n.attempts + 1, n.trigger_id, $3, $4, $5, $6, n.group_name
             from newest n where n.due and not exists (select from moved m where m.id = n.id) and ($9 or ", may_begin!(), ") and ", not_rejected!(), "
             -- An attempt of another process, or of the group, runs.
             on conflict do nothing
             returning rollout_id, trigger_id
         ), old as (
             update rollout o set state = 'superseded', finished_at = now()
             from attempt a join newest n on n.id = a.rollout_id
             where $2 and o.trigger_id = a.trigger_id and o.number < n.number and ", rollout_is_live!("o"), "
             returning o.*, true as changed
         ), new as (
             update rollout o set state = case o.state when 'failed' then o.state else 'running' end,
                 attempts = o.attempts + 1, started_at = coalesce(o.started_at, clock_timestamp()), identity = p.identity
             from attempt a join newest n on n.id = a.rollout_id
             join unnest($1::int[], $7::text[]) as p (trigger_id, identity) on p.trigger_id = a.trigger_id
             where o.id = a.rollout_id
             returning o.*, n.state = 'pending' as changed
         ), o as (
             select * from withdrawn union all select * from old union all select * from new where changed
         ), told as (
             ", recorded!(), "
         )
         select o.trigger_id, o.traceparent, ", unfinished!(), ", ", columns!(), " from new o join trigger t on t.id = o.trigger_id"
    ))
    .bind(triggers)
    .bind(!FailPoint::TriggerSupersede.skipped())
    .bind(owner.instance)
    .bind(&owner.machine)
    .bind(owner.pid)
    .bind(owner.pid_started)
    .bind(identities)
    .bind(hashes)
    .bind(FailPoint::TriggerMayBegin.skipped())
    .bind(own.iter().map(|own| own.partial).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    rows.iter().map(begun).collect()
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'a> {
    /// A word of the type `attempt_outcome`.
    pub(crate) outcome: &'static str,
    /// HTTP status or exit code, if the target answered.
    pub(crate) status: Option<i32>,
    /// Cause of the failure, for people.
    pub(crate) error: Option<&'a str>,
    /// The end of the target's answer or output.
    pub(crate) said: &'a str,
}

/// The SQL that ends an attempt and changes its rollout by the given assignments, in the parameters
/// of [`ending`]. Its row, `newer`, is missing if the attempt had been ended for this process.
macro_rules! end_attempt {
    ($change:literal) => {
        concat!(
            "with held as (
                 select id from trigger where id = $1 for update
             ), ended as (
                 update rollout_attempt a set finished_at = clock_timestamp(), outcome = $5::attempt_outcome, status = $6, said = $7
                 from held where a.rollout_id = $2::uuid and a.number = $3 and a.instance = $4 and a.finished_at is null
                 returning a.rollout_id
             ), o as (
                 update rollout r set ",
            $change,
            " from ended e where r.id = e.rollout_id and ",
            rollout_is_live!("r"),
            " returning r.*
             ), told as (
                 ",
            recorded!(),
            "
             )
             select exists (select from rollout n where n.trigger_id = $1 and n.number > $8 and n.state = 'pending') as newer
             from ended"
        )
    };
}

pub(super) use end_attempt;

/// Returns a statement of `end_attempt!` with its first eight parameters.
pub(super) fn ending<'q>(
    statement: &'static str,
    attempt: &'q Attempt,
    owner: &Owner,
    ended: Ended<'q>,
) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(statement)
        .bind(attempt.trigger)
        .bind(&attempt.rollout.id)
        .bind(attempt_number(attempt))
        .bind(owner.instance)
        .bind(ended.outcome)
        .bind(ended.status)
        .bind(ended.said)
        .bind(row::signed(attempt.rollout.number))
}

/// Records that an attempt and its rollout succeeded. Returns whether a newer rollout of the
/// trigger waits for its first attempt; `None` if the attempt had been ended for this process,
/// which then changes nothing.
pub(crate) async fn succeed(
    db: &mut PgConnection,
    attempt: &Attempt,
    owner: &Owner,
    ended: Ended<'_>,
) -> Result<Option<bool>, sqlx::Error> {
    let statement =
        end_attempt!("state = 'succeeded', finished_at = clock_timestamp(), error = null");
    let row = ending(statement, attempt, owner, ended)
        .fetch_optional(db)
        .await?;
    row.map(|row| row.try_get("newer")).transpose()
}

/// The facts that decide about the next step of a rollout after an attempt.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Whether a newer rollout may begin.
    pub(crate) newer: bool,
    /// Whether the rollout may go on: nobody has ended it meanwhile.
    pub(crate) live: bool,
    /// The phase of retries before the attempt, or since a person's order during the attempt.
    pub(crate) phase: Phase,
}

/// Locks the row of the trigger, and returns the standing of the rollout of this attempt.
pub(crate) async fn standing(
    db: &mut PgConnection,
    attempt: &Attempt,
) -> Result<Standing, sqlx::Error> {
    sqlx::query("select from trigger where id = $1 for update")
        .bind(attempt.trigger)
        .execute(&mut *db)
        .await?;
    // A statement of its own, so that it sees the changes that the lock waited for.
    let row = sqlx::query(concat!(
        "select o.phase_attempts, o.phase_ms, o.state = 'failed' as slow, ", rollout_is_live!("o"), " as live, exists (
             select from rollout n where n.trigger_id = o.trigger_id and n.number > o.number and n.state in ('pending', 'running')) as newer
         from rollout o where o.id = $1::uuid",
    ))
    .bind(&attempt.rollout.id)
    .fetch_one(db)
    .await?;
    let attempts: i32 = row.try_get("phase_attempts")?;
    Ok(Standing {
        newer: row.try_get("newer")?,
        live: row.try_get("live")?,
        phase: Phase {
            attempts: u32::try_from(attempts).unwrap_or(0),
            counted: Duration::from_millis(row::unsigned(row.try_get("phase_ms")?)),
            slow: row.try_get("slow")?,
        },
    })
}

/// Records the end of an attempt, after which the next one follows in the time `pause`, if any
/// does. Returns false if the attempt had been ended for this process: another one goes on with the
/// rollout.
pub(crate) async fn end(
    db: &mut PgConnection,
    attempt: &Attempt,
    owner: &Owner,
    ended: Ended<'_>,
    pause: Option<Duration>,
) -> Result<bool, sqlx::Error> {
    let changed = sqlx::query(
        "update rollout_attempt set finished_at = clock_timestamp(), outcome = $4::attempt_outcome, status = $5, error = $6,
             said = $7, next_at = clock_timestamp() + $8
         where rollout_id = $1::uuid and number = $2 and instance = $3 and finished_at is null",
    )
    .bind(&attempt.rollout.id)
    .bind(attempt_number(attempt))
    .bind(owner.instance)
    .bind(ended.outcome)
    .bind(ended.status)
    .bind(ended.error)
    .bind(ended.said)
    .bind(pause.map(interval))
    .execute(db)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// Ends a rollout after an attempt: it was superseded, or failed for good.
pub(crate) async fn finish(
    db: &mut PgConnection,
    id: &str,
    state: RolloutState,
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "with o as (
             update rollout set state = $2::rollout_state, finished_at = now(), error = $3, ended = ($2 = 'failed')
             where id = $1::uuid and state <> 'cancelled' returning *) ",
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
/// the fast phase: the service starts, perhaps after the cause of the failures was mended. A failed
/// rollout that is held stays failed.
pub(crate) async fn start_over(
    db: &mut PgConnection,
    names: &[&str],
    within: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "with waiting as (
             select n.id, n.state from rollout n join trigger t on t.id = n.trigger_id
             where (n.state = 'running' or n.state = 'failed' and not n.ended and ", no_hold!(), ") and t.configured and t.name = any ($1)
             for update of n
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
pub(super) fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn attempt_number(attempt: &Attempt) -> i32 {
    i32::try_from(attempt.rollout.attempts).unwrap_or(i32::MAX)
}
