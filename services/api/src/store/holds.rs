//! Holds: freezes, pins and faults.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_condition::{Hold, hold_columns};
use tagtrail_postgres::{rollout_is_live, row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::acts::{self, Effect, NewAct};

/// The SQL condition that the hold `h` is about the trigger with the name in this expression. Names
/// and patterns consist of a-z, 0-9, - and *.
macro_rules! is_about {
    ($name:literal) => {
        concat!(
            "(h.triggers = ",
            $name,
            " or position('*' in h.triggers) > 0 and ",
            $name,
            " ~ ('^' || replace(h.triggers, '*', '.*') || '$'))"
        )
    };
}

/// Records a freeze, and the act. Returns the id of the hold, also of a repeated order.
pub(crate) async fn freeze(
    db: &mut PgConnection,
    act: &NewAct<'_>,
    hard: bool,
    until: Option<OffsetDateTime>,
) -> Result<Result<i64, Effect>, sqlx::Error> {
    let mut tx = db.begin().await?;
    match acts::seen(&mut tx, act).await? {
        Some(Effect::Repeated) => {
            let before = acts::with_key(&mut tx, act.actor).await?;
            let hold = before.and_then(|(_, hold)| hold);
            return Ok(hold.ok_or(Effect::KeyReused));
        }
        Some(other) => return Ok(Err(other)),
        None => {}
    }
    let id: i64 = sqlx::query_scalar(
        "insert into hold (kind, triggers, reason, hard, actor, until)
         values ('freeze', $1, $2, $3, $4, $5) returning id",
    )
    .bind(act.trigger)
    .bind(act.reason)
    .bind(hard)
    .bind(act.actor.name())
    .bind(until)
    .fetch_one(&mut *tx)
    .await?;
    let act = NewAct {
        hold: Some(id),
        ..act.clone()
    };
    acts::record(&mut tx, &act).await?;
    touch(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Ok(id))
}

/// Ends a freeze, and records the act.
pub(crate) async fn thaw(
    db: &mut PgConnection,
    id: i64,
    act: &NewAct<'_>,
) -> Result<Effect, sqlx::Error> {
    let mut tx = db.begin().await?;
    if let Some(repeated) = acts::seen(&mut tx, act).await? {
        return Ok(repeated);
    }
    let released = sqlx::query(
        "update hold set released_at = now(), released_by = $2
         where id = $1 and kind = 'freeze' and released_at is null",
    )
    .bind(id)
    .bind(act.actor.name())
    .execute(&mut *tx)
    .await?;
    touch(&mut tx, id).await?;
    let effect = acts::record_effect(&mut tx, act, released.rows_affected() > 0).await?;
    tx.commit().await?;
    Ok(effect)
}

/// Lets the planner evaluate the gates of the triggers that a hold is about.
async fn touch(tx: &mut PgConnection, hold: i64) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "update trigger t set touched = true from hold h where h.id = $1 and ",
        is_about!("t.name")
    ))
    .bind(hold)
    .execute(tx)
    .await
    .map(|_| ())
}

/// A hold that has ended.
#[derive(Debug)]
pub(crate) struct Released {
    pub(crate) hold: Hold,
    pub(crate) ended_at: OffsetDateTime,
    /// `None`: its time was over.
    pub(crate) released_by: Option<String>,
}

/// Returns the holds that have ended since a time, the newest hold first.
pub(crate) async fn released(
    db: &mut PgConnection,
    since: OffsetDateTime,
    limit: i64,
) -> Result<Vec<Released>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "select ", hold_columns!(), ", h.released_by, least(h.released_at, h.until) as ended_at
         from hold h where least(h.released_at, h.until) <= now() and least(h.released_at, h.until) >= $1 order by h.id desc limit $2",
    ))
    .bind(since)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let released = |row: &PgRow| {
        Ok(Released {
            hold: Hold::read(row)?,
            ended_at: row.try_get("ended_at")?,
            released_by: row.try_get("released_by")?,
        })
    };
    rows.iter().map(released).collect()
}

/// A rollout that a freeze holds.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) trigger: String,
    pub(crate) rollout: Uuid,
    pub(crate) number: u64,
}

/// Returns the rollouts that the freezes in force hold, by the id of the hold.
pub(crate) async fn frozen(
    db: &mut PgConnection,
    limit: i64,
) -> Result<BTreeMap<u64, Vec<Frozen>>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "select h.id, t.name, o.id as rollout, o.number
         from hold h join trigger t on t.configured and ",
        is_about!("t.name"),
        " join rollout o on o.trigger_id = t.id and ",
        rollout_is_live!("o"),
        " and o.gates @> '[{\"gate\": \"freeze\"}]'
         where h.kind = 'freeze' and h.released_at is null and (h.until is null or h.until > now())
         order by h.id, t.name limit $1"
    ))
    .bind(limit)
    .fetch_all(db)
    .await?;
    let mut frozen: BTreeMap<u64, Vec<Frozen>> = BTreeMap::new();
    for row in rows {
        let id = row::unsigned(row.try_get("id")?);
        frozen.entry(id).or_default().push(Frozen {
            trigger: row.try_get("name")?,
            rollout: row.try_get("rollout")?,
            number: row::unsigned(row.try_get("number")?),
        });
    }
    Ok(frozen)
}
