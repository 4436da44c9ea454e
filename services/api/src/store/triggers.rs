//! Triggers: reading them, and the orders of people.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::{Connection as _, PgConnection};
use tagtrail_condition::{Facts, Hold, Judged, SelectedTag, judge};
use tagtrail_proto::{ClosedGate, Condition, Digest, Name, Reason, Rollout, RolloutImage, Waiting};
use time::OffsetDateTime;

use super::acts::{self, Effect, NewAct, Refused};
use super::rollouts::{self, Watch};
use super::similar;

/// A configured trigger.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Trigger {
    pub(crate) name: String,
    /// The watched images, by name: a tag, or the repository of an image with a policy.
    pub(crate) images: BTreeMap<String, String>,
    /// The images with a policy, by name.
    pub(crate) policies: BTreeMap<String, Policy>,
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
    /// Whether the wanted images run, and otherwise the cause.
    pub(crate) condition: Condition,
    /// The reasons for which the trigger does not roll out, or not yet.
    pub(crate) reasons: Vec<Reason>,
    /// The mistake in the entry of the trigger, with file, line and cure.
    pub(crate) problem: Option<String>,
    /// The images that the trigger wants now, by name; also while it is paused or held. Null if an
    /// image stands for no digest: one of the reasons names it.
    pub(crate) wanted: Option<BTreeMap<String, RolloutImage>>,
    /// Whether an earlier generation is in force, because the present entry is broken.
    pub(crate) stale: bool,
    /// Rises by one with each change of the settings; 0 until one is recorded.
    pub(crate) generation: u64,
    /// Where the settings come from: `file`, `folder` or `api`.
    pub(crate) door: Option<String>,
    /// Labels, such as the team.
    pub(crate) labels: BTreeMap<String, String>,
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

/// The rule of an image, and the tag that it selected last.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Policy {
    /// The settings, as in `tagtrail.toml`.
    pub(crate) rule: serde_json::Value,
    /// The tag that is rolled out; null before the first one.
    pub(crate) selected: Option<SelectedTag>,
}

impl Trigger {
    /// Returns whether other images are wanted than those that run.
    pub(crate) fn is_behind(&self) -> bool {
        let current = self.current.as_ref();
        self.wants_other(current.map(|current| &current.images))
    }

    /// Returns whether other images are wanted than these of a rollout.
    pub(crate) fn wants_other(&self, images: Option<&BTreeMap<String, RolloutImage>>) -> bool {
        let digests = |images: &BTreeMap<String, RolloutImage>| -> BTreeMap<String, Digest> {
            let pairs = images.iter();
            pairs
                .map(|(name, one)| (name.clone(), one.digest.clone()))
                .collect()
        };
        let wanted = self.wanted.as_ref().map(digests);
        self.newer > 0 || wanted.is_some() && wanted != images.map(digests)
    }
}

/// Returns the configured triggers, or the trigger with this name.
pub(crate) async fn configured(
    db: &mut PgConnection,
    name: Option<&Name>,
) -> Result<Vec<Trigger>, sqlx::Error> {
    let one = name.map(|name| [name.as_ref()]);
    let facts = tagtrail_condition::read(db, one.as_ref().map(|one| &one[..])).await?;
    with_acts(db, facts, name).await
}

/// As [`configured`], without the acts, the observation of rollouts and the similar names: for
/// the numbers of all triggers.
pub(crate) async fn judged(db: &mut PgConnection) -> Result<Vec<Trigger>, sqlx::Error> {
    let facts = tagtrail_condition::read(db, None).await?;
    Ok(facts.into_iter().map(Trigger::from).collect())
}

/// Returns the configured triggers as pages show them, with their row ids: without refused acts and
/// the observation of the last rollout.
pub(crate) async fn on_page(
    db: &mut PgConnection,
    name: Option<&Name>,
) -> Result<Vec<(i32, Trigger)>, sqlx::Error> {
    let one = name.map(|name| [name.as_ref()]);
    let facts = tagtrail_condition::read(db, one.as_ref().map(|one| &one[..])).await?;
    let trigger = |facts: Facts| (facts.id, Trigger::from(facts));
    let mut triggers: Vec<_> = facts.into_iter().map(trigger).collect();
    if name.is_some() {
        let reasons = triggers.iter_mut().flat_map(|(_, one)| &mut one.reasons);
        similar::suggest(db, reasons).await?;
    }
    Ok(triggers)
}

