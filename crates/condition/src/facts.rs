//! The facts that the condition of a trigger depends on, and the statement that reads them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::{rollout_is_live, rollout_json, row};
use tagtrail_proto::{Reason, Rollout, RolloutImage, Waiting};
use time::OffsetDateTime;

use crate::hold::Hold;

/// The facts about a trigger, of one snapshot.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Row id.
    pub id: i32,
    /// Name.
    pub name: String,
    /// False for a trigger that was removed from the configuration.
    pub configured: bool,
    /// The watched images, by name: a tag, or the repository of a policy.
    pub images: BTreeMap<String, String>,
    /// The settings of the images with a policy, by name.
    pub policies: BTreeMap<String, Value>,
    /// The tags that the policies selected last, by name.
    pub selections: BTreeMap<String, SelectedTag>,
    /// The settings of the gates, as in `tagtrail.toml`.
    pub gate_settings: Map<String, Value>,
    /// Kind of the target.
    pub target: String,
    /// True if the entry or a secret can't be used.
    pub broken: bool,
    /// The mistake in the entry, with file, line and cure.
    pub problem: Option<String>,
    /// True if an earlier generation is in force, because the present entry is broken.
    pub stale: bool,
    /// Rises by one with each change of the settings; 0 until one is recorded.
    pub generation: u64,
    /// Where the settings come from.
    pub door: Option<String>,
    /// Labels, such as the team.
    pub labels: BTreeMap<String, String>,
    /// Set if processes of the trigger service run, and none of them has the recorded settings.
    pub unloaded: Option<Unloaded>,
    /// The pause, while the trigger is paused.
    pub paused: Option<Pause>,
    /// True from a resume until the planner has read the present heads.
    pub resuming: bool,
    /// The newest rollout that has succeeded.
    pub current: Option<Rollout>,
    /// The newest rollout in any state, without those that were superseded before their first
    /// attempt.
    pub last: Option<Rollout>,
    /// True if no attempt at the last rollout follows, unless a person orders one.
    pub ended: bool,
    /// Time of the next attempt at the last rollout, if one follows.
    pub next_attempt_at: Option<OffsetDateTime>,
    /// Time of the first attempt at the last rollout.
    pub begun_at: Option<OffsetDateTime>,
    /// The attempt that runs.
    pub open: Option<OpenAttempt>,
    /// Number of the rollout whose result the last one waits for.
    pub finishes: Option<u64>,
    /// Number of attempts at targets of this kind that run, of all triggers.
    pub in_use: u32,
    /// Number of images with a tag whose head differs from the last rollout.
    pub newer: u32,
    /// The closed gates of the planner's last decision.
    pub waiting: Vec<Waiting>,
    /// The set that the trigger wants, as the planner saw it last.
    pub wanted: Wanted,
    /// The planner's reasons about images.
    pub reasons: Vec<Reason>,
    /// The holds in force about the trigger, newest first.
    pub holds: Vec<Hold>,
    /// The time of the snapshot, by the clock of the database.
    pub now: OffsetDateTime,
}

/// The set that a trigger wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The set of the last rollout; nothing before the first one.
    #[default]
    Last,
    /// None: the reasons say why.
    Nothing,
    /// Another set.
    Set(BTreeMap<String, RolloutImage>),
}

impl Wanted {
    /// Returns the value of the column `trigger.wanted`.
    #[must_use]
    pub fn stored(&self) -> Option<BTreeMap<String, RolloutImage>> {
        match self {
            Wanted::Last => None,
            Wanted::Nothing => Some(BTreeMap::new()),
            Wanted::Set(images) => Some(images.clone()),
        }
    }

    /// Returns the set that was stored.
    #[must_use]
    pub fn read(stored: Option<BTreeMap<String, RolloutImage>>) -> Wanted {
        match stored {
            None => Wanted::Last,
            Some(images) if images.is_empty() => Wanted::Nothing,
            Some(images) => Wanted::Set(images),
        }
    }
}

/// Recorded settings that no running process has: no attempt begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unloaded {
    /// Time of the recording.
    pub since: OffsetDateTime,
    /// The processes that run. Not empty.
    pub processes: Vec<Elsewhere>,
}

/// A process with other settings of a trigger than the recorded ones.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Elsewhere {
    /// Process id.
    pub pid: i32,
    /// The generation of its settings; `None` if none has recorded them.
    pub generation: Option<u64>,
}

/// The pause of a trigger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pause {
    /// The token that paused the trigger, or `local`, if that is recorded.
    pub by: Option<String>,
    /// Time of the pause.
    pub at: Option<OffsetDateTime>,
    /// The reason, if one was given.
    pub reason: Option<String>,
}

