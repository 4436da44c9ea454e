//! The digests of tags at evenly spaced moments: enough to draw a row of time for each, at a cost
//! that does not grow with the number of their revisions.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::Digest;
use time::OffsetDateTime;

use crate::instant::Instant;
use crate::tags::KnownTag;

/// Moments of a lane.
pub const MOMENTS: u32 = 90;

/// The revision in force at a moment, which differs from that of the moment before.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Sample {
    /// The moment, from 0 (the begin of the window) to 90 (its end).
    pub moment: u32,
    /// The number of the revision.
    pub revision: u64,
    /// Its digest; none if the tag was deleted.
    pub digest: Option<Digest>,
    /// The time from which on it holds.
    pub from: Instant,
}

/// Returns the samples of each of these tags, by row id, in the order of the moments. A moment
/// before the history of a tag has none.
pub async fn lanes(
    db: &mut PgConnection,
    tags: &[i64],
    from: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<HashMap<i64, Vec<Sample>>, sqlx::Error> {
    let rows = sqlx::query(
        "select tag_id, moment, number, digest, effective_at
         from (
             select t.id as tag_id, m.moment, v.number, v.digest, v.effective_at,
                    lag(v.number) over (partition by t.id order by m.moment) as before
             from unnest($1::bigint[]) as t (id)
             cross join generate_series(0, $4) as m (moment)
             cross join lateral (
                 select r.number, r.digest, r.effective_at from revision r
                 where r.tag_id = t.id and r.effective_at <= $2 + ($3 - $2) * (m.moment / $4::float)
                 order by r.effective_at desc, r.number desc limit 1) v) sampled
         where number is distinct from before
         order by tag_id, moment",
    )
    .bind(tags)
    .bind(from)
    .bind(until)
    .bind(i32::try_from(MOMENTS).unwrap_or(i32::MAX))
    .fetch_all(db)
    .await?;
    let mut lanes: HashMap<i64, Vec<Sample>> = HashMap::new();
    for row in &rows {
        let moment: i32 = row.try_get("moment")?;
        lanes
            .entry(row.try_get("tag_id")?)
            .or_default()
            .push(Sample {
                moment: moment.unsigned_abs(),
                revision: row::unsigned(row.try_get("number")?),
                digest: row::digest(row.try_get("digest")?)?,
                from: Instant(row.try_get("effective_at")?),
            });
    }
    Ok(lanes)
}

/// Adds the lane of each of these tags over a time.
pub async fn add(
    db: &mut PgConnection,
    tags: &mut [KnownTag],
    from: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let ids: Vec<i64> = tags.iter().map(KnownTag::id).collect();
    let mut lanes = lanes(db, &ids, from, until).await?;
    for tag in tags {
        tag.lane = Some(lanes.remove(&tag.id()).unwrap_or_default());
    }
    Ok(())
}
