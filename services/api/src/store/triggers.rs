//! Triggers: reading them, and the orders of people.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_postgres::{rollout_is_live, rollout_json};
use tagtrail_proto::{ClosedGate, Name, Rollout, RolloutState, Waiting};
use time::OffsetDateTime;

use super::acts::{self, Effect, NewAct, Refused};
use super::holds::{self, Hold, HoldKind};
use super::rollouts::{Watch, watch};

/// A configured trigger.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Trigger {
    pub(crate) name: String,
    /// The watched images, by name.
    pub(crate) images: BTreeMap<String, String>,
    /// Kind of the target.
    pub(crate) target: String,
    pub(crate) state: TriggerState,
    /// The token that paused the trigger, or `local`; null unless it is paused.
    pub(crate) paused_by: Option<String>,
    /// Time of the pause.
    #[serde(with = "tagtrail_proto::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(crate) paused_at: Option<OffsetDateTime>,
    /// The reason of the pause, if one was given.
    pub(crate) paused_reason: Option<String>,
    /// The last act that was refused because the token may not act on this trigger.
    pub(crate) refused: Option<Refused>,
    /// Whether the present images run, and otherwise the cause.
    pub(crate) condition: Condition,
    /// The mistake in the entry of the trigger, with file, line and cure.
    pub(crate) problem: Option<String>,
    /// The newest rollout that has succeeded. Scaling up must use the pinned images of this
    /// rollout.
    pub(crate) current: Option<Rollout>,
    /// The newest rollout in any state, without those that were superseded before their first
    /// attempt.
    pub(crate) last: Option<Rollout>,
    /// Time of the next attempt of the last rollout, if one follows.
    #[serde(with = "tagtrail_proto::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(crate) next_attempt_at: Option<OffsetDateTime>,
    /// The observation of the last rollout. Null unless its target took the images and their result
    /// is observed.
    pub(crate) watch: Option<Watch>,
    /// Number of images whose head differs from the last rollout. While paused, resuming rolls
    /// these heads out.
    pub(crate) newer: u32,
    /// The closed gates before the recording of a rollout: the reasons why the present images are
    /// not rolled out yet. Empty while paused.
    pub(crate) waiting: Vec<Waiting>,
    /// The closed gates of the last rollout: no attempt begins before all are open.
    pub(crate) gates: Vec<ClosedGate>,
    /// The settings of the gates as they are written: `window`, `gap`, `group`, `approvals`.
    pub(crate) gate_settings: Map<String, Value>,
    /// The freezes, pins and faults in force about this trigger, newest first.
    pub(crate) holds: Vec<Hold>,
}

/// The state of a trigger: rollouts start, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TriggerState {
    /// Rollouts start.
    Active,
    /// No rollout starts, even after a push.
    Paused,
}

/// The condition of a trigger, the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Condition {
    /// The entry of the trigger or a secret can't be used; `problem` has the cause.
    Broken,
    /// A person paused the trigger.
    Paused,
    /// The last attempt of the last rollout failed.
    Failing,
    /// A closed gate holds the last rollout, or a pin keeps newer heads from being rolled out.
    Held,
    /// The last rollout has not ended.
    RollingOut,
    /// A gate keeps a rollout from being recorded, or people must approve the last one.
    Waiting,
    /// The last rollout succeeded, and no other is needed, or there is none yet.
    Settled,
}

impl Condition {
    fn of(broken: bool, paused: bool, last: Option<&Rollout>, waiting: &[Waiting]) -> Condition {
        match last.map(|last| (last.state, &last.error)) {
            _ if broken => Condition::Broken,
            _ if paused => Condition::Paused,
            Some((RolloutState::Failed, _) | (RolloutState::Running, Some(_))) => {
                Condition::Failing
            }
            Some((RolloutState::Held, _)) => Condition::Held,
            Some((RolloutState::AwaitingApproval, _)) => Condition::Waiting,
            Some((RolloutState::Pending | RolloutState::Running | RolloutState::Watching, _)) => {
                Condition::RollingOut
            }
            _ if !waiting.is_empty() => Condition::Waiting,
            _ => Condition::Settled,
        }
    }
}

impl Condition {
    /// Returns the condition in view of the holds in force: they keep a rollout without an attempt
    /// from beginning, and a pin keeps newer heads from leading to one.
    fn held(self, holds: &[Hold], begun: bool, newer: u32) -> Condition {
        let pinned = holds.iter().any(|hold| hold.kind == HoldKind::Pin);
        match self {
            Condition::RollingOut | Condition::Waiting
                if !begun && !holds.is_empty() && !pinned =>
            {
                Condition::Held
            }
            Condition::Settled | Condition::Waiting if pinned && newer > 0 => Condition::Held,
            other => other,
        }
    }
}

