//! Repositories as folders: the parts of their names are steps of a way.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::Tag;
use time::OffsetDateTime;

use crate::slots::{HALF_HOURS, slots};

/// A folder, or a repository.
#[derive(Debug)]
pub struct Folder {
    /// The registry, and the parts of the name up to this one.
    pub place: String,
    /// Whether a repository has exactly this name.
    pub is_repository: bool,
    /// The repositories below, that of this name included.
    pub repositories: u64,
    /// Their tags that have a digest now.
    pub tags: u64,
    /// Changes recorded in each half hour of the last 24 hours.
    pub changes: [u64; HALF_HOURS],
}

impl Folder {
    /// Returns the number of changes recorded in the last 24 hours.
    #[must_use]
    pub fn recent(&self) -> u64 {
        self.changes.iter().sum()
    }
}

/// Which folders are returned, and in which order.
#[derive(Debug, Clone, Copy)]
pub struct FoldersQuery<'a> {
    /// The registry, and perhaps parts of a name, without a slash at the end. Empty: all.
    pub below: &'a str,
    /// Part of the name, in any case. With it, repositories are returned in place of folders.
    pub part: Option<&'a str>,
    /// Whether the folder with the most changes comes first; otherwise they are ordered by name.
    pub busiest: bool,
    /// The end of the 24 hours.
    pub now: OffsetDateTime,
}

/// Returns the folders directly below a place. Key: changes in the last 24 hours, and the row id of
/// the first repository.
pub async fn folders(
    db: &mut PgConnection,
    query: FoldersQuery<'_>,
    after: Option<[i64; 2]>,
    limit: i64,
) -> Result<Vec<([i64; 2], Folder)>, sqlx::Error> {
    let depth = match query.below {
        // Hosts of registries alone would be a list of one.
        "" => 2,
        below => below.split('/').count() + 1,
    };
    let depth = match query.part {
        Some(_) => i32::MAX,
        None => i32::try_from(depth).unwrap_or(i32::MAX),
    };
    let rows = sqlx::query(
        "with named as materialized (
             select r.id, r.whole, array_to_string((string_to_array(r.whole, '/'))[1:$2], '/') as place
             from (select id, registry || '/' || name as whole from repository) r
             where ($1 = '' or starts_with(r.whole, $1 || '/')) and ($3::text is null or strpos(lower(r.whole), lower($3)) > 0)
               and exists (select from tag t where t.repository_id = r.id and t.head is not null)
         ), by_repository as materialized (
             select t.repository_id, least(floor(extract(epoch from v.recorded_at - $4::timestamptz) / 1800), 47)::int as slot, count(*) as changes
             from revision v join tag t on t.id = v.tag_id
             where v.recorded_at > $4 and v.recorded_at <= $4 + interval '24 hours' and not (t.name like 'sha%' and t.name ~ $5)
             group by t.repository_id, slot
         ), recent as materialized (
             select n.place, c.slot, sum(c.changes)::bigint as changes
             from by_repository c join named n on n.id = c.repository_id group by n.place, c.slot
         ), places as (
             select n.place, count(*) as repositories, bool_or(n.whole = n.place) as is_repository, min(n.id) as id, array_agg(n.id) as ids,
                    coalesce((select sum(c.changes) from recent c where c.place = n.place), 0)::bigint as changes
             from named n group by n.place
         ), page as (
             select * from places
             where $7::bigint is null
                or case when $8 then changes < $6 or changes = $6 and id > $7 else place > (select a.place from named a where a.id = $7) end
             order by case when $8 then -changes end, case when $8 then id end, place limit $9
         )
         select p.place, p.repositories, p.is_repository, p.id, p.changes, t.tags, s.slots, s.counts
         from page p
         cross join lateral (
             select count(*) as tags from tag t
             where t.repository_id = any(p.ids) and t.head_digest is not null and not (t.name like 'sha%' and t.name ~ $5)) t
         cross join lateral (select array_agg(c.slot) as slots, array_agg(c.changes) as counts from recent c where c.place = p.place) s
         order by case when $8 then -p.changes end, case when $8 then p.id end, p.place",
    )
    .bind(query.below)
    .bind(depth)
    .bind(query.part)
    .bind(query.now - time::Duration::DAY)
    .bind(Tag::SIGNATURE)
    .bind(after.map(|[changes, _]| changes))
    .bind(after.map(|[_, id]| id))
    .bind(query.busiest)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(folder).collect()
}

fn folder(row: &PgRow) -> Result<([i64; 2], Folder), sqlx::Error> {
    let folder = Folder {
        place: row.try_get("place")?,
        is_repository: row.try_get("is_repository")?,
        repositories: row::unsigned(row.try_get("repositories")?),
        tags: row::unsigned(row.try_get("tags")?),
        changes: slots(row)?,
    };
    Ok(([row.try_get("changes")?, row.try_get("id")?], folder))
}
