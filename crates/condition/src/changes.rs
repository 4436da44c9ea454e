//! Changes of rollouts, holds and conditions, in the order of their ordinals: the trigger service
//! publishes them, and the live feed of the api sends them.
//!
//! Ordinals are numbers of a sequence. Transactions commit in another order than that in which they
//! took their numbers, and a transaction that fails leaves a gap. So a missing ordinal below a
//! visible one may still come, until the transactions that were [`writers`] then have ended.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Error, PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Condition, ConditionChange, Held, Rollout};
use time::OffsetDateTime;

/// A table of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changes {
    /// Changes of the states of rollouts.
    Rollouts,
    /// Changes of holds.
    Holds,
    /// Changes of the conditions of triggers.
    Conditions,
}

/// The rows of a table that are read.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// Those that ROLLOUTS may lack.
    Unpublished,
    /// Those with an ordinal above the first number, up to the second.
    Between(i64, i64),
}

/// A change with its place in its table.
#[derive(Debug)]
pub struct Changed<T> {
    /// The ordinal. Ordinals have gaps.
    pub ordinal: i64,
    /// Time of the change.
    pub changed_at: OffsetDateTime,
    /// The object after the change. An error: a later version wrote the row, in a form that this
    /// version can't read.
    pub object: Result<T, Error>,
}

/// Most changes that one statement reads.
pub const PAGE: usize = 256;

/// A query of the rows `c` of a table, in order.
macro_rules! query {
    ($which:expr, $select:literal) => {
        match $which {
            Which::Unpublished => sqlx::query(concat!(
                $select,
                " where not c.published order by c.ordinal limit 256"
            )),
            Which::Between(after, until) => sqlx::query(concat!(
                $select,
                " where c.ordinal > $1 and c.ordinal <= $2 order by c.ordinal limit 256"
            ))
            .bind(after)
            .bind(until),
        }
    };
}

/// Returns the oldest of these changes of rollouts, at most [`PAGE`].
///
/// # Errors
/// If Postgres can't be asked.
pub async fn rollouts(db: &mut PgConnection, which: Which) -> Result<Vec<Changed<Rollout>>, Error> {
    let query = query!(
        which,
        "select c.ordinal, c.rollout, c.changed_at from rollout_change c"
    );
    let rollout = |found: &PgRow| found.try_get("rollout").map(|Json(rollout)| rollout);
    all(query.fetch_all(db).await?, rollout)
}

/// Returns the oldest of these changes of holds, at most [`PAGE`].
///
/// # Errors
/// If Postgres can't be asked.
pub async fn holds(db: &mut PgConnection, which: Which) -> Result<Vec<Changed<Held>>, Error> {
    let query = query!(
        which,
        "select c.ordinal, c.change, c.changed_at, h.id, h.kind::text as kind, h.triggers, h.reason, h.hard, h.actor,
                case c.change when 'released' then h.released_by end as released_by, h.created_at, h.until
         from hold_change c join hold h on h.id = c.hold_id"
    );
    let hold = |found: &PgRow| {
        Ok(Held {
            id: row::unsigned(found.try_get("id")?),
            change: row::parsed(found.try_get("change")?)?,
            kind: found.try_get("kind")?,
            triggers: found.try_get("triggers")?,
            reason: found.try_get("reason")?,
            hard: found.try_get("hard")?,
            actor: found.try_get("actor")?,
            released_by: found.try_get("released_by")?,
            created_at: found.try_get("created_at")?,
            until: found.try_get("until")?,
        })
    };
    all(query.fetch_all(db).await?, hold)
}

/// Returns the oldest of these changes of conditions, at most [`PAGE`].
///
/// # Errors
/// If Postgres can't be asked.
pub async fn conditions(
    db: &mut PgConnection,
    which: Which,
) -> Result<Vec<Changed<ConditionChange>>, Error> {
    let query = query!(
        which,
        "select c.ordinal, t.name, c.condition, c.before, c.reasons, c.changed_at
         from condition_change c join trigger t on t.id = c.trigger_id"
    );
    let condition = |found: &PgRow| {
        let before: Option<&str> = found.try_get("before")?;
        let Json(reasons): Json<Vec<Value>> = found.try_get("reasons")?;
        // A process of a later version may know other reasons, which are left out.
        let known = |reason| serde_json::from_value(reason).ok();
        Ok(ConditionChange {
            trigger: found.try_get("name")?,
            condition: row::parsed(found.try_get("condition")?)?,
            before: before.map(row::parsed::<Condition>).transpose()?,
            reasons: reasons.into_iter().filter_map(known).collect(),
        })
    };
    all(query.fetch_all(db).await?, condition)
}

fn all<T>(
    rows: Vec<PgRow>,
    object: impl Fn(&PgRow) -> Result<T, Error>,
) -> Result<Vec<Changed<T>>, Error> {
    let changed = |found: &PgRow| {
        Ok(Changed {
            ordinal: found.try_get("ordinal")?,
            changed_at: found.try_get("changed_at")?,
            object: object(found),
        })
    };
    rows.iter().map(changed).collect()
}

