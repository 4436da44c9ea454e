//! The statements of rollouts that their target took: from the end of the attempt to the result.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_policy::watch::Progress;
use tagtrail_postgres::{rollout_is_live, row};

use super::columns::{columns, recorded};
use super::holds::{displaced, in_force_are, no_hold};
use super::working::{Attempt, Ended, attempt, end_attempt, ending, interval};
use crate::act::Owner;
use crate::settings::Hash;

/// Most bytes of a finding that a row keeps.
const SEEN: usize = 4096;

/// Records that the target took a rollout, whose result is observed from now on: first after
/// `pause`, and until the target is healthy for the time `timeout`.
///
/// Returns whether a newer rollout of the trigger waits for its first attempt; `None` if the
/// attempt had been ended for this process, which then changes nothing.
pub(crate) async fn watch(
    db: &mut PgConnection,
    attempt: &Attempt,
    owner: &Owner,
    ended: Ended<'_>,
    (pause, timeout): (Duration, Duration),
) -> Result<Option<bool>, sqlx::Error> {
    let statement = end_attempt!(
        "state = 'watching', error = null, applied_at = clock_timestamp(),
             observe_at = clock_timestamp() + $9, observe_until = clock_timestamp() + $10,
             stage = 0, passes = 0, looks = 0, looked_at = null, seen = null"
    );
    let row = ending(statement, attempt, owner, ended)
        .bind(interval(pause))
        .bind(interval(timeout))
        .fetch_optional(db)
        .await?;
    row.map(|row| row.try_get("newer")).transpose()
}

/// The last report of a receiver about a rollout, since the begin of the last attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) state: ReportState,
    pub(crate) text: Option<String>,
    /// The time since the report.
    pub(crate) age: Duration,
}

/// The result that a receiver reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportState {
    Progressing,
    Succeeded,
    Failed,
}

/// A look that this process makes now.
#[derive(Debug)]
pub(crate) struct Look {
    /// The rollout, with the last attempt at it.
    pub(crate) of: Attempt,
    pub(crate) progress: Progress,
    pub(crate) report: Option<Report>,
}

/// A trigger as this process can look at it.
#[derive(Debug)]
pub(crate) struct Own<'a> {
    pub(crate) trigger: &'a str,
    /// The settings that this process has: a look begins only if the recorded ones are these.
    pub(crate) hash: Hash,
    /// The place of the target.
    pub(crate) identity: String,
    /// The time in which a command of its looks ends when it is told to, if a look may run one.
    pub(crate) grace: Option<Duration>,
}

/// The looks that began, and the rollouts that can't be looked at.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    pub(crate) looks: Vec<Look>,
    /// The watched rollouts that another target took than the present one.
    pub(crate) elsewhere: Vec<Elsewhere>,
}

/// A watched rollout that another target took than the present one.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    pub(crate) trigger: String,
    /// The id of the rollout.
    pub(crate) rollout: String,
}

