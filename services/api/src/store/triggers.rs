//! Triggers: reading them, pausing and resuming.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Name, Rollout, Waiting};
use uuid::Uuid;

/// A configured trigger.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Trigger {
    pub(crate) name: String,
    /// The watched images, by name.
    pub(crate) images: BTreeMap<String, String>,
    /// Kind of the target.
    pub(crate) target: String,
    pub(crate) state: TriggerState,
    /// The last rollout that is running or has succeeded. Scaling up must use the pinned images of
    /// this rollout.
    pub(crate) current: Option<Rollout>,
    /// Number of images whose head differs from the current rollout. While paused, resuming rolls
    /// these heads out.
    pub(crate) newer: u32,
    /// The closed gates: the reasons why the present images are not rolled out yet. Empty while
    /// paused.
    pub(crate) waiting: Vec<Waiting>,
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

/// Returns the configured triggers, or the trigger with this name, each with the last rollout
/// that is running or has succeeded.
pub(crate) async fn configured(
    db: &mut PgConnection,
    name: Option<&Name>,
) -> Result<Vec<Trigger>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name as trigger, t.images as watched, t.target, t.state = 'paused' as paused,
                case when t.state = 'active' then t.waiting else '[]' end as waiting,
                (select count(*) from jsonb_each_text(t.images) w
                 join repository r on r.registry = split_part(w.value, '/', 1) and r.name = substring(w.value from '^[^/]+/(.*):[^:]+$')
                 join tag g on g.repository_id = r.id and g.name = substring(w.value from '[^:]+$')
                 where g.head_digest is not null
                   and encode(g.head_digest, 'hex') is distinct from split_part(o.images -> w.key ->> 'digest', ':', 2)) as newer,
                o.id, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error
         from trigger t
         left join lateral (
             select * from rollout o
             where o.trigger_id = t.id and o.state in ('running', 'succeeded')
             order by o.number desc limit 1) o on true
         where t.configured and t.name = coalesce($1, t.name)
         order by t.name",
    )
    .bind(name.map(AsRef::as_ref))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let current = match row.try_get::<Option<Uuid>, _>("id")? {
                Some(_) => Some(row::rollout(row)?),
                None => None,
            };
            let Json(images) = row.try_get("watched")?;
            // A planner of another version may know other gates.
            let Json(waiting): Json<Vec<serde_json::Value>> = row.try_get("waiting")?;
            let waiting = waiting
                .into_iter()
                .filter_map(|one| serde_json::from_value(one).ok())
                .collect();
            Ok(Trigger {
                name: row.try_get("trigger")?,
                images,
                target: row.try_get("target")?,
                state: if row.try_get("paused")? {
                    TriggerState::Paused
                } else {
                    TriggerState::Active
                },
                current,
                newer: u32::try_from(row.try_get::<i64, _>("newer")?).unwrap_or(u32::MAX),
                waiting,
            })
        })
        .collect()
}

/// Pauses or resumes a configured trigger. Returns whether the state changed.
pub(crate) async fn set_paused(
    db: &mut PgConnection,
    name: &Name,
    paused: bool,
) -> Result<bool, sqlx::Error> {
    let changed = sqlx::query(
        // In the state `resuming` workers wait until the planner has read the present heads.
        "update trigger set state = case when $2 then 'paused'::trigger_state else 'resuming' end
         where name = $1 and configured and (state = 'paused') <> $2",
    )
    .bind(name.as_ref())
    .bind(paused)
    .execute(db)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// Returns the row id of a trigger, configured or not.
pub(crate) async fn id(db: &mut PgConnection, name: &Name) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar("select id from trigger where name = $1")
        .bind(name.as_ref())
        .fetch_optional(db)
        .await
}
