//! The last changes that no event reported, though one should have.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Push};
use time::{Duration, OffsetDateTime};

use crate::instant::Instant;

/// Most changes in the list.
pub const MOST: i64 = 20;
/// Most hours with such changes that are read.
const HOURS: i64 = 8;

/// A change that no event reported.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LostChange")]
pub struct Lost {
    /// The image.
    pub image: Image,
    /// The number of the revision.
    pub revision: u64,
    /// The digest from then on; null if the tag was deleted.
    pub digest: Option<Digest>,
    /// The time at which the change was found.
    pub found_at: Instant,
    /// `observed`: a pull showed the change. `reconciled`: a comparison with the registry did.
    pub origin: String,
}

/// Returns the last lost changes of seven days, the newest first: of the newest eight hours that
/// have any, at most 20.
pub async fn lost(db: &mut PgConnection, now: OffsetDateTime) -> Result<Vec<Lost>, sqlx::Error> {
    // An event that comes later turns a lost change into a reported one, in coverage_change.
    let rows = sqlx::query(
        "with hours as (
             select starts_at from coverage
             where period = 'hour' and starts_at >= $1 and observed + reconciled > 0
             group by starts_at order by starts_at desc limit $2
         )
         select r.registry, r.name as repository, t.name as tag, v.number, v.digest, v.recorded_at, case p.origin when 'resolved' then 'observed' else 'reconciled' end as origin
         from hours h
         join push p on p.recorded_at >= h.starts_at and p.recorded_at < h.starts_at + interval '1 hour'
                    and (p.origin = 'reconciled' or (p.origin = 'resolved' and starts_with(p.event_id, $4)))
         join revision v on v.tag_id = p.tag_id and v.effective_at = p.effective_at and v.push_id = p.id
         join tag t on t.id = v.tag_id
         join repository r on r.id = t.repository_id
         left join coverage_change c on c.tag_id = v.tag_id and c.effective_at = v.effective_at and c.number = v.number
         where c.tag_id is null or c.counted_as in ('observed', 'reconciled')
         order by v.recorded_at desc, v.tag_id, v.number desc limit $3",
    )
    .bind(now - Duration::days(7))
    .bind(HOURS)
    .bind(MOST)
    .bind(Push::OBSERVED)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            let digest: Option<Vec<u8>> = found.try_get("digest")?;
            let image = Image {
                registry: row::parsed(found.try_get("registry")?)?,
                repository: row::parsed(found.try_get("repository")?)?,
                tag: row::parsed(found.try_get("tag")?)?,
            };
            Ok(Lost {
                image,
                revision: row::unsigned(found.try_get("number")?),
                digest: row::digest(digest.as_deref())?,
                found_at: Instant(found.try_get("recorded_at")?),
                origin: found.try_get("origin")?,
            })
        })
        .collect()
}
