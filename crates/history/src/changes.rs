//! The revisions of a tag.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Kind, Origin, Pinned, Point, Registry, Repository, Tag};
use time::OffsetDateTime;

use crate::instant::{Instant, of_key, to_micros};

/// The data of a revision event, without `head`: the head at the time of recording was news only
/// then.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Change")]
pub struct HistoryItem {
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
    /// The number: 1, 2, 3 … per tag, in the order recorded.
    pub revision: u64,
    /// The difference from the previous revision.
    pub kind: Kind,
    /// The digest from then on; none if the tag was deleted.
    pub digest: Option<Digest>,
    /// The image, pinned to this digest.
    pub pinned: Option<Pinned>,
    /// The revision in force just before, when this one was recorded.
    pub previous: Option<Point>,
    /// True if it was not the head when it was recorded: news about the past.
    pub late: bool,
    /// The time from which on it holds, by the registry's clock.
    pub occurred_at: Instant,
    /// The time at which Tagtrail recorded it.
    pub recorded_at: Instant,
    /// The way in which the push behind it became known.
    pub origin: Origin,
    /// Name of the source of the push.
    pub source: String,
    /// The user or account that pushed.
    pub actor: Option<String>,
    /// Media type of the manifest.
    pub media_type: Option<String>,
    /// Size of the manifest in bytes.
    pub size: Option<u64>,
}

/// A range of effective times. `None` is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    /// The first time of the range.
    pub since: Option<OffsetDateTime>,
    /// The first time after the range.
    pub until: Option<OffsetDateTime>,
}

/// The SQL of the revisions of the tag $1 that pass a condition, in an order.
macro_rules! revisions {
    ($which:literal) => {
        concat!(
            "select v.number, v.kind::text as kind, v.digest, v.previous, before.digest as previous_digest, v.late, v.effective_at,
                v.recorded_at, p.origin::text as origin, p.source, p.actor, p.media_type, p.size_bytes
         from revision v
         join push p on p.id = v.push_id
         left join revision before on before.tag_id = v.tag_id and before.number = v.previous
         where v.tag_id = $1 and ",
            $which
        )
    };
}

/// Returns the revisions of a tag in a range, newest first, each with its push. Key: effective
/// time, number.
pub async fn changes(
    db: &mut PgConnection,
    tag: i64,
    image: &Image,
    range: Range,
    after: Option<[i64; 2]>,
    limit: i64,
) -> Result<Vec<([i64; 2], HistoryItem)>, sqlx::Error> {
    let after = after
        .map(|[at, number]| of_key(at).map(|at| (at, number)))
        .transpose()?;
    let rows = sqlx::query(revisions!(
        "(v.effective_at, v.number) < (coalesce($2::timestamptz, 'infinity'), coalesce($3, 0))
           and v.effective_at >= coalesce($5::timestamptz, '-infinity') and v.effective_at < coalesce($6::timestamptz, 'infinity')
         order by v.effective_at desc, v.number desc limit $4"
    ))
    .bind(tag)
    .bind(after.map(|(at, _)| at))
    .bind(after.map(|(_, number)| number))
    .bind(limit)
    .bind(range.since)
    .bind(range.until)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| item(row, image)).collect()
}

/// Returns the revisions of a tag in a range that are just newer than a key, the nearest first.
pub async fn newer(
    db: &mut PgConnection,
    tag: i64,
    image: &Image,
    range: Range,
    before: [i64; 2],
    limit: i64,
) -> Result<Vec<([i64; 2], HistoryItem)>, sqlx::Error> {
    let [at, number] = before;
    let rows = sqlx::query(revisions!(
        "(v.effective_at, v.number) > ($2, $3)
           and v.effective_at >= coalesce($5::timestamptz, '-infinity') and v.effective_at < coalesce($6::timestamptz, 'infinity')
         order by v.effective_at, v.number limit $4"
    ))
    .bind(tag)
    .bind(of_key(at)?)
    .bind(number)
    .bind(limit)
    .bind(range.since)
    .bind(range.until)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| item(row, image)).collect()
}

/// Returns the revisions of a tag around a time, newest first: at most `newer` that took effect
/// later, and at most `older` that had taken effect.
pub async fn around(
    db: &mut PgConnection,
    tag: i64,
    image: &Image,
    at: OffsetDateTime,
    newer: i64,
    older: i64,
) -> Result<Vec<([i64; 2], HistoryItem)>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "select * from ((",
        revisions!("v.effective_at > $2 order by v.effective_at, v.number limit $3"),
        ") union all (",
        revisions!("v.effective_at <= $2 order by v.effective_at desc, v.number desc limit $4"),
        ")) v order by effective_at desc, number desc"
    ))
    .bind(tag)
    .bind(at)
    .bind(newer)
    .bind(older)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| item(row, image)).collect()
}

fn item(row: &PgRow, image: &Image) -> Result<([i64; 2], HistoryItem), sqlx::Error> {
    let (number, at): (i64, OffsetDateTime) =
        (row.try_get("number")?, row.try_get("effective_at")?);
    let digest = row::digest(row.try_get("digest")?)?;
    let previous = match row.try_get::<Option<i64>, _>("previous")? {
        Some(number) => Some(Point {
            revision: row::unsigned(number),
            digest: row::digest(row.try_get("previous_digest")?)?,
        }),
        None => None,
    };
    let item = HistoryItem {
        registry: image.registry.clone(),
        repository: image.repository.clone(),
        tag: image.tag.clone(),
        revision: row::unsigned(number),
        kind: row::parsed(row.try_get("kind")?)?,
        pinned: digest.as_ref().map(|digest| image.pinned(digest)),
        digest,
        previous,
        late: row.try_get("late")?,
        occurred_at: Instant(at),
        recorded_at: Instant(row.try_get("recorded_at")?),
        origin: row::parsed(row.try_get("origin")?)?,
        source: row.try_get("source")?,
        actor: row.try_get("actor")?,
        media_type: row.try_get("media_type")?,
        size: row
            .try_get::<Option<i64>, _>("size_bytes")?
            .map(row::unsigned),
    };
    Ok(([to_micros(at), number], item))
}
