//! The tags of a repository as a planner saw them, for the explanation of a selection.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Registry, Repository, RolloutImage, Tag};
use time::OffsetDateTime;

/// The most tags that are read of a repository.
const MOST: i64 = 200_000;

/// A tag with the head that it had.
#[derive(Debug)]
pub(crate) struct TagThen {
    pub(crate) tag: Tag,
    /// `None`: the tag was deleted.
    pub(crate) digest: Option<Digest>,
    pub(crate) pushed: OffsetDateTime,
    pub(crate) recorded_at: OffsetDateTime,
    pub(crate) revision: u64,
    /// Time of the build, if the manifest is read and names one.
    pub(crate) created: Option<OffsetDateTime>,
    pub(crate) tombstone: bool,
}

/// Returns the tags of a repository, each with the head among the revisions that were recorded up
/// to a time.
pub(crate) async fn tags(
    db: &mut PgConnection,
    registry: &Registry,
    repository: &Repository,
    at: OffsetDateTime,
) -> Result<Vec<TagThen>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name, v.number, v.digest, v.effective_at, v.recorded_at, m.created, coalesce(m.tombstone, false) as tombstone
         from repository r join tag t on t.repository_id = r.id
         cross join lateral (
             select v.number, v.digest, v.effective_at, v.recorded_at from revision v
             where v.tag_id = t.id and v.recorded_at <= $3
             order by v.effective_at desc, v.number desc limit 1) v
         left join manifest m on m.digest = v.digest
         where r.registry = $1 and r.name = $2 limit $4",
    )
    .bind(registry.as_ref())
    .bind(repository.as_ref())
    .bind(at)
    .bind(MOST)
    .fetch_all(db)
    .await?;
    let tag = |row: &PgRow| {
        Ok(TagThen {
            tag: row::parsed(row.try_get("name")?)?,
            digest: row::digest(row.try_get("digest")?)?,
            pushed: row.try_get("effective_at")?,
            recorded_at: row.try_get("recorded_at")?,
            revision: row::unsigned(row.try_get("number")?),
            created: row.try_get("created")?,
            tombstone: row.try_get("tombstone")?,
        })
    };
    rows.iter().map(tag).collect()
}

/// Returns the images of the newest rollout of a trigger that was recorded up to a time and not
/// superseded before its first attempt.
pub(crate) async fn rolled_out(
    db: &mut PgConnection,
    trigger: &str,
    at: OffsetDateTime,
) -> Result<BTreeMap<String, RolloutImage>, sqlx::Error> {
    let images: Option<Json<_>> = sqlx::query_scalar(
        "select o.images from rollout o join trigger t on t.id = o.trigger_id
         where t.name = $1 and o.created_at <= $2 and (o.state <> 'superseded' or o.started_at is not null)
         order by o.number desc limit 1",
    )
    .bind(trigger)
    .bind(at)
    .fetch_optional(db)
    .await?;
    Ok(images.map(|Json(images)| images).unwrap_or_default())
}
