//! The images that had a digest.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Tag};
use time::OffsetDateTime;

use crate::instant::{Instant, of_key, to_micros};

/// A time over which an image had the digest.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Span")]
pub struct DigestInterval {
    /// The image.
    pub image: Image,
    /// True if the tag is no image, but holds signatures or other content about a digest.
    pub signature: bool,
    /// The revision by which the image got the digest.
    pub revision: u64,
    /// Effective time of this revision.
    pub from: Instant,
    /// Effective time of the next revision. None: the image still has the digest.
    pub until: Option<Instant>,
}

/// Returns the intervals in which images had a digest. A revision replaced at its own effective
/// time was never in force, and is left out. Tags that hold signatures come last. Key: 1 for a tag
/// that holds signatures and otherwise 0, row id of the tag, effective time, number.
pub async fn intervals(
    db: &mut PgConnection,
    digest: &Digest,
    after: Option<[i64; 4]>,
    limit: i64,
) -> Result<Vec<([i64; 4], DigestInterval)>, sqlx::Error> {
    let after = after
        .map(|[signature, tag, at, number]| of_key(at).map(|at| (signature, tag, at, number)))
        .transpose()?;
    let rows = sqlx::query(
        "select r.registry, r.name as repository, t.name as tag, v.tag_id, v.number, v.effective_at, next.effective_at as until,
                s.signature
         from revision v
         join tag t on t.id = v.tag_id
         join repository r on r.id = t.repository_id
         cross join lateral (select (t.name ~ $6)::int::bigint as signature) s
         left join lateral (
             select n.effective_at from revision n
             where n.tag_id = v.tag_id and (n.effective_at, n.number) > (v.effective_at, v.number)
             order by n.effective_at, n.number limit 1) next on true
         where v.digest = $1
           and (s.signature, v.tag_id, v.effective_at, v.number)
               > (coalesce($7, 0), coalesce($2, 0), coalesce($3::timestamptz, '-infinity'), coalesce($4, 0))
           and next.effective_at is distinct from v.effective_at
         order by s.signature, v.tag_id, v.effective_at, v.number limit $5",
    )
    .bind(digest.as_bytes())
    .bind(after.map(|(_, tag, _, _)| tag))
    .bind(after.map(|(_, _, at, _)| at))
    .bind(after.map(|(_, _, _, number)| number))
    .bind(limit)
    .bind(Tag::SIGNATURE)
    .bind(after.map(|(signature, ..)| signature))
    .fetch_all(db)
    .await?;
    rows.iter().map(interval).collect()
}

fn interval(row: &PgRow) -> Result<([i64; 4], DigestInterval), sqlx::Error> {
    let (number, from): (i64, OffsetDateTime) =
        (row.try_get("number")?, row.try_get("effective_at")?);
    let image = Image {
        registry: row::parsed(row.try_get("registry")?)?,
        repository: row::parsed(row.try_get("repository")?)?,
        tag: row::parsed(row.try_get("tag")?)?,
    };
    let interval = DigestInterval {
        signature: image.tag.is_signature(),
        image,
        revision: row::unsigned(number),
        from: Instant(from),
        until: row.try_get::<Option<_>, _>("until")?.map(Instant),
    };
    let key = [
        row.try_get("signature")?,
        row.try_get("tag_id")?,
        to_micros(from),
        number,
    ];
    Ok((key, interval))
}

/// The last time at which an image got a digest.
#[derive(Debug)]
pub struct LastHeld {
    /// The digest.
    pub digest: Digest,
    /// The number of the revision.
    pub revision: u64,
    /// Effective time of the revision.
    pub from: OffsetDateTime,
}

/// Returns when an image got each of these digests last; nothing for a digest that it never had.
pub async fn last_held(
    db: &mut PgConnection,
    image: &Image,
    digests: &[&Digest],
) -> Result<Vec<LastHeld>, sqlx::Error> {
    let rows = sqlx::query(
        "select v.digest, v.number, v.effective_at
         from repository r join tag t on t.repository_id = r.id
         cross join unnest($4::bytea[]) as d (digest)
         cross join lateral (
             select v.digest, v.number, v.effective_at from revision v
             where v.digest = d.digest and v.tag_id = t.id order by v.effective_at desc, v.number desc limit 1) v
         where r.registry = $1 and r.name = $2 and t.name = $3",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .bind(digests.iter().map(|digest| digest.as_bytes()).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    let held = |row: &PgRow| {
        Ok(LastHeld {
            digest: row::digest(row.try_get("digest")?)?.ok_or(sqlx::Error::RowNotFound)?,
            revision: row::unsigned(row.try_get("number")?),
            from: row.try_get("effective_at")?,
        })
    };
    rows.iter().map(held).collect()
}