/// An attempt that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenAttempt {
    /// Number of its rollout.
    pub rollout: u64,
    /// Number of the attempt.
    pub number: u32,
    /// Time of the begin.
    pub started_at: OffsetDateTime,
    /// True if the rollout is the last one and has not ended.
    pub is_live: bool,
}

/// The tag that a policy selected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SelectedTag {
    /// The tag.
    pub tag: String,
    /// The place of the tag in the order of the rule, in hexadecimal digits: of two keys of a rule,
    /// the greater one is preferred.
    pub key: String,
    /// Number of the revision that had the digest.
    pub revision: u64,
    /// Time of the selection.
    #[serde(with = "tagtrail_proto::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub selected_at: OffsetDateTime,
}

/// Reads the facts about the configured triggers by name, or about those with these names, in two
/// statements.
///
/// # Errors
/// If Postgres can't be asked, or a row holds a value that no service writes.
pub async fn read(
    db: &mut PgConnection,
    names: Option<&[&str]>,
) -> Result<Vec<Facts>, sqlx::Error> {
    select(db, names, true).await
}

/// Reads the facts about the triggers that have been removed, by name.
///
/// # Errors
/// As [`read`].
pub async fn read_removed(db: &mut PgConnection) -> Result<Vec<Facts>, sqlx::Error> {
    select(db, None, false).await
}

async fn select(
    db: &mut PgConnection,
    names: Option<&[&str]>,
    configured: bool,
) -> Result<Vec<Facts>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "with busy as (
             select t.target, count(*) as attempts from rollout_attempt a join trigger t on t.id = a.trigger_id
             where a.finished_at is null group by t.target)
         select t.id, t.name, t.configured, t.images as watched, t.policies, t.gate_settings, t.target, t.problem, t.broken,
                t.stale, t.generation, t.door, t.labels, elsewhere.processes as elsewhere,
                case when elsewhere.processes is not null then (
                    select s.changed_at from trigger_spec s where s.trigger_id = t.id and s.generation = t.generation) end as changed_at,
                t.state = 'paused' as paused, t.state = 'resuming' as resuming,
                t.paused_by, t.paused_at, t.paused_reason, t.waiting, t.wanted, t.reasons,
                (select jsonb_object_agg(s.name, jsonb_build_object('tag', s.tag, 'key', encode(s.key, 'hex'), 'revision', s.revision, 'selected_at', s.selected_at))
                 from selection s where s.trigger_id = t.id and t.policies ? s.name) as selections,
                (select count(*) from jsonb_each_text(t.images) w
                 join repository r on r.registry = split_part(w.value, '/', 1) and r.name = substring(w.value from '^[^/]+/(.*):[^:]+$')
                 join tag g on g.repository_id = r.id and g.name = substring(w.value from '[^:]+$')
                 where g.head_digest is not null
                   and encode(g.head_digest, 'hex') is distinct from split_part(l.images -> w.key ->> 'digest', ':', 2)) as newer,
                case when c.id is not null then ", rollout_json!("c"), " end as current,
                case when l.id is not null then ", rollout_json!("l"), " end as last,
                coalesce(l.ended, false) as ended, l.started_at as begun_at,
                case when ", rollout_is_live!("l"), " and l.state <> 'watching' then l.next_attempt_at end as next_attempt_at,
                a.number as open_attempt, a.started_at as open_since, n.number as open_rollout,
                coalesce(n.id = l.id and ", rollout_is_live!("l"), ", false) as open_is_live,
                (select max(w.number) from rollout w
                 where w.trigger_id = t.id and t.finish and w.state = 'watching' and w.number < l.number and l.state = 'pending' and l.actor is null) as finishes,
                coalesce(busy.attempts, 0) as in_use, now() as now
         from trigger t
         left join lateral (
             select * from rollout o where o.trigger_id = t.id and o.state = 'succeeded'
             order by o.number desc limit 1) c on true
         left join lateral (
             select * from rollout o
             where o.trigger_id = t.id and (o.state <> 'superseded' or o.started_at is not null)
             order by o.number desc limit 1) l on true
         left join rollout_attempt a on a.trigger_id = t.id and a.finished_at is null
         left join rollout n on n.id = a.rollout_id
         left join busy on busy.target = t.target
         left join lateral (
             select jsonb_agg(jsonb_build_object('pid', p.pid, 'generation', p.others -> t.name) order by p.pid) as processes
             from trigger_process p
             where t.spec_hash is not null and p.seen_at > now() - interval '30 seconds'
             having bool_and(p.others ? t.name)) elsewhere on true
         where t.configured = $2 and ($1::text[] is null or t.name = any ($1))
             -- The api has made the trigger, and the trigger service has not read it yet.
             and (t.configured or t.spec_hash is null)
         order by t.name",
    ))
    .bind(names)
    .bind(configured)
    .fetch_all(&mut *db)
    .await?;
    // Holds are few, and a pattern of each is compared with each name.
    let holds = match rows.is_empty() {
        true => Vec::new(),
        false => Hold::list(db, None).await?,
    };
    rows.iter().map(|row| facts(row, &holds)).collect()
}

