//! The statements about the background of an attempt: what the trigger had before, and the people
//! behind the rollout. Only some targets ask for it.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_proto::RolloutImage;
use time::OffsetDateTime;

/// Most rollouts after the one before that are looked at.
const MOST: i64 = 32;

/// The background of an attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Background {
    /// The newest older rollout of which the places are known.
    pub(crate) before: Option<Before>,
    /// The images of the rollouts after that one that were attempted: the target may have them.
    pub(crate) since: Vec<BTreeMap<String, RolloutImage>>,
    /// The names of the images that older rollouts with an attempt have set.
    pub(crate) set: BTreeSet<String>,
    /// The accounts that pushed the images, by the names of the images.
    pub(crate) pushers: BTreeMap<String, String>,
    /// The people who approved the set, in the order of their approvals.
    pub(crate) approvers: Vec<String>,
}

/// A rollout that the target took.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    pub(crate) images: BTreeMap<String, RolloutImage>,
    /// The places that had the images then.
    pub(crate) places: Vec<String>,
    /// The time of its first attempt.
    pub(crate) at: OffsetDateTime,
}

/// Returns the background of a rollout.
pub(crate) async fn background(
    db: &mut PgConnection,
    rollout: &str,
) -> Result<Background, sqlx::Error> {
    let row = sqlx::query(
        "select b.images, b.places, b.started_at,
             (select coalesce(jsonb_agg(s.images), '[]') from (
                  select s.images from rollout s
                  where s.trigger_id = o.trigger_id and s.number > b.number and s.number < o.number and s.attempts > 0
                  order by s.number desc limit $2) s) as since,
             (select coalesce(array_agg(distinct k.name), '{}') from (
                  select s.images from rollout s
                  where s.trigger_id = o.trigger_id and s.number < o.number and s.attempts > 0
                  order by s.number desc limit $2) s cross join lateral jsonb_object_keys(s.images) as k (name)) as set_before,
             (select coalesce(jsonb_object_agg(i.key, p.actor) filter (where p.actor is not null), '{}')
              from jsonb_each(o.images) i
              join repository r on r.registry = split_part(i.value ->> 'image', '/', 1)
                   and r.name = substring(i.value ->> 'image' from '^[^/]+/(.*):[^:]+$')
              join tag g on g.repository_id = r.id and g.name = substring(i.value ->> 'image' from '[^:]+$')
              join revision v on v.tag_id = g.id and v.number = (i.value ->> 'revision')::bigint
              join push p on p.id = v.push_id) as pushers,
             (select coalesce(array_agg(a.actor order by a.id), '{}') from approval a
              where a.trigger_id = o.trigger_id and a.set = image_set(o.images) and a.verdict = 'approved'
                and a.id > coalesce((
                    select max(n.id) from approval n
                    where n.trigger_id = a.trigger_id and n.set = a.set and n.verdict = 'rejected'), 0)) as approvers
         from rollout o
         left join lateral (
             select number, images, places, coalesce(started_at, created_at) as started_at from rollout b
             where b.trigger_id = o.trigger_id and b.number < o.number and b.places is not null
             order by b.number desc limit 1) b on true
         where o.id = $1::uuid",
    )
    .bind(rollout)
    .bind(MOST)
    .fetch_one(db)
    .await?;
    let images: Option<Json<_>> = row.try_get("images")?;
    let before = match images {
        None => None,
        Some(Json(images)) => Some(Before {
            images,
            places: row.try_get("places")?,
            at: row.try_get("started_at")?,
        }),
    };
    let Json(since) = row.try_get("since")?;
    let Json(pushers) = row.try_get("pushers")?;
    let mut approvers: Vec<String> = row.try_get("approvers")?;
    let set: Vec<String> = row.try_get("set_before")?;
    let mut seen = BTreeSet::new();
    approvers.retain(|one| seen.insert(one.clone()));
    Ok(Background {
        before,
        since,
        set: set.into_iter().collect(),
        pushers,
        approvers,
    })
}

/// Records the places of the target that have the images of a rollout.
pub(crate) async fn record_places(
    db: &mut PgConnection,
    rollout: &str,
    places: &[String],
) -> Result<(), sqlx::Error> {
    sqlx::query("update rollout set places = $2 where id = $1::uuid and places is distinct from $2")
        .bind(rollout)
        .bind(places)
        .execute(db)
        .await
        .map(|_| ())
}
