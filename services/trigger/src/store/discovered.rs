//! The annotated objects of clusters, and the generations of their triggers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_kubernetes::ObjectName;
use time::OffsetDateTime;

/// The actor of changes that follow from annotations.
pub(crate) const ACTOR: &str = "kubernetes";

/// Most removed triggers whose images are remembered.
const FORMER: i64 = 10_000;

/// The place of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) cluster: String,
    pub(crate) namespace: String,
    pub(crate) object: ObjectName,
}

/// An annotated object, as recorded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) uid: String,
    /// Hash of the state that was read.
    pub(crate) seen: String,
    /// The system of annotations.
    pub(crate) by: String,
    pub(crate) trigger: String,
    /// The last annotations that could be read: `images`, `settings`, `target`, `paused`.
    pub(crate) wish: Option<Value>,
    pub(crate) problem: Option<String>,
    /// The reason for which the annotations have no effect, whether or not they can be read.
    pub(crate) refused: Option<String>,
    pub(crate) warnings: Vec<String>,
    /// The annotations of Tagtrail.
    pub(crate) annotations: Map<String, Value>,
    /// Since when the object has no annotations.
    pub(crate) gone_at: Option<OffsetDateTime>,
    pub(crate) held: bool,
}

impl Row {
    /// Returns the settings that count.
    pub(crate) fn counting(&self) -> Option<&Value> {
        self.wish.as_ref().filter(|_| self.refused.is_none())
    }

    /// Returns the reason for which the present annotations are not in force.
    pub(crate) fn objection(&self) -> Option<&String> {
        self.refused.as_ref().or(self.problem.as_ref())
    }
}

/// Returns all objects.
pub(crate) async fn all(db: &mut PgConnection) -> Result<BTreeMap<Key, Row>, sqlx::Error> {
    let rows = sqlx::query(
        "select cluster, namespace, kind, name, uid, seen, by_system, trigger, wish, problem, refused, warnings, annotations, gone_at, held
         from discovered",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(read).collect()
}

/// Returns the images of the triggers that were removed, by the objects that they were for.
pub(crate) async fn former(
    db: &mut PgConnection,
) -> Result<BTreeMap<Key, Map<String, Value>>, sqlx::Error> {
    let specs: Vec<Json<Value>> = sqlx::query_scalar(
        "select spec from (
             select distinct on (s.trigger_id) s.spec
             from trigger t join trigger_spec s on s.trigger_id = t.id
             where t.door = 'kubernetes' and t.spec_hash is null and s.door = 'kubernetes' and s.spec is not null
             order by s.trigger_id, s.generation desc) last
         limit $1",
    )
    .bind(FORMER)
    .fetch_all(db)
    .await?;
    let mut former = BTreeMap::new();
    for Json(spec) in specs {
        let Some(images) = spec["images"].as_object() else {
            continue;
        };
        let target = &spec["target"]["kubernetes"];
        let text = |key: &str| target[key].as_str().unwrap_or_default().to_owned();
        let objects = target["objects"].as_array().into_iter().flatten();
        for object in objects.filter_map(|object| object.as_str()?.parse().ok()) {
            let key = Key {
                cluster: text("cluster"),
                namespace: text("namespace"),
                object,
            };
            former.insert(key, images.clone());
        }
    }
    Ok(former)
}

fn read(row: &PgRow) -> Result<(Key, Row), sqlx::Error> {
    let kind: String = row.try_get("kind")?;
    let (kind, group) = match kind.split_once('.') {
        Some((kind, group)) => (kind.to_owned(), Some(group.to_owned())),
        None => (kind, None),
    };
    let name = row.try_get("name")?;
    let key = Key {
        cluster: row.try_get("cluster")?,
        namespace: row.try_get("namespace")?,
        object: ObjectName { kind, group, name },
    };
    let wish: Option<Json<Value>> = row.try_get("wish")?;
    let Json(warnings) = row.try_get("warnings")?;
    let Json(annotations) = row.try_get("annotations")?;
    let one = Row {
        uid: row.try_get("uid")?,
        seen: row.try_get("seen")?,
        by: row.try_get("by_system")?,
        trigger: row.try_get("trigger")?,
        wish: wish.map(|Json(wish)| wish),
        problem: row.try_get("problem")?,
        refused: row.try_get("refused")?,
        warnings,
        annotations,
        gone_at: row.try_get("gone_at")?,
        held: row.try_get("held")?,
    };
    Ok((key, one))
}

fn kind(object: &ObjectName) -> String {
    match &object.group {
        Some(group) => format!("{}.{group}", object.kind),
        None => object.kind.clone(),
    }
}