/// Ordinals before the last one among which [`end`] looks for a gap.
const NEWEST: i64 = 1000;

/// The last ordinal of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The last ordinal that is visible, or 0.
    pub last: i64,
    /// The first missing ordinal of the newest thousand below the last one.
    pub gap: Option<i64>,
}

/// Returns the end of a table.
///
/// # Errors
/// If Postgres can't be asked.
pub async fn end(db: &mut PgConnection, table: Changes) -> Result<End, Error> {
    macro_rules! newest {
        ($table:literal) => {
            concat!(
                "select ordinal from ",
                $table,
                " order by ordinal desc limit $1"
            )
        };
    }
    let query = sqlx::query_scalar(match table {
        Changes::Rollouts => newest!("rollout_change"),
        Changes::Holds => newest!("hold_change"),
        Changes::Conditions => newest!("condition_change"),
    });
    let newest: Vec<i64> = query.bind(NEWEST).fetch_all(db).await?;
    let pairs = newest.iter().zip(newest.iter().skip(1));
    // From the last ordinal backwards, so the last gap that is found is the first one.
    let mut gaps = pairs.filter(|(later, earlier)| **earlier + 1 < **later);
    Ok(End {
        last: newest.first().copied().unwrap_or(0),
        gap: gaps.next_back().map(|(_, earlier)| earlier + 1),
    })
}

/// Returns the transactions that write into a table now, by the names that Postgres gives them.
/// Each holds a lock on the table from before it takes an ordinal until after its rows are visible.
///
/// # Errors
/// If Postgres can't be asked.
pub async fn writers(db: &mut PgConnection, table: Changes) -> Result<BTreeSet<String>, Error> {
    let name = match table {
        Changes::Rollouts => "rollout_change",
        Changes::Holds => "hold_change",
        Changes::Conditions => "condition_change",
    };
    let found: Vec<String> = sqlx::query_scalar(
        "select distinct virtualtransaction from pg_locks
         where relation = to_regclass($1) and mode = 'RowExclusiveLock'
           and database = (select oid from pg_database where datname = current_database())",
    )
    .bind(name)
    .fetch_all(db)
    .await?;
    Ok(found.into_iter().collect())
}

/// Returns the last ordinal before the first change at `time` or later: after it, no change at or
/// after `time` is left out.
///
/// # Errors
/// If Postgres can't be asked.
pub async fn before(
    db: &mut PgConnection,
    table: Changes,
    time: OffsetDateTime,
) -> Result<i64, Error> {
    macro_rules! first {
        ($table:literal, $after:literal) => {
            concat!(
                "select coalesce(
                     (select c.ordinal - 1 from ",
                $table,
                " c where c.changed_at >= $1 and c.ordinal > ",
                $after,
                " order by c.ordinal limit 1),
                     (select max(c.ordinal) from ",
                $table,
                " c), 0)"
            )
        };
    }
    let query = sqlx::query_scalar(match table {
        // A rollout is recorded at its time, but for the length of a transaction. So a binary
        // search finds a place shortly before, where the scan begins: the table is never cut.
        Changes::Rollouts => concat!(
            "with recursive search (low, high) as (
                 select 0::bigint, coalesce(max(ordinal), 0) + 1 from rollout_change
                 union all
                 select case when s.older then s.middle else s.low end, case when s.older then s.high else s.middle end
                 from (
                     select w.low, w.high, (w.low + w.high) / 2 as middle,
                         (select c.changed_at < $1 - interval '1 minute' from rollout_change c
                          where c.ordinal >= (w.low + w.high) / 2 order by c.ordinal limit 1) as older
                     from search w where w.low + 1 < w.high) s
             ) ",
            first!("rollout_change", "(select max(low) from search)")
        ),
        // A hold that has ended by itself has the time at which it ended, also where that is
        // recorded much later.
        Changes::Holds => first!("hold_change", "0"),
        Changes::Conditions => first!("condition_change", "0"),
    });
    query.bind(time).fetch_one(db).await
}

/// Returns whether changes of conditions after an ordinal may have been deleted: those of more than
/// 30 days ago are, except the last one of each trigger.
///
/// # Errors
/// If Postgres can't be asked.
pub async fn are_deleted(db: &mut PgConnection, after: i64) -> Result<bool, Error> {
    sqlx::query_scalar(
        "with kept as (
             select count(*) filter (where not recent) as old, min(ordinal) filter (where recent) as recent, max(ordinal) as last
             from (select ordinal, changed_at >= now() - interval '30 days' as recent from condition_change where ordinal > $1) c)
         select coalesce(
             coalesce(recent, last + 1) - $1 - 1 > old
             and coalesce((select changed_at < now() - interval '30 days' from condition_change
                           where ordinal <= $1 order by ordinal desc limit 1), true), false)
         from kept",
    )
    .bind(after)
    .fetch_one(db)
    .await
}