/// Begins due looks at rollouts of these triggers, at most `most`, as far as their recorded
/// settings are those of this process.
///
/// A look is begun by one process. While an attempt of the trigger runs, or a newer rollout is
/// about to begin, no look with a command begins. The present target tells nothing about a rollout
/// that another one took: a failed one is attempted at the present target, and a watched one is
/// left to [`leave`].
pub(crate) async fn begin(
    db: &mut PgConnection,
    own: &[Own<'_>],
    owner: &Owner,
    most: usize,
) -> Result<Begun, sqlx::Error> {
    let names: Vec<&str> = own.iter().map(|own| own.trigger).collect();
    let hashes: Vec<&[u8]> = own.iter().map(|own| &own.hash[..]).collect();
    let whole = |grace: Duration| i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
    let graces: Vec<Option<i32>> = own.iter().map(|own| own.grace.map(whole)).collect();
    let identities: Vec<&str> = own.iter().map(|own| own.identity.as_str()).collect();
    let rows = sqlx::query(concat!(
        "with due as (
             select o.id, o.trigger_id, t.name, w.grace, coalesce(o.identity, w.identity) <> w.identity as elsewhere
             from unnest($1::text[], $2::int[], $8::bytea[], $9::text[]) as w (name, grace, hash, identity)
             join trigger t on t.name = w.name and ", in_force_are!("w"), "
             join rollout o on o.trigger_id = t.id
             where o.state in ('watching', 'failed') and not o.ended and t.configured
                 and (o.state = 'watching' or coalesce(o.identity, w.identity) = w.identity)
                 and (o.observe_at <= now() or t.reports and o.observe_at is not null and exists (
                     select from rollout_report p where p.rollout_id = o.id and p.reported_at > coalesce(o.looked_at, o.applied_at)))
                 and not exists (select from rollout_look l where l.trigger_id = t.id)
                 and not exists (select from rollout_attempt a where a.trigger_id = t.id and a.finished_at is null)
                 and (w.grace is null or not ", displaced!(), ")
             order by o.observe_at limit $7
             for update of o skip locked
         ), look as (
             insert into rollout_look (rollout_id, trigger_id, grace_seconds, instance, machine, pid, pid_started)
             select d.id, d.trigger_id, d.grace, $3, $4, $5, $6 from due d where not d.elsewhere
             on conflict do nothing returning rollout_id
         )
         select d.elsewhere, d.name as trigger, d.id::text as rollout, o.trigger_id, o.traceparent, ", columns!(), ", o.stage, o.passes, o.looks, o.state = 'failed' as slow,
             extract(epoch from o.observe_until - now())::float8 as left_seconds,
             p.state as report, p.text as report_text, extract(epoch from now() - p.reported_at)::float8 as report_seconds
         from due d left join look l on l.rollout_id = d.id
         join rollout o on o.id = d.id join trigger t on t.id = o.trigger_id
         left join lateral (
             select p.state, p.text, p.reported_at from rollout_report p
             where t.reports and p.rollout_id = o.id and p.reported_at >= (
                 select a.started_at from rollout_attempt a where a.rollout_id = o.id order by a.number desc limit 1)
             order by p.id desc limit 1) p on true
         where d.elsewhere or l.rollout_id is not null"
    ))
    .bind(names)
    .bind(graces)
    .bind(owner.instance)
    .bind(&owner.machine)
    .bind(owner.pid)
    .bind(owner.pid_started)
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .bind(hashes)
    .bind(identities)
    .fetch_all(db)
    .await?;
    let mut begun = Begun::default();
    for row in &rows {
        match row.try_get("elsewhere")? {
            false => begun.looks.push(look(row)?),
            true => begun.elsewhere.push(Elsewhere {
                trigger: row.try_get("trigger")?,
                rollout: row.try_get("rollout")?,
            }),
        }
    }
    Ok(begun)
}

/// Ends watched rollouts that another target took than the present one, which tells nothing about
/// them. With `again` the planner sends the images to the present target.
pub(crate) async fn leave(
    db: &mut PgConnection,
    rollouts: &[(&str, bool)],
) -> Result<(), sqlx::Error> {
    let (ids, again): (Vec<&str>, Vec<bool>) = rollouts.iter().copied().unzip();
    sqlx::query(concat!(
        "with held as (
             select t.id from trigger t
             where exists (select from rollout w where w.trigger_id = t.id and w.id = any ($1::uuid[]))
             order by t.id for update
         ), o as (
             update rollout r set state = 'cancelled', finished_at = now(), cut_off = e.again,
                 error = 'cancelled by configuration: the trigger has another target'
             from held, unnest($1::uuid[], $2::boolean[]) as e (id, again)
             where r.id = e.id and r.trigger_id = held.id and r.state = 'watching'
             returning r.*
         ), told as (
             ",
        recorded!(),
        ")
         update trigger t set touched = true from o where t.id = o.trigger_id"
    ))
    .bind(ids)
    .bind(again)
    .execute(db)
    .await
    .map(|_| ())
}

fn look(row: &PgRow) -> Result<Look, sqlx::Error> {
    let number = |column: &str| -> Result<u32, sqlx::Error> {
        Ok(u32::try_from(row.try_get::<i32, _>(column)?).unwrap_or(0))
    };
    let left: Option<f64> = row.try_get("left_seconds")?;
    let state = match row.try_get("report")? {
        None => None,
        Some("succeeded") => Some(ReportState::Succeeded),
        Some("failed") => Some(ReportState::Failed),
        Some(_) => Some(ReportState::Progressing),
    };
    let report = match state {
        None => None,
        Some(state) => Some(Report {
            state,
            text: row.try_get("report_text")?,
            age: seconds(row.try_get("report_seconds")?),
        }),
    };
    Ok(Look {
        of: attempt(row)?,
        progress: Progress {
            stage: number("stage")?,
            passes: number("passes")?,
            looks: number("looks")?,
            left: seconds(left.unwrap_or_default()),
            failed: row.try_get("slow")?,
        },
        report,
    })
}

/// Returns the duration; of a negative number, zero.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

/// The state of a rollout that is observed again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Again<'a> {
    /// The pause before the next look.
    pub(crate) pause: Duration,
    pub(crate) stage: u32,
    pub(crate) passes: u32,
    /// The time for the stage, if it begins now.
    pub(crate) within: Option<Duration>,
    /// The finding, for people.
    pub(crate) seen: &'a str,
}