/// Returns the configured triggers, or the trigger with this name.
pub(crate) async fn configured(
    db: &mut PgConnection,
    name: Option<&Name>,
) -> Result<Vec<Trigger>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "select t.name, t.images as watched, t.gate_settings, t.target, t.problem, t.broken, t.state = 'paused' as paused,
                t.paused_by, t.paused_at, t.paused_reason,
                f.at as refused_at, f.actor as refused_actor, f.act as refused_act,
                case when t.state = 'active' then t.waiting else '[]' end as waiting,
                (select count(*) from jsonb_each_text(t.images) w
                 join repository r on r.registry = split_part(w.value, '/', 1) and r.name = substring(w.value from '^[^/]+/(.*):[^:]+$')
                 join tag g on g.repository_id = r.id and g.name = substring(w.value from '[^:]+$')
                 where g.head_digest is not null
                   and encode(g.head_digest, 'hex') is distinct from split_part(l.images -> w.key ->> 'digest', ':', 2)) as newer,
                case when c.id is not null then ", rollout_json!("c"), " end as current,
                case when l.id is not null then ", rollout_json!("l"), " end as last,
                case when ", rollout_is_live!("l"), " and l.state <> 'watching' then l.next_attempt_at end as next_attempt_at,
                case when ", rollout_is_live!("l"), " then ", watch!("l"), " end as watch
         from trigger t
         left join refused_act f on f.trigger_id = t.id
         left join lateral (
             select * from rollout o where o.trigger_id = t.id and o.state = 'succeeded'
             order by o.number desc limit 1) c on true
         left join lateral (
             select * from rollout o
             where o.trigger_id = t.id and (o.state <> 'superseded' or o.started_at is not null)
             order by o.number desc limit 1) l on true
         where t.configured and t.name = coalesce($1, t.name)
         order by t.name",
    ))
    .bind(name.map(AsRef::as_ref))
    .fetch_all(&mut *db)
    .await?;
    // Holds are few, and a pattern of each is compared with each name.
    let holds = holds::list(db, None).await?;
    rows.iter().map(|row| trigger(row, &holds)).collect()
}

fn trigger(row: &PgRow, holds: &[Hold]) -> Result<Trigger, sqlx::Error> {
    let rollout = |column: &str| -> Result<Option<Rollout>, sqlx::Error> {
        let rollout: Option<Json<Rollout>> = row.try_get(column)?;
        Ok(rollout.map(|Json(rollout)| rollout))
    };
    let (current, last) = (rollout("current")?, rollout("last")?);
    let Json(images) = row.try_get("watched")?;
    // A planner of another version may know other gates.
    let Json(waiting): Json<Vec<serde_json::Value>> = row.try_get("waiting")?;
    let waiting: Vec<Waiting> = waiting
        .into_iter()
        .filter_map(|one| serde_json::from_value(one).ok())
        .collect();
    let refused = match row.try_get("refused_at")? {
        Some(at) => Some(Refused {
            at,
            actor: row.try_get("refused_actor")?,
            act: row.try_get("refused_act")?,
        }),
        None => None,
    };
    let paused = row.try_get("paused")?;
    let name: String = row.try_get("name")?;
    let holds: Vec<Hold> = holds
        .iter()
        .filter(|hold| hold.is_about(&name))
        .cloned()
        .collect();
    let newer = u32::try_from(row.try_get::<i64, _>("newer")?).unwrap_or(u32::MAX);
    let condition = Condition::of(row.try_get("broken")?, paused, last.as_ref(), &waiting);
    let begun = last.as_ref().is_some_and(|last| last.attempts > 0);
    let gates = last.as_ref().map(|last| last.gates.clone());
    let Json(gate_settings) = row.try_get("gate_settings")?;
    Ok(Trigger {
        gate_settings,
        gates: gates.unwrap_or_default(),
        condition: condition.held(&holds, begun, newer),
        holds,
        name,
        images,
        problem: row.try_get("problem")?,
        target: row.try_get("target")?,
        state: if paused {
            TriggerState::Paused
        } else {
            TriggerState::Active
        },
        paused_by: row.try_get("paused_by")?,
        paused_at: row.try_get("paused_at")?,
        paused_reason: row.try_get("paused_reason")?,
        refused,
        current,
        last,
        next_attempt_at: row.try_get("next_attempt_at")?,
        watch: row
            .try_get::<Option<Json<Watch>>, _>("watch")?
            .map(|Json(watch)| watch),
        newer,
        waiting,
    })
}

/// Pauses or resumes a configured trigger, and records the act.
pub(crate) async fn set_paused(
    db: &mut PgConnection,
    name: &Name,
    paused: bool,
    act: &NewAct<'_>,
) -> Result<Effect, sqlx::Error> {
    let mut tx = db.begin().await?;
    if let Some(repeated) = acts::seen(&mut tx, act).await? {
        return Ok(repeated);
    }
    let changed = sqlx::query(
        // In the state `resuming` workers wait until the planner has read the present heads.
        "update trigger set state = case when $2 then 'paused'::trigger_state else 'resuming' end,
             paused_by = case when $2 then $3 end, paused_at = case when $2 then now() end,
             paused_reason = case when $2 then $4 end
         where name = $1 and configured and (state = 'paused') <> $2",
    )
    .bind(name.as_ref())
    .bind(paused)
    .bind(act.actor.name())
    .bind(act.reason)
    .execute(&mut *tx)
    .await?;
    let effect = acts::record_effect(&mut tx, act, changed.rows_affected() > 0).await?;
    tx.commit().await?;
    Ok(effect)
}

/// Orders the next attempt of a configured trigger now: its planner carries the order out. Records
/// the act.
pub(crate) async fn retry(
    db: &mut PgConnection,
    name: &Name,
    act: &NewAct<'_>,
) -> Result<Effect, sqlx::Error> {
    let mut tx = db.begin().await?;
    if let Some(repeated) = acts::seen(&mut tx, act).await? {
        return Ok(repeated);
    }
    let changed = sqlx::query("update trigger set retry = true where name = $1 and configured")
        .bind(name.as_ref())
        .execute(&mut *tx)
        .await?;
    let effect = acts::record_effect(&mut tx, act, changed.rows_affected() > 0).await?;
    tx.commit().await?;
    Ok(effect)
}

/// Returns the row id of a trigger, configured or not.
pub(crate) async fn id(db: &mut PgConnection, name: &Name) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar("select id from trigger where name = $1")
        .bind(name.as_ref())
        .fetch_optional(db)
        .await
}
