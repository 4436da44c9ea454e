//! The gates of recorded rollouts: the facts that they depend on, and the verdicts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::types::{Json, Uuid};
use sqlx::{PgConnection, Row as _};
use tagtrail_policy::begin::{Approval, Verdict};
use tagtrail_postgres::rollout_is_live;
use tagtrail_proto::{ClosedGate, RolloutImage, RolloutState};
use time::OffsetDateTime;

use super::columns::recorded;

/// A rollout that has not ended.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Live {
    pub(crate) id: Uuid,
    pub(crate) state: RolloutState,
    pub(crate) images: BTreeMap<String, RolloutImage>,
    /// The number of attempts begun.
    pub(crate) attempts: i32,
    /// True if a person ordered the rollout.
    pub(crate) ordered: bool,
    /// The gates that the order passes.
    pub(crate) skip: Vec<String>,
    /// The closed gates of the last evaluation.
    gates: serde_json::Value,
    #[serde(with = "tagtrail_proto::instant::option")]
    pub(crate) opens_at: Option<OffsetDateTime>,
    #[serde(with = "tagtrail_proto::instant::option")]
    pub(crate) closes_at: Option<OffsetDateTime>,
}

impl Live {
    pub(crate) fn gates(&self) -> Vec<ClosedGate> {
        ClosedGate::known(self.gates.clone())
    }
}

/// The SQL of the live rollouts of the trigger `t` as a JSON list of [`Live`], lowest number first.
macro_rules! live {
    () => {
        concat!(
            "(select coalesce(jsonb_agg(jsonb_build_object(
                 'id', v.id, 'state', v.state, 'images', v.images, 'attempts', v.attempts,
                 'ordered', v.actor is not null, 'skip', v.skip, 'gates', v.gates,
                 'opens_at', v.opens_at, 'closes_at', v.closes_at) order by v.number), '[]')
             from rollout v where v.trigger_id = t.id and ",
            rollout_is_live!("v"),
            ")"
        )
    };
}
pub(super) use live;

/// A set of images of a trigger, and the rollout of them if it is recorded.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) trigger: i32,
    pub(crate) images: &'a BTreeMap<String, RolloutImage>,
    pub(crate) rollout: Option<Uuid>,
}

/// The facts about a set of images.
#[derive(Debug, Clone, Default)]
pub(crate) struct OfSet {
    /// True if a rollout of the set has succeeded.
    pub(crate) known: bool,
    /// The approvals since the last rejection of the set.
    pub(crate) approvals: Vec<Approval>,
    /// The text of the rejection of the rollout.
    pub(crate) rejected: Option<String>,
}

/// Returns the facts about these sets.
pub(crate) async fn of_sets(
    db: &mut PgConnection,
    asked: &[Asked<'_>],
) -> Result<Vec<OfSet>, sqlx::Error> {
    let rows = sqlx::query(
        "select exists (
                 select from rollout k where k.trigger_id = w.trigger_id and k.state = 'succeeded'
                   and image_set(k.images) = image_set(w.images)) as known,
             (select coalesce(jsonb_agg(jsonb_build_object('actor', a.actor, 'given_at', a.given_at)), '[]')
              from approval a
              where a.trigger_id = w.trigger_id and a.set = image_set(w.images) and a.verdict = 'approved'
                and a.id > coalesce((
                    select max(r.id) from approval r
                    where r.trigger_id = a.trigger_id and r.set = a.set and r.verdict = 'rejected'), 0)) as approvals,
             (select 'rejected by ' || r.actor || ': ' || r.reason from approval r
              where r.rollout_id = w.rollout_id and r.verdict = 'rejected' order by r.id limit 1) as rejected
         from unnest($1::int[], $2::jsonb[], $3::uuid[]) with ordinality as w (trigger_id, images, rollout_id, place)
         order by w.place",
    )
    .bind(asked.iter().map(|one| one.trigger).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| Json(one.images)).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.rollout).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    let of_set = |row: &PgRow| {
        let Json(approvals) = row.try_get("approvals")?;
        Ok(OfSet {
            known: row.try_get("known")?,
            approvals,
            rejected: row.try_get("rejected")?,
        })
    };
    rows.iter().map(of_set).collect()
}

/// Returns those of these triggers of which a rollout is about to begin, or has begun and not
/// ended.
pub(crate) async fn busy(
    db: &mut PgConnection,
    names: &[&str],
) -> Result<BTreeSet<String>, sqlx::Error> {
    let busy: Vec<String> = sqlx::query_scalar(
        "select distinct t.name from trigger t join rollout o on o.trigger_id = t.id
         where t.name = any ($1) and t.configured
           and (o.state in ('running', 'watching') or o.state = 'pending' and t.state = 'active')",
    )
    .bind(names)
    .fetch_all(db)
    .await?;
    Ok(busy.into_iter().collect())
}

/// The new verdict about a recorded rollout.
#[derive(Debug)]
pub(crate) struct Change {
    /// The id and the name of the trigger.
    pub(crate) trigger: i32,
    pub(crate) name: String,
    pub(crate) rollout: Uuid,
    pub(crate) verdict: Verdict,
}

/// Records verdicts. A rollout without an attempt gets the state of its verdict; a rollout that
/// meanwhile ended stays as it is.
pub(crate) async fn record(db: &mut PgConnection, changes: &[Change]) -> Result<(), sqlx::Error> {
    let verdicts = || changes.iter().map(|change| &change.verdict);
    sqlx::query(concat!(
        "with w as (
             select * from unnest($1::uuid[], $2::int[], $3::text[], $4::jsonb[], $5::timestamptz[], $6::timestamptz[], $7::text[])
                 as w (id, trigger_id, state, gates, opens_at, closes_at, rejected)
         ), locked as (
             select t.id from trigger t where t.id in (select trigger_id from w) order by t.id for update
         ), before as (
             select o.id, o.state from rollout o join w on w.id = o.id
         ), changed as (
             update rollout o set gates = w.gates, opens_at = w.opens_at, closes_at = w.closes_at,
                 finished_at = case when w.rejected is not null and o.attempts = 0 then now() else o.finished_at end,
                 error = case when o.attempts = 0 then coalesce(w.rejected, o.error) else o.error end,
                 state = case when o.state in ('held', 'awaiting_approval', 'pending') then w.state::rollout_state else o.state end
             from w join locked l on l.id = w.trigger_id join before b on b.id = w.id
             where o.id = w.id and ", rollout_is_live!("o"), "
             returning o.*, o.state in ('held', 'awaiting_approval', 'pending', 'rejected') and o.state <> b.state as moved
         ), o as (
             select * from changed where moved
         ) ",
        recorded!()
    ))
    .bind(changes.iter().map(|change| change.rollout).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.trigger).collect::<Vec<_>>())
    .bind(verdicts().map(|verdict| verdict.state.as_str()).collect::<Vec<_>>())
    .bind(verdicts().map(|verdict| Json(&verdict.gates)).collect::<Vec<_>>())
    .bind(verdicts().map(|verdict| verdict.opens_at).collect::<Vec<_>>())
    .bind(verdicts().map(|verdict| verdict.closes_at).collect::<Vec<_>>())
    .bind(verdicts().map(|verdict| verdict.rejected.as_deref()).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}
