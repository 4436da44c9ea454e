//! The gates of recorded rollouts: the facts that they depend on, and the verdicts.

use std::collections::BTreeMap;

use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::{Json, Uuid};
use tagtrail_policy::begin::Verdict;
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

/// Returns for each pair of a trigger and a set of images whether the set has succeeded before.
pub(crate) async fn known(
    db: &mut PgConnection,
    sets: &[(i32, &BTreeMap<String, RolloutImage>)],
) -> Result<Vec<bool>, sqlx::Error> {
    let (triggers, sets): (Vec<i32>, Vec<Json<_>>) = sets
        .iter()
        .map(|(trigger, set)| (*trigger, Json(*set)))
        .unzip();
    sqlx::query_scalar(
        "select exists (
             select from rollout k where k.trigger_id = w.trigger_id and k.state = 'succeeded'
               and image_set(k.images) = image_set(w.images))
         from unnest($1::int[], $2::jsonb[]) with ordinality as w (trigger_id, images, place) order by w.place",
    )
    .bind(triggers)
    .bind(sets)
    .fetch_all(db)
    .await
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
             select * from unnest($1::uuid[], $2::int[], $3::text[], $4::jsonb[], $5::timestamptz[], $6::timestamptz[])
                 as w (id, trigger_id, state, gates, opens_at, closes_at)
         ), locked as (
             select t.id from trigger t where t.id in (select trigger_id from w) order by t.id for update
         ), before as (
             select o.id, o.state from rollout o join w on w.id = o.id
         ), changed as (
             update rollout o set gates = w.gates, opens_at = w.opens_at, closes_at = w.closes_at,
                 state = case when o.state in ('held', 'awaiting_approval', 'pending') then w.state::rollout_state else o.state end
             from w join locked l on l.id = w.trigger_id join before b on b.id = w.id
             where o.id = w.id and ", rollout_is_live!("o"), "
             returning o.*, o.state in ('held', 'awaiting_approval', 'pending') and o.state <> b.state as moved
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
    .execute(db)
    .await
    .map(|_| ())
}
