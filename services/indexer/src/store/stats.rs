//! The numbers of tags by repository and of the changes of the last two days, and how far they are
//! counted.

use sqlx::{AssertSqlSafe, PgConnection};
use tagtrail_history::counted::columns;
use tagtrail_history::recorded::OrdinalRange;
use tagtrail_postgres::row;

/// How far tags and changes are counted: rows of partition and ordinal.
pub(crate) const COUNTED: &str = "select partition, counted from stats_position";

/// Counts the revisions of these ranges, records that they are counted, and deletes the numbers of
/// changes that are older than two days.
pub(crate) async fn add(db: &mut PgConnection, ranges: &[OrdinalRange]) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(format!(
        "with range as (
             select * from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as s (partition, after, until)
         ), oldest as materialized (
             select floor(extract(epoch from now() - interval '2 days') / 60)::integer as minute
         ), batch as materialized (
             select {}
             from range s
             cross join lateral (
                 select * from revision r where r.partition = s.partition and r.ordinal > s.after and r.ordinal <= s.until
                 order by r.ordinal limit 1000) v
             join tag t on t.id = v.tag_id
         ), tags as (
             insert into tag_stats (repository_id, known, tags, signatures)
             select repository_id, count(*) filter (where new), coalesce(sum(more) filter (where image), 0),
                    coalesce(sum(more) filter (where not image), 0)
             from batch group by repository_id
             on conflict (repository_id) do update
             set known = tag_stats.known + excluded.known, tags = tag_stats.tags + excluded.tags,
                 signatures = tag_stats.signatures + excluded.signatures
             where excluded.known <> 0 or excluded.tags <> 0 or excluded.signatures <> 0
         ), recent as materialized (
             select repository_id, push_id, minute, half_hour from batch where image and minute >= (select minute from oldest)
         ), half_hours as (
             insert into half_hour_stats (half_hour, repository_id, changes, push_id)
             select half_hour, repository_id, count(*), max(push_id) from recent group by half_hour, repository_id
             on conflict (half_hour, repository_id) do update
             set changes = half_hour_stats.changes + excluded.changes, push_id = greatest(half_hour_stats.push_id, excluded.push_id)
         ), minutes as (
             insert into minute_stats (minute, changes) select minute, count(*) from recent group by minute
             on conflict (minute) do update set changes = minute_stats.changes + excluded.changes
         ), old_half_hours as (
             delete from half_hour_stats where half_hour < (select minute / 30 from oldest)
         ), old_minutes as (
             delete from minute_stats where minute < (select minute from oldest)
         )
         insert into stats_position (partition, counted) select partition, until from range
         on conflict (partition) do update set counted = excluded.counted",
        columns()
    )))
    .bind(ranges.iter().map(|range| row::small(range.partition)).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| row::signed(range.after)).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| row::signed(range.until)).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}