/// As [`on_page`], of the triggers that have been removed.
pub(crate) async fn removed_on_page(
    db: &mut PgConnection,
) -> Result<Vec<(i32, Trigger)>, sqlx::Error> {
    let facts = tagtrail_condition::read_removed(db).await?;
    let trigger = |facts: Facts| (facts.id, Trigger::from(facts));
    Ok(facts.into_iter().map(trigger).collect())
}

/// Returns the triggers that have been removed.
pub(crate) async fn removed(db: &mut PgConnection) -> Result<Vec<Trigger>, sqlx::Error> {
    let facts = tagtrail_condition::read_removed(db).await?;
    with_acts(db, facts, None).await
}

async fn with_acts(
    db: &mut PgConnection,
    facts: Vec<Facts>,
    name: Option<&Name>,
) -> Result<Vec<Trigger>, sqlx::Error> {
    let mut refused = acts::refused(db, name).await?;
    let last = facts.iter().filter_map(|facts| facts.last.as_ref());
    let mut watches = rollouts::watches(db, last.map(|last| last.id.as_str())).await?;
    let trigger = |facts: Facts| {
        let last = facts.last.as_ref();
        Trigger {
            refused: refused.remove(&facts.name),
            watch: last.and_then(|last| watches.remove(&last.id)),
            ..Trigger::from(facts)
        }
    };
    let mut triggers: Vec<Trigger> = facts.into_iter().map(trigger).collect();
    let reasons = triggers.iter_mut().flat_map(|one| &mut one.reasons);
    similar::suggest(db, reasons).await?;
    Ok(triggers)
}

impl From<Facts> for Trigger {
    fn from(facts: Facts) -> Trigger {
        let Judged {
            condition,
            reasons,
            wanted,
        } = judge(&facts);
        let mut selections = facts.selections;
        let policies = facts.policies.into_iter().map(|(name, rule)| {
            let selected = selections.remove(&name);
            (name, Policy { rule, selected })
        });
        let (state, waiting) = match facts.paused {
            Some(_) => (TriggerState::Paused, Vec::new()),
            None => (TriggerState::Active, facts.waiting),
        };
        let pause = facts.paused.unwrap_or_default();
        let gates = facts.last.as_ref().map(|last| last.gates.clone());
        Trigger {
            name: facts.name,
            images: facts.images,
            policies: policies.collect(),
            target: facts.target,
            state,
            paused_by: pause.by,
            paused_at: pause.at,
            paused_reason: pause.reason,
            refused: None,
            watch: None,
            condition,
            reasons,
            problem: facts.problem,
            stale: facts.stale,
            generation: facts.generation,
            door: facts.door,
            labels: facts.labels,
            wanted,
            current: facts.current,
            last: facts.last,
            next_attempt_at: facts.next_attempt_at,
            newer: facts.newer,
            waiting,
            gates: gates.unwrap_or_default(),
            gate_settings: facts.gate_settings,
            holds: facts.holds,
        }
    }
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

/// Orders the next attempt of a configured trigger now: its planner carries the order out. Ends the
/// faults of failed rollouts. Records the act.
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
    // A person who wants another attempt has seen why the last rollout failed.
    sqlx::query(
        "update hold set released_at = now(), released_by = $2
         where triggers = $1 and kind = 'fault' and rollout_id is not null and released_at is null",
    )
    .bind(name.as_ref())
    .bind(act.actor.name())
    .execute(&mut *tx)
    .await?;
    let effect = acts::record_effect(&mut tx, act, changed.rows_affected() > 0).await?;
    tx.commit().await?;
    Ok(effect)
}

/// Returns the row id of a trigger, configured or not, by its name or an old one.
pub(crate) async fn id(db: &mut PgConnection, name: &Name) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce((select id from trigger where name = $1), (select trigger_id from trigger_name where name = $1))",
    )
        .bind(name.as_ref())
        .fetch_one(db)
        .await
}

/// Returns the present name of a trigger with this old name.
pub(crate) async fn renamed(
    db: &mut PgConnection,
    name: &Name,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select t.name from trigger_name o join trigger t on t.id = o.trigger_id where o.name = $1",
    )
    .bind(name.as_ref())
    .fetch_optional(db)
    .await
}
