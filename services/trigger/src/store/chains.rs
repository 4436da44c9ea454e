//! Triggers that follow others: the sets of the triggers before, and sets that are revoked.

use std::collections::BTreeMap;

use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_policy::follow::Success;
use tagtrail_postgres::row;
use tagtrail_proto::RolloutImage;

use super::columns::recorded;

/// Most successes of each trigger that are read. A set of an older one counts as never succeeded.
const MOST: i64 = 200;

/// Returns the successes of each of these triggers. Those of sets that a person chose count as
/// rollbacks: automation takes over the choices of upstream automation alone.
pub(crate) async fn successes(
    db: &mut PgConnection,
    names: &[&str],
) -> Result<BTreeMap<String, Vec<Success>>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name, o.number, o.images, o.finished_at, o.fixed or o.cause ->> 'reason' = 'rollback' as rollback
         from trigger t cross join lateral (
             select * from rollout r where r.trigger_id = t.id and r.state = 'succeeded' and r.finished_at is not null
             order by r.number desc limit $2) o
         where t.name = any ($1)",
    )
    .bind(names)
    .bind(MOST)
    .fetch_all(db)
    .await?;
    let mut successes: BTreeMap<String, Vec<Success>> = BTreeMap::new();
    for row in &rows {
        let Json(images): Json<BTreeMap<String, RolloutImage>> = row.try_get("images")?;
        successes
            .entry(row.try_get("name")?)
            .or_default()
            .push(Success {
                number: row::unsigned(row.try_get("number")?),
                images,
                at: row.try_get("finished_at")?,
                rollback: row.try_get("rollback")?,
            });
    }
    Ok(successes)
}

/// Returns the number of the newest success of each of these triggers.
pub(crate) async fn newest(
    db: &mut PgConnection,
    names: &[&str],
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name, o.number from trigger t cross join lateral (
             select r.number from rollout r where r.trigger_id = t.id and r.state = 'succeeded'
             order by r.number desc limit 1) o
         where t.name = any ($1)",
    )
    .bind(names)
    .fetch_all(db)
    .await?;
    let each = rows.iter();
    each.map(|row| Ok((row.try_get("name")?, row.try_get("number")?)))
        .collect()
}

/// Withdraws the last rollouts of these triggers, by id, each for a reason, unless an attempt has
/// begun or a person has ordered the rollout. Returns the names of the triggers whose rollout is
/// withdrawn.
pub(crate) async fn withdraw(
    db: &mut PgConnection,
    revoked: &[(i32, String)],
) -> Result<Vec<String>, sqlx::Error> {
    let (triggers, reasons): (Vec<i32>, Vec<&str>) = revoked
        .iter()
        .map(|(trigger, why)| (*trigger, why.as_str()))
        .unzip();
    sqlx::query_scalar(concat!(
        "with given as (
             select t.id, g.why from trigger t join unnest($1::int[], $2::text[]) as g (id, why) on g.id = t.id
             order by t.id for update of t
         ), o as (
             update rollout o set state = 'superseded', finished_at = now(), error = 'not begun: ' || g.why
             from given g
             where o.trigger_id = g.id and o.state in ('held', 'awaiting_approval', 'pending') and o.attempts = 0
                 and o.actor is null and not o.fixed
                 and not exists (select from rollout n where n.trigger_id = o.trigger_id and n.number > o.number)
             returning o.*
         ), told as (
             ", recorded!(), "
         )
         select t.name from o join trigger t on t.id = o.trigger_id",
    ))
    .bind(triggers)
    .bind(reasons)
    .fetch_all(db)
    .await
}
