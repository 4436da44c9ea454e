//! Changes of a repository by the day (UTC) on which they took effect. The indexer counts them in
//! the background; the few that it has not counted yet are added here.

use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::Tag;
use time::Date;

/// Most revisions of a partition that are added to the numbers.
const MOST: i64 = 2000;

/// The changes of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// The day.
    pub day: Date,
    /// The number of changes.
    pub changes: u64,
}

/// The days of a repository that have changes.
#[derive(Debug)]
pub struct Days {
    /// By day.
    pub items: Vec<Day>,
    /// Recorded changes of all repositories that are not among the numbers, because the indexer is
    /// far behind, as after an upgrade.
    pub uncounted: u64,
}

/// Returns the days from `from` to `until`, both included, on which tags of a repository changed.
pub async fn of_repository(
    db: &mut PgConnection,
    repository: i64,
    from: Date,
    until: Date,
) -> Result<Days, sqlx::Error> {
    let rows = sqlx::query(
        "with behind as materialized (
             select p.partition, coalesce(c.counted, 0) as counted,
                    coalesce((select max(r.ordinal) from revision r where r.partition = p.partition), 0) as recorded
             from position p left join day_stats_position c on c.partition = p.partition
             where p.stream = 'PUSHES'
         ), added as (
             select (v.effective_at at time zone 'utc')::date as day, count(*) as changes
             from behind b
             cross join lateral (
                 select r.tag_id, r.effective_at from revision r
                 where r.partition = b.partition and r.ordinal > b.counted order by r.ordinal limit $5) v
             join tag t on t.id = v.tag_id
             where b.recorded > b.counted and t.repository_id = $1 and t.name !~ $4
             group by 1
         ), all_days as (
             select day, changes from day_stats where repository_id = $1 and day between $2 and $3
             union all select day, changes from added where day between $2 and $3
         )
         select d.day, sum(d.changes)::bigint as changes,
                (select sum(greatest(recorded - counted - $5, 0))::bigint from behind) as uncounted
         from (select day, changes from all_days union all select null, 0) d
         group by d.day order by d.day nulls last",
    )
    .bind(repository)
    .bind(from)
    .bind(until)
    .bind(Tag::SIGNATURE)
    .bind(MOST)
    .fetch_all(db)
    .await?;
    let mut days = Days {
        items: Vec::with_capacity(rows.len()),
        uncounted: 0,
    };
    for row in &rows {
        match row.try_get::<Option<Date>, _>("day")? {
            Some(day) => days.items.push(Day {
                day,
                changes: row::unsigned(row.try_get("changes")?),
            }),
            None => {
                let uncounted: Option<i64> = row.try_get("uncounted")?;
                days.uncounted = row::unsigned(uncounted.unwrap_or(0));
            }
        }
    }
    Ok(days)
}
