//! Repositories as folders: the parts of their names are steps of a way.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tagtrail_postgres::row;
use time::OffsetDateTime;

use crate::counted::fresh;
use crate::slots::{HALF_HOURS, first_half_hour, slots};

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
    /// Changes recorded in each of the 48 half hours that end with the present one.
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
    /// The present.
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
    let rows = sqlx::query(AssertSqlSafe(format!(
        "with {}, stats as materialized (
             select repository_id, sum(known) as known, sum(tags)::bigint as tags
             from (select repository_id, known, tags from tag_stats
                   union all select repository_id, new::integer, case when image then more else 0 end from fresh) s
             group by repository_id
         ), counted as materialized (
             select repository_id, least(half_hour - $4, 47) as slot, changes from half_hour_stats where half_hour >= $4
             union all select repository_id, least(half_hour - $4, 47), 1 from fresh where image and half_hour >= $4
         ), recent as (
             select repository_id, sum(changes) as changes from counted group by repository_id
         ), named as materialized (
             select r.id, r.whole, array_to_string((string_to_array(r.whole, '/'))[1:$2], '/') as place, s.tags, coalesce(c.changes, 0) as changes
             from (select id, registry || '/' || name as whole from repository) r
             join stats s on s.repository_id = r.id and s.known > 0
             left join recent c on c.repository_id = r.id
             where ($1 = '' or starts_with(r.whole, $1 || '/')) and ($3::text is null or strpos(lower(r.whole), lower($3)) > 0)
         ), places as (
             select n.place, count(*) as repositories, bool_or(n.whole = n.place) as is_repository, min(n.id) as id, array_agg(n.id) as ids,
                    sum(n.tags)::bigint as tags, sum(n.changes)::bigint as changes
             from named n group by n.place
         ), page as materialized (
             select * from places
             where $6::bigint is null
                or case when $7 then changes < $5 or changes = $5 and id > $6 else place > (select a.place from named a where a.id = $6) end
             order by case when $7 then -changes end, case when $7 then id end, place limit $8
         ), shown as materialized (
             select id, unnest(ids) as repository_id from page
         ), slots as (
             select id, array_agg(slot) as slots, array_agg(changes) as counts
             from (select s.id, c.slot, sum(c.changes) as changes
                   from shown s join counted c on c.repository_id = s.repository_id group by 1, 2) c
             group by id
         )
         select p.place, p.repositories, p.is_repository, p.id, p.changes, p.tags, s.slots, s.counts
         from page p left join slots s on s.id = p.id
         order by case when $7 then -p.changes end, case when $7 then p.id end, p.place",
        fresh()
    )))
    .bind(query.below)
    .bind(depth)
    .bind(query.part)
    .bind(first_half_hour(query.now))
    .bind(after.map(|[changes, _]| changes))
    .bind(after.map(|[_, id]| id))
    .bind(query.busiest)
    .bind(limit)
    // Planned with its values: the plan for any values took longer than the time-out of a statement
    // with 50,000 repositories.
    .persistent(false)
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