/// Ends a look after which another one follows. Returns false if the look had been ended for this
/// process, which then changes nothing.
pub(crate) async fn again(
    db: &mut PgConnection,
    look: &Look,
    owner: &Owner,
    again: Again<'_>,
) -> Result<bool, sqlx::Error> {
    let changed = sqlx::query(
        "with look as (
             delete from rollout_look where rollout_id = $1::uuid and instance = $2 returning rollout_id, began_at
         )
         update rollout r set observe_at = clock_timestamp() + $3, stage = $4, passes = $5, looks = r.looks + 1, looked_at = look.began_at,
             observe_until = coalesce(clock_timestamp() + $6, r.observe_until), seen = $7
         from look where r.id = look.rollout_id and r.state in ('watching', 'failed')",
    )
    .bind(&look.of.rollout.id)
    .bind(owner.instance)
    .bind(interval(again.pause))
    .bind(i32::try_from(again.stage).unwrap_or(i32::MAX))
    .bind(i32::try_from(again.passes).unwrap_or(i32::MAX))
    .bind(again.within.map(interval))
    .bind(cut(again.seen))
    .execute(db)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// Ends a look without a finding: it was cut off.
pub(crate) async fn cut_off(
    db: &mut PgConnection,
    look: &Look,
    owner: &Owner,
) -> Result<(), sqlx::Error> {
    sqlx::query("delete from rollout_look where rollout_id = $1::uuid and instance = $2")
        .bind(&look.of.rollout.id)
        .bind(owner.instance)
        .execute(db)
        .await
        .map(|_| ())
}

/// Ends a look with the success of its rollout. Returns false if the look had been ended for this
/// process, or a newer rollout has superseded this one.
pub(crate) async fn succeed(
    db: &mut PgConnection,
    look: &Look,
    owner: &Owner,
) -> Result<bool, sqlx::Error> {
    let changed = sqlx::query(concat!(
        "with held as (
             select id from trigger where id = $1 for update
         ), look as (
             delete from rollout_look l using held where l.rollout_id = $2::uuid and l.instance = $3 returning l.rollout_id, l.began_at
         ), o as (
             update rollout r set state = 'succeeded', finished_at = clock_timestamp(), error = null, looks = r.looks + 1, looked_at = look.began_at,
                 seen = null
             from look where r.id = look.rollout_id and r.state in ('watching', 'failed') and not r.ended
             returning r.*
         ) ",
        recorded!()
    ))
    .bind(look.of.trigger)
    .bind(&look.of.rollout.id)
    .bind(owner.instance)
    .execute(db)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// The effect of a failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    /// The pause before the next look.
    pub(crate) look: Duration,
    /// The pause before the next attempt.
    pub(crate) attempt: Duration,
    /// Neither attempts nor looks follow: the rollout has failed for good.
    pub(crate) ends: bool,
    /// The trigger is held, also before a newer rollout.
    pub(crate) holds: bool,
}

/// Ends a look with the failure of its rollout. Below a newer rollout that waits for its first
/// attempt, the rollout is superseded instead. Returns the new state as text; `None` if the look
/// had been ended for this process, or the rollout has ended.
pub(crate) async fn fail(
    db: &mut PgConnection,
    look: &Look,
    owner: &Owner,
    failure: Failure,
    error: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(concat!(
        "with held as (
             select id from trigger where id = $1 for update
         ), look as (
             delete from rollout_look l using held where l.rollout_id = $2::uuid and l.instance = $3
             returning l.rollout_id, l.began_at, exists (
                 select from rollout n where n.trigger_id = $1 and n.number > $4 and n.state = 'pending') and not $9 as newer
         ), o as (
             update rollout r set state = case when look.newer then 'superseded'::rollout_state else 'failed' end,
                 finished_at = case when look.newer or $8 then now() end, ended = not look.newer and $8, error = $7, seen = $7, looks = r.looks + 1, looked_at = look.began_at,
                 stage = 0, passes = 0, observe_at = clock_timestamp() + $5, next_attempt_at = clock_timestamp() + $6
             from look where r.id = look.rollout_id and r.state = 'watching'
             returning r.*
         ), told as (
             ",
        recorded!(),
        ")
         select state::text from o"
    ))
    .bind(look.of.trigger)
    .bind(&look.of.rollout.id)
    .bind(owner.instance)
    .bind(row::signed(look.of.rollout.number))
    .bind(interval(failure.look))
    .bind(interval(failure.attempt))
    .bind(cut(error))
    .bind(failure.ends)
    .bind(failure.holds)
    .fetch_optional(db)
    .await
}

/// Cuts a text at the bound of its column.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(SEEN)]
}
