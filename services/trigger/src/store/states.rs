//! The recorded states of triggers, as decisions read them.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_condition::Wanted;
use tagtrail_postgres::rollout_is_live;
use tagtrail_proto::{Reason, RolloutImage, Waiting};
use time::OffsetDateTime;

use super::gates::live;
use super::holds::in_force;
use super::orders::{Standing, order};

/// The recorded state of a trigger.
#[derive(Debug, Clone)]
pub(crate) struct TriggerState {
    pub(crate) id: i32,
    pub(crate) name: String,
    /// The hash of the settings in force, if they are recorded.
    pub(crate) spec_hash: Option<Vec<u8>>,
    pub(crate) paused: bool,
    /// True from a resume until the next plan.
    pub(crate) resuming: bool,
    /// The images of the last rollout, by their names in the trigger. A rollout that was superseded
    /// before its first attempt has changed nothing: either a newer one follows, or the rollout
    /// was withdrawn.
    pub(crate) last: Option<BTreeMap<String, RolloutImage>>,
    /// The place that the last rollout was sent to, once it has ended by itself.
    pub(crate) identity: Option<String>,
    /// True if the removal of the trigger cut the last rollout off.
    pub(crate) cut_off: bool,
    /// The time at which the trigger was first configured.
    pub(crate) first_configured_at: OffsetDateTime,
    /// True if the last rollout failed, or was adopted and never sent.
    pub(crate) unsent: bool,
    /// The closed gates of the last decision.
    pub(crate) waiting: Vec<Waiting>,
    /// The images as the last decision saw them.
    pub(crate) view: View,
    /// The orders and holds.
    pub(crate) standing: Standing,
}

/// The images of a trigger as a decision sees them, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) wanted: Wanted,
    pub(crate) reasons: Vec<Reason>,
}

/// Returns the state of these triggers, each with the time by the clock of the database. Heads are
/// recorded by the same clock, so the time to settle does not depend on the clock of this process.
/// One statement reads all: a rollout of a single trigger waits for each round trip.
pub(crate) async fn trigger_states(
    db: &mut PgConnection,
    names: &[&str],
) -> Result<Vec<(TriggerState, OffsetDateTime)>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "select t.id, t.name, t.spec_hash, t.first_configured_at, t.state = 'paused' as paused, t.state = 'resuming' as resuming,
             t.waiting, t.wanted, t.reasons, o.images, coalesce(o.state = 'failed' or o.cause ->> 'reason' = 'adopted', false) as unsent, clock_timestamp() as now,
             case when o.state in ('succeeded', 'failed', 'superseded') and not ", rollout_is_live!("o"), " then o.identity end as identity,
             coalesce(o.cut_off, false) as cut_off,
             r.id as order_id, r.kind, r.cause, r.images as ordered, r.skip, r.again,
             coalesce(l.state in ('held', 'awaiting_approval', 'pending', 'running', 'watching', 'succeeded'), false) as stands, (
             select h.images from hold h where h.kind = 'pin' and h.triggers = t.name and h.released_at is null
                 and (h.until is null or h.until > clock_timestamp()) order by h.id desc limit 1) as pinned,
             (select coalesce(jsonb_agg(jsonb_build_object('kind', h.kind, 'hard', h.hard, 'actor', h.actor, 'reason', h.reason,
                  'images', h.images, 'until', h.until) order by h.id desc), '[]')
              from hold h where ", in_force!("t"), ") as holds,
             ", live!(), " as live,
             (select b.started_at from rollout b where b.trigger_id = t.id and b.started_at is not null
              order by b.number desc limit 1) as last_begun
         from trigger t
         left join lateral (
             select images, state, cause, ended, identity, cut_off from rollout o
             where o.trigger_id = t.id and not (o.state = 'superseded' and o.attempts = 0)
             order by o.number desc limit 1) o on true
         left join lateral (
             select * from rollout_order o where o.trigger_id = t.id and o.done_at is null and o.kind in ('rollout', 'release')
             order by o.id limit 1) r on true
         left join lateral (
             select o.state from rollout o where o.trigger_id = t.id order by o.number desc limit 1) l on true
         where t.configured and t.name = any ($1)"
    ))
    .bind(names)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let state = TriggerState {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                spec_hash: row.try_get("spec_hash")?,
                paused: row.try_get("paused")?,
                resuming: row.try_get("resuming")?,
                last: row
                    .try_get::<Option<Json<_>>, _>("images")?
                    .map(|Json(images)| images),
                identity: row.try_get("identity")?,
                cut_off: row.try_get("cut_off")?,
                first_configured_at: row.try_get("first_configured_at")?,
                unsent: row.try_get("unsent")?,
                // An older planner may have known other gates. The next decision replaces the list.
                waiting: serde_json::from_value(row.try_get("waiting")?).unwrap_or_default(),
                view: View {
                    wanted: Wanted::read(
                        row.try_get::<Option<Json<_>>, _>("wanted")?
                            .map(|Json(images)| images),
                    ),
                    reasons: serde_json::from_value(row.try_get("reasons")?).unwrap_or_default(),
                },
                standing: standing(row)?,
            };
            Ok((state, row.try_get("now")?))
        })
        .collect()
}

fn standing(row: &PgRow) -> Result<Standing, sqlx::Error> {
    let (Json(holds), Json(live)) = (row.try_get("holds")?, row.try_get("live")?);
    let pinned: Option<Json<_>> = row.try_get("pinned")?;
    Ok(Standing {
        holds,
        live,
        last_begun: row.try_get("last_begun")?,
        order: order(row)?,
        pinned: pinned.map(|Json(set)| set),
        stands: row.try_get("stands")?,
    })
}
