//! The numbers of changes by repository and day, and how far they are counted.

use sqlx::PgConnection;
use tagtrail_history::recorded::OrdinalRange;
use tagtrail_postgres::row;
use tagtrail_proto::Tag;

/// How far changes are counted: rows of partition and ordinal.
pub(crate) const COUNTED: &str = "select partition, counted from day_stats_position";

/// Counts the revisions of these ranges, and records that they are counted. Also adds the tags
/// whose second revision was recorded by an indexer of a version that did not.
///
/// A tag counts once a day: a revision of the same day with a smaller number was counted before.
pub(crate) async fn add(db: &mut PgConnection, ranges: &[OrdinalRange]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with range as (
             select * from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as s (partition, after, until)
         ), batch as (
             select t.repository_id, v.tag_id, v.number, v.kind, (v.effective_at at time zone 'utc')::date as day, t.name !~ $4 as image
             from range s
             cross join lateral (
                 select * from revision r where r.partition = s.partition and r.ordinal > s.after and r.ordinal <= s.until
                 order by r.ordinal limit 1000) v
             join tag t on t.id = v.tag_id
         ), by_tag as (
             select repository_id, day, tag_id, count(*) as changes, count(*) filter (where kind = 'reverted') as reverted, min(number) as first
             from batch where image group by repository_id, day, tag_id
         ), added as (
             insert into day_stats (repository_id, day, changes, tags, reverted)
             select b.repository_id, b.day, sum(b.changes), count(*) filter (where not exists (
                        select from revision e
                        where e.tag_id = b.tag_id and e.number < b.first
                          and e.effective_at >= b.day::timestamp at time zone 'utc' and e.effective_at < (b.day + 1)::timestamp at time zone 'utc')),
                    sum(b.reverted)
             from by_tag b group by b.repository_id, b.day
             on conflict (repository_id, day) do update
             set changes = day_stats.changes + excluded.changes, tags = day_stats.tags + excluded.tags,
                 reverted = day_stats.reverted + excluded.reverted
         ), moving as (
             insert into moving (repository_id, tag_id)
             select repository_id, tag_id from batch where number = 2
             on conflict do nothing
         )
         insert into day_stats_position (partition, counted) select partition, until from range
         on conflict (partition) do update set counted = excluded.counted",
    )
    .bind(ranges.iter().map(|range| row::small(range.partition)).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| row::signed(range.after)).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| row::signed(range.until)).collect::<Vec<_>>())
    .bind(Tag::SIGNATURE)
    .execute(db)
    .await
    .map(|_| ())
}