/// Writes the row of an object.
pub(crate) async fn write(db: &mut PgConnection, key: &Key, row: &Row) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into discovered (cluster, namespace, kind, name, uid, seen, by_system, trigger, wish, problem, refused, warnings, annotations, gone_at, held)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         on conflict (cluster, namespace, kind, name) do update set uid = excluded.uid, seen = excluded.seen,
             by_system = excluded.by_system, trigger = excluded.trigger, wish = excluded.wish, problem = excluded.problem, refused = excluded.refused,
             warnings = excluded.warnings, annotations = excluded.annotations, gone_at = excluded.gone_at, held = excluded.held,
             changed_at = clock_timestamp()",
    )
    .bind(&key.cluster)
    .bind(&key.namespace)
    .bind(kind(&key.object))
    .bind(&key.object.name)
    .bind(&row.uid)
    .bind(&row.seen)
    .bind(&row.by)
    .bind(&row.trigger)
    .bind(row.wish.as_ref().map(Json))
    .bind(&row.problem)
    .bind(&row.refused)
    .bind(Json(&row.warnings))
    .bind(Json(&row.annotations))
    .bind(row.gone_at)
    .bind(row.held)
    .execute(db)
    .await
    .map(|_| ())
}

/// Removes the row of an object.
pub(crate) async fn delete(db: &mut PgConnection, key: &Key) -> Result<(), sqlx::Error> {
    sqlx::query("delete from discovered where (cluster, namespace, kind, name) = ($1, $2, $3, $4)")
        .bind(&key.cluster)
        .bind(&key.namespace)
        .bind(kind(&key.object))
        .bind(&key.object.name)
        .execute(db)
        .await
        .map(|_| ())
}

/// The trigger that objects ask for.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) name: &'a str,
    /// The settings with their hash. `None`: the annotations could never be read.
    pub(crate) spec: Option<(&'a Value, [u8; 32])>,
    /// The objects as people name them.
    pub(crate) objects: &'a str,
}

/// Records the settings of a trigger as its next generation, unless they are the same. Returns
/// false if another door has the name.
pub(crate) async fn ask(db: &mut PgConnection, asked: &Asked<'_>) -> Result<bool, sqlx::Error> {
    // The planner configures the trigger as soon as it has read the settings.
    sqlx::query(
        "insert into trigger (name, images, target, configured, door) values ($1, '{}', '', false, 'kubernetes') on conflict (name) do nothing",
    )
    .bind(asked.name)
    .execute(&mut *db)
    .await?;
    let hash = asked.spec.as_ref().map(|(_, hash)| hash.to_vec());
    sqlx::query_scalar(
        "with t as (
             select id, generation, spec_hash, coalesce(configured and door <> 'kubernetes', false) as of_other
             from trigger where name = $1 for update
         ), changed as (
             update trigger set generation = trigger.generation + 1, spec_hash = $2, door = 'kubernetes'
             from t where trigger.id = t.id and not t.of_other and $2 is not null and t.spec_hash is distinct from $2
             returning trigger.id, trigger.generation
         ), door as (
             update trigger set door = 'kubernetes'
             from t where trigger.id = t.id and not t.of_other and $2 is null and trigger.door is distinct from 'kubernetes'
         ), recorded as (
             insert into trigger_spec (trigger_id, generation, door, file, spec, complete, hash, actor)
             select id, generation, 'kubernetes', $4, $3, true, $2, $5 from changed
         )
         select not of_other from t",
    )
    .bind(asked.name)
    .bind(hash)
    .bind(asked.spec.as_ref().map(|(spec, _)| Json(*spec)))
    .bind(asked.objects)
    .bind(ACTOR)
    .fetch_one(db)
    .await
}

/// Records the removal of a trigger for which no object asks any more, or none that counts.
pub(crate) async fn remove(db: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with gone as (
             update trigger set generation = generation + 1, spec_hash = null
             where name = $1 and door = 'kubernetes' and spec_hash is not null returning id, generation
         )
         insert into trigger_spec (trigger_id, generation, door, spec, complete, hash, actor)
         select id, generation, 'kubernetes', null, true, null, $2 from gone",
    )
    .bind(name)
    .bind(ACTOR)
    .execute(db)
    .await
    .map(|_| ())
}

/// Lets the planner send the images of a trigger again: another trigger has changed its objects
/// meanwhile.
pub(crate) async fn send_again(db: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update rollout o set cut_off = true from trigger t
         where t.name = $1 and o.trigger_id = t.id and o.state = 'succeeded' and not o.cut_off
             and not exists (select from rollout n where n.trigger_id = o.trigger_id and n.number > o.number)",
    )
    .bind(name)
    .execute(db)
    .await
    .map(|_| ())
}

/// Pauses a trigger, or resumes one that an annotation has paused. A pause by a person stays.
pub(crate) async fn pause(
    db: &mut PgConnection,
    name: &str,
    paused: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        // In the state `resuming` workers wait until the planner has read the present heads.
        "update trigger set state = case when $2 then 'paused'::trigger_state else 'resuming' end,
             paused_by = case when $2 then $3 end, paused_at = case when $2 then now() end,
             paused_reason = case when $2 then 'the annotations of its object' end
         where name = $1 and (case when $2 then state <> 'paused' else state = 'paused' and paused_by = $3 end)",
    )
    .bind(name)
    .bind(paused)
    .bind(ACTOR)
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns those of these triggers that a hold of their own stops.
pub(crate) async fn held(
    db: &mut PgConnection,
    triggers: &[&str],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select distinct triggers from hold
         where triggers = any ($1) and released_at is null and (until is null or until > now())",
    )
    .bind(triggers)
    .fetch_all(db)
    .await
}
