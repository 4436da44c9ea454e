//! What a tag means.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Kind};
use time::OffsetDateTime;

/// A revision of a tag, as far as it concerns what the tag means.
#[derive(Debug)]
pub struct Found {
    /// Its number.
    pub revision: u64,
    /// How the revision changed the tag.
    pub kind: Kind,
    /// None: the tag was deleted.
    pub digest: Option<Digest>,
    /// Effective time of the revision.
    pub occurred_at: OffsetDateTime,
    /// Time at which the indexer recorded the revision.
    pub recorded_at: OffsetDateTime,
}

/// Row id of a tag that has a history. One without is known to the ids only, and unknown to everyone else.
pub async fn tag(db: &mut PgConnection, image: &Image) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select t.id from repository r join tag t on t.repository_id = r.id
         where r.registry = $1 and r.name = $2 and t.name = $3 and t.head is not null",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .fetch_optional(db)
    .await
}

/// The revision in force.
pub async fn head(db: &mut PgConnection, image: &Image) -> Result<Option<Found>, sqlx::Error> {
    sqlx::query(
        "select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
         from repository r
         join tag t on t.repository_id = r.id
         join revision v on v.tag_id = t.id and v.number = t.head
         where r.registry = $1 and r.name = $2 and t.name = $3",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .fetch_optional(db)
    .await?
    .map(|row| found(&row))
    .transpose()
}

/// The revision in force at `at`, by what was recorded by `known_at`: the last entry of the index that is not after it.
pub async fn as_of(
    db: &mut PgConnection,
    image: &Image,
    at: Option<OffsetDateTime>,
    known_at: Option<OffsetDateTime>,
) -> Result<Option<Found>, sqlx::Error> {
    sqlx::query(
        "select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
         from repository r
         join tag t on t.repository_id = r.id
         cross join lateral (
             select * from revision v
             where v.tag_id = t.id
               and v.effective_at <= coalesce($4::timestamptz, 'infinity')
               and v.recorded_at <= coalesce($5::timestamptz, 'infinity')
             order by v.effective_at desc, v.number desc limit 1) v
         where r.registry = $1 and r.name = $2 and t.name = $3",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .bind(at)
    .bind(known_at)
    .fetch_optional(db)
    .await?
    .map(|row| found(&row))
    .transpose()
}

/// The revision of this number.
pub async fn numbered(
    db: &mut PgConnection,
    image: &Image,
    number: u64,
) -> Result<Option<Found>, sqlx::Error> {
    sqlx::query(
        "select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
         from repository r
         join tag t on t.repository_id = r.id
         join revision v on v.tag_id = t.id and v.number = $4
         where r.registry = $1 and r.name = $2 and t.name = $3",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .bind(row::signed(number))
    .fetch_optional(db)
    .await?
    .map(|row| found(&row))
    .transpose()
}

fn found(row: &PgRow) -> Result<Found, sqlx::Error> {
    Ok(Found {
        revision: row::unsigned(row.try_get("number")?),
        kind: row::parsed(row.try_get("kind")?)?,
        digest: row::digest(row.try_get("digest")?)?,
        occurred_at: row.try_get("effective_at")?,
        recorded_at: row.try_get("recorded_at")?,
    })
}