fn facts(row: &PgRow, holds: &[Hold]) -> Result<Facts, sqlx::Error> {
    let rollout = |column: &str| -> Result<Option<Rollout>, sqlx::Error> {
        let rollout: Option<Json<Rollout>> = row.try_get(column)?;
        Ok(rollout.map(|Json(rollout)| rollout))
    };
    let name: String = row.try_get("name")?;
    let (Json(images), Json(policies)) = (row.try_get("watched")?, row.try_get("policies")?);
    let wanted: Option<Json<_>> = row.try_get("wanted")?;
    let selections: Option<Json<BTreeMap<String, Value>>> = row.try_get("selections")?;
    let selections = selections.map(|Json(all)| all).unwrap_or_default();
    let paused: bool = row.try_get("paused")?;
    let small = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let open = match row.try_get::<Option<i32>, _>("open_attempt")? {
        None => None,
        Some(number) => Some(OpenAttempt {
            rollout: row::unsigned(row.try_get("open_rollout")?),
            number: u32::try_from(number).unwrap_or_default(),
            started_at: row.try_get("open_since")?,
            is_live: row.try_get("open_is_live")?,
        }),
    };
    let since: Option<OffsetDateTime> = row.try_get("changed_at")?;
    let elsewhere: Option<Json<Vec<Elsewhere>>> = row.try_get("elsewhere")?;
    Ok(Facts {
        stale: row.try_get("stale")?,
        generation: row::unsigned(row.try_get("generation")?),
        door: row.try_get("door")?,
        labels: row.try_get::<Json<_>, _>("labels")?.0,
        unloaded: since
            .zip(elsewhere)
            .map(|(since, Json(processes))| Unloaded { since, processes }),
        id: row.try_get("id")?,
        configured: row.try_get("configured")?,
        images,
        policies,
        selections: selections
            .into_iter()
            .filter_map(|(name, one)| Some((name, selected(&one)?)))
            .collect(),
        gate_settings: row.try_get::<Json<_>, _>("gate_settings")?.0,
        target: row.try_get("target")?,
        broken: row.try_get("broken")?,
        problem: row.try_get("problem")?,
        paused: match paused {
            false => None,
            true => Some(Pause {
                by: row.try_get("paused_by")?,
                at: row.try_get("paused_at")?,
                reason: row.try_get("paused_reason")?,
            }),
        },
        resuming: row.try_get("resuming")?,
        current: rollout("current")?,
        last: rollout("last")?,
        finishes: row
            .try_get::<Option<i64>, _>("finishes")?
            .map(row::unsigned),
        ended: row.try_get("ended")?,
        next_attempt_at: row.try_get("next_attempt_at")?,
        begun_at: row.try_get("begun_at")?,
        open,
        in_use: small(row.try_get("in_use")?),
        newer: small(row.try_get("newer")?),
        waiting: known(row, "waiting")?,
        wanted: Wanted::read(wanted.map(|Json(images)| images)),
        reasons: known(row, "reasons")?,
        holds: holds
            .iter()
            .filter(|hold| hold.is_about(&name))
            .cloned()
            .collect(),
        now: row.try_get("now")?,
        name,
    })
}

/// Reads a list without the elements that this version does not know: a planner of another version
/// may know other gates and codes.
fn known<T: serde::de::DeserializeOwned>(row: &PgRow, column: &str) -> Result<Vec<T>, sqlx::Error> {
    let Json(list): Json<Vec<Value>> = row.try_get(column)?;
    let known = list.into_iter();
    Ok(known
        .filter_map(|one| serde_json::from_value(one).ok())
        .collect())
}

fn selected(one: &Value) -> Option<SelectedTag> {
    let text = |key: &str| one.get(key)?.as_str().map(str::to_owned);
    Some(SelectedTag {
        tag: text("tag")?,
        key: text("key")?,
        revision: one.get("revision")?.as_u64()?,
        selected_at: tagtrail_proto::instant::parse(&text("selected_at")?)?,
    })
}
