//! The orders of people that record or end rollouts, as the planner carries out and answers them.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_policy::begin::Hold;
use tagtrail_postgres::{rollout_is_live, row};
use tagtrail_proto::{CauseReason, RolloutImage};
use time::OffsetDateTime;

use super::columns::recorded;
use super::gates::Live;

/// An order that the planner has not carried out yet.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) kind: Kind,
    pub(crate) cause: CauseReason,
    /// The set to roll out; `None`: the present one.
    pub(crate) images: Option<BTreeMap<String, RolloutImage>>,
    /// The gates that the rollout passes.
    pub(crate) skip: Vec<String>,
    /// True if the set is rolled out also if the last rollout has it.
    pub(crate) again: bool,
}

/// The kind of an order that the decision takes part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Roll out a set.
    Rollout,
    /// A pin or a fault has ended: roll out the present heads if they differ.
    Release,
}

/// Pinned images, by their names in the trigger.
pub(crate) type Set = BTreeMap<String, RolloutImage>;

/// The orders and holds that a decision about a trigger depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// The oldest order that is not carried out.
    pub(crate) order: Option<Order>,
    /// The images of the pin in force.
    pub(crate) pinned: Option<Set>,
    /// True if the last rollout has succeeded, or may still.
    pub(crate) stands: bool,
    /// The holds in force, newest first.
    pub(crate) holds: Vec<Hold>,
    /// The time at which the last rollout began.
    pub(crate) last_begun: Option<OffsetDateTime>,
    /// The rollouts that have not ended, lowest number first.
    pub(crate) live: Vec<Live>,
}

/// Returns the names of configured triggers with an order, or whose holds changed, and
/// forgets the changes: the caller evaluates these triggers next, and all of them after a restart.
pub(crate) async fn due(db: &mut PgConnection) -> Result<BTreeSet<String>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "with touched as (
             update trigger set touched = false where touched returning name, configured
         )
         select name from touched where configured
         union
         select t.name from rollout_order r join trigger t on t.id = r.trigger_id where r.done_at is null and t.configured and t.state <> 'paused'",
    )
    .fetch_all(db)
    .await?;
    Ok(names.into_iter().collect())
}

/// Returns the order in the columns of a row; `None` if they are null.
pub(super) fn order(row: &PgRow) -> Result<Option<Order>, sqlx::Error> {
    let Some(id) = row.try_get("order_id")? else {
        return Ok(None);
    };
    let images: Option<Json<_>> = row.try_get("ordered")?;
    Ok(Some(Order {
        id,
        kind: match row.try_get("kind")? {
            "release" => Kind::Release,
            _ => Kind::Rollout,
        },
        cause: row::parsed(row.try_get("cause")?)?,
        images: images.map(|Json(images)| images),
        skip: row.try_get("skip")?,
        again: row.try_get("again")?,
    }))
}

/// Records the effect of orders that led to no rollout: id and text.
pub(crate) async fn answer(
    db: &mut PgConnection,
    answers: &[(i64, String)],
) -> Result<(), sqlx::Error> {
    let (ids, texts): (Vec<i64>, Vec<&str>) = answers
        .iter()
        .map(|(id, text)| (*id, text.as_str()))
        .unzip();
    sqlx::query(
        "update rollout_order r set done_at = now(), answer = a.answer
         from unnest($1::bigint[], $2::text[]) as a (id, answer) where r.id = a.id and r.done_at is null",
    )
    .bind(ids)
    .bind(texts)
    .execute(db)
    .await
    .map(|_| ())
}

/// Carries out the orders to cancel rollouts. Returns ids and names of the triggers concerned.
pub(crate) async fn cancel(db: &mut PgConnection) -> Result<Vec<(i32, String)>, sqlx::Error> {
    sqlx::query_as(concat!(
        "with ordered as (
             select r.id, r.rollout_id, r.trigger_id, r.actor, r.reason from rollout_order r
             where r.done_at is null and r.kind = 'cancel'
         ), held as (
             select t.id from trigger t where t.id in (select trigger_id from ordered) order by t.id for update
         ), cancelled as (
             update rollout o set state = 'cancelled', finished_at = now(),
                 error = 'cancelled by ' || r.actor || coalesce(': ' || r.reason, '')
             from ordered r join held h on h.id = r.trigger_id
             where o.id = r.rollout_id and o.trigger_id = r.trigger_id and ", rollout_is_live!("o"), "
             returning o.*
         ), answered as (
             update rollout_order a set done_at = now(),
                 answer = coalesce((select 'rollout ' || c.number || ' is cancelled' from cancelled c where c.id = a.rollout_id),
                     'nothing to do: the rollout has ended')
             from ordered r where a.id = r.id
             returning a.trigger_id
         ), o as (
             select * from cancelled
         ), told as (
             ", recorded!(), "
         )
         select t.id, t.name from answered a join trigger t on t.id = a.trigger_id"
    ))
    .fetch_all(db)
    .await
}

/// Carries out the orders to go on with higher numbers. Numbers never fall.
pub(crate) async fn renumber(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with ordered as (
             select r.id, r.trigger_id, r.above from rollout_order r join trigger t on t.id = r.trigger_id
             where r.done_at is null and r.kind = 'renumber' and t.configured
         ), raised as (
             update trigger t set issued = greatest(t.issued, o.above)
             from (select trigger_id, max(above) as above from ordered group by trigger_id) o
             where t.id = o.trigger_id returning t.id, t.issued
         )
         update rollout_order r set done_at = now(), answer = 'the next rollout has a number above ' || d.issued
         from ordered o join raised d on d.id = o.trigger_id where r.id = o.id",
    )
    .execute(db)
    .await
    .map(|_| ())
}
