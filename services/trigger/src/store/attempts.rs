//! The statements about attempts that run, of this process and of others.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::{Lock, rollout_is_live};

use super::holds::{displaced, no_hold};
use crate::act::Owner;

/// The key of an attempt: the id of its rollout, and its number. A look at a rollout has the number
/// [`LOOK`].
pub(crate) type Key = (String, u32);
/// The number of a look, in place of that of an attempt.
pub(crate) const LOOK: u32 = 0;

/// An attempt of this process that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) key: Key,
    /// False if a person or the configuration has ended the rollout meanwhile.
    pub(crate) wanted: bool,
}

/// Writes the output so far of some attempts of this process, and returns all of its attempts and
/// looks that have not ended. A look is not wanted while a newer rollout waits for its end.
pub(crate) async fn look(
    db: &mut PgConnection,
    owner: &Owner,
    said: &[(Key, String)],
) -> Result<Vec<Running>, sqlx::Error> {
    if !said.is_empty() {
        sqlx::query(
            "update rollout_attempt a set said = w.said
             from unnest($1::uuid[], $2::int[], $3::text[]) as w (id, number, said)
             where a.rollout_id = w.id and a.number = w.number and a.instance = $4 and a.finished_at is null",
        )
        .bind(ids(said.iter().map(|(key, _)| key)))
        .bind(numbers(said.iter().map(|(key, _)| key)))
        .bind(said.iter().map(|(_, said)| said.as_str()).collect::<Vec<_>>())
        .bind(owner.instance)
        .execute(&mut *db)
        .await?;
    }
    let rows = sqlx::query(concat!(
        "select a.rollout_id, a.number, ",
        rollout_is_live!("o"),
        " as wanted
         from rollout_attempt a join rollout o on o.id = a.rollout_id
         where a.finished_at is null and a.instance = $1
         union all
         select l.rollout_id, 0, o.state in ('watching', 'failed') and not o.ended and (l.grace_seconds is null or not ",
        displaced!(),
        ") from rollout_look l join rollout o on o.id = l.rollout_id join trigger t on t.id = o.trigger_id where l.instance = $1"
    ))
    .bind(owner.instance)
    .fetch_all(db)
    .await?;
    let running = |row: &PgRow| {
        Ok(Running {
            key: key(row)?,
            wanted: row.try_get("wanted")?,
        })
    };
    rows.iter().map(running).collect()
}

/// An attempt or a look of another process that has not ended.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) key: Key,
    /// The time in which a command of a look ends when it is told to. `None`: the look runs none,
    /// or this is an attempt.
    pub(crate) grace: Option<Duration>,
    /// The name of the trigger.
    pub(crate) name: String,
    pub(crate) owner: Owner,
    /// Whether the owner holds its advisory lock.
    pub(crate) held: bool,
}

/// Returns the attempts and looks of other processes that have not ended.
pub(crate) async fn foreign(
    db: &mut PgConnection,
    owner: &Owner,
) -> Result<Vec<Foreign>, sqlx::Error> {
    let rows = sqlx::query(
        "select a.rollout_id, a.number, a.grace_seconds, t.name, a.instance, a.machine, a.pid, a.pid_started, exists (
             select from pg_locks l
             where l.locktype = 'advisory' and l.granted and l.classid = $2::oid and l.objid::bigint = a.instance and l.objsubid = 2
               and l.database = (select oid from pg_database where datname = current_database())) as held
         from (
             select rollout_id, number, null::int as grace_seconds, trigger_id, instance, machine, pid, pid_started, started_at
             from rollout_attempt where finished_at is null
             union all
             select rollout_id, 0, grace_seconds, trigger_id, instance, machine, pid, pid_started, began_at from rollout_look) a
         join trigger t on t.id = a.trigger_id
         where a.instance <> $1 order by a.started_at limit 1000",
    )
    .bind(owner.instance)
    .bind(Lock::CLASS_OF_INSTANCES)
    .fetch_all(db)
    .await?;
    let foreign = |row: &PgRow| {
        let grace: Option<i32> = row.try_get("grace_seconds")?;
        Ok(Foreign {
            key: key(row)?,
            grace: grace.map(|grace| Duration::from_secs(u64::try_from(grace).unwrap_or(0))),
            name: row.try_get("name")?,
            owner: Owner {
                instance: row.try_get("instance")?,
                machine: row.try_get("machine")?,
                pid: row.try_get("pid")?,
                pid_started: row.try_get("pid_started")?,
            },
            held: row.try_get("held")?,
        })
    };
    rows.iter().map(foreign).collect()
}

/// Ends attempts and looks that their owner, the process `instance`, can no longer end: the next
/// attempt has the same rollout id, and the next look is made by any process. Returns the number
/// ended.
pub(crate) async fn interrupt(
    db: &mut PgConnection,
    instance: i32,
    keys: &[Key],
    error: &str,
) -> Result<u64, sqlx::Error> {
    let ended: i64 = sqlx::query_scalar(
        "with held as (
             select t.id from trigger t where t.id in (
                 select a.trigger_id from rollout_attempt a
                 join unnest($1::uuid[], $2::int[]) as w (id, number) on a.rollout_id = w.id and a.number = w.number
                 where a.finished_at is null)
             for update of t skip locked
         ), look as (
             delete from rollout_look l using unnest($1::uuid[], $2::int[]) as w (id, number)
             where l.rollout_id = w.id and w.number = 0 and l.instance = $3 returning l.rollout_id
         ), attempt as (
             update rollout_attempt a set finished_at = clock_timestamp(), outcome = 'interrupted', error = $4
             from unnest($1::uuid[], $2::int[]) as w (id, number), held
             where a.rollout_id = w.id and a.number = w.number and a.instance = $3 and a.finished_at is null and held.id = a.trigger_id
             returning a.rollout_id
         )
         select (select count(*) from look) + (select count(*) from attempt)",
    )
    .bind(ids(keys.iter()))
    .bind(numbers(keys.iter()))
    .bind(instance)
    .bind(error)
    .fetch_one(db)
    .await?;
    Ok(u64::try_from(ended).unwrap_or(0))
}

fn key(row: &PgRow) -> Result<Key, sqlx::Error> {
    let number: i32 = row.try_get("number")?;
    Ok((
        row.try_get::<Uuid, _>("rollout_id")?.to_string(),
        u32::try_from(number).unwrap_or(0),
    ))
}

fn ids<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<Uuid> {
    keys.map(|(id, _)| id.parse().unwrap_or_default()).collect()
}

fn numbers<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<i32> {
    keys.map(|(_, number)| i32::try_from(*number).unwrap_or(i32::MAX))
        .collect()
}
