//! The row of time of a tag: which digest was in force when.

use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::Digest;
use time::OffsetDateTime;

/// A stretch of a row of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The time from which on the revision holds; in a sampled row, the first moment at which it
    /// was seen.
    pub from: OffsetDateTime,
    /// The number of the revision.
    pub revision: u64,
    /// `None`: the tag was deleted.
    pub digest: Option<Digest>,
    /// The version that the image states.
    pub version: Option<String>,
}

/// Returns the stretches of a tag from a time to another, oldest first: one for each revision that
/// was in force. With more than `most` revisions between, the row is sampled at `most` moments, so
/// that its cost does not grow with the number of revisions.
pub async fn lane(
    db: &mut PgConnection,
    tag: i64,
    from: OffsetDateTime,
    until: OffsetDateTime,
    most: i64,
) -> Result<Vec<Stretch>, sqlx::Error> {
    let rows = sqlx::query(
        "with few as materialized (
             select v.number, v.digest, v.effective_at from revision v
             where v.tag_id = $1 and v.effective_at > $2 and v.effective_at <= $3
             order by v.effective_at desc, v.number desc limit $4 + 1
         ), part as (
             (select v.number, v.digest, v.effective_at as from_at from revision v
              where v.tag_id = $1 and v.effective_at <= $2
              order by v.effective_at desc, v.number desc limit 1)
             union all
             select number, digest, effective_at from few where (select count(*) from few) <= $4
             union all
             select v.number, v.digest, v.moment
             from (select $2 + ($3 - $2) * (i / $4::float8) as moment from generate_series(1, $4) i
                   where (select count(*) from few) > $4) m
             cross join lateral (
                 select v.number, v.digest, m.moment from revision v
                 where v.tag_id = $1 and v.effective_at <= m.moment
                 order by v.effective_at desc, v.number desc limit 1) v
         )
         select part.*, m.version from part left join manifest m on m.digest = part.digest
         order by from_at, number",
    )
    .bind(tag)
    .bind(from)
    .bind(until)
    .bind(most)
    .fetch_all(db)
    .await?;
    let mut lane: Vec<Stretch> = Vec::new();
    for row in &rows {
        let stretch = Stretch {
            from: row.try_get("from_at")?,
            revision: row::unsigned(row.try_get("number")?),
            digest: row::digest(row.try_get("digest")?)?,
            version: row.try_get("version")?,
        };
        match lane.last_mut() {
            // Replaced at its own time: it was never in force.
            Some(last) if last.from == stretch.from => *last = stretch,
            Some(last) if last.revision == stretch.revision => {}
            _ => lane.push(stretch),
        }
    }
    Ok(lane)
}
