//! The images that had a digest.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image};
use time::OffsetDateTime;

use crate::instant::{Instant, of_key, to_micros};

/// A time over which an image had the digest.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Span")]
pub struct DigestInterval {
    /// The image.
    pub image: Image,
    /// The revision by which the image got the digest.
    pub revision: u64,
    /// Effective time of this revision.
    pub from: Instant,
    /// Effective time of the next revision. None: the image still has the digest.
    pub until: Option<Instant>,
}

/// Returns the intervals in which images had a digest. A revision replaced at its own effective
/// time was never in force, and is left out. Key: row id of the tag, effective time, number.
pub async fn intervals(
    db: &mut PgConnection,
    digest: &Digest,
    after: Option<[i64; 3]>,
    limit: i64,
) -> Result<Vec<([i64; 3], DigestInterval)>, sqlx::Error> {
    let after = after
        .map(|[tag, at, number]| of_key(at).map(|at| (tag, at, number)))
        .transpose()?;
    let rows = sqlx::query(
        "select r.registry, r.name as repository, t.name as tag, v.tag_id, v.number, v.effective_at, next.effective_at as until
         from revision v
         join tag t on t.id = v.tag_id
         join repository r on r.id = t.repository_id
         left join lateral (
             select n.effective_at from revision n
             where n.tag_id = v.tag_id and (n.effective_at, n.number) > (v.effective_at, v.number)
             order by n.effective_at, n.number limit 1) next on true
         where v.digest = $1
           and (v.tag_id, v.effective_at, v.number) > (coalesce($2, 0), coalesce($3::timestamptz, '-infinity'), coalesce($4, 0))
           and next.effective_at is distinct from v.effective_at
         order by v.tag_id, v.effective_at, v.number limit $5",
    )
    .bind(digest.as_bytes())
    .bind(after.map(|(tag, _, _)| tag))
    .bind(after.map(|(_, at, _)| at))
    .bind(after.map(|(_, _, number)| number))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(interval).collect()
}

fn interval(row: &PgRow) -> Result<([i64; 3], DigestInterval), sqlx::Error> {
    let (number, from): (i64, OffsetDateTime) =
        (row.try_get("number")?, row.try_get("effective_at")?);
    let image = Image {
        registry: row::parsed(row.try_get("registry")?)?,
        repository: row::parsed(row.try_get("repository")?)?,
        tag: row::parsed(row.try_get("tag")?)?,
    };
    let interval = DigestInterval {
        image,
        revision: row::unsigned(number),
        from: Instant(from),
        until: row.try_get::<Option<_>, _>("until")?.map(Instant),
    };
    Ok(([row.try_get("tag_id")?, to_micros(from), number], interval))
}
