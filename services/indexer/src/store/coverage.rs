//! The numbers of the coverage report, and how far they are counted.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_history::recorded::OrdinalRange;
use tagtrail_postgres::row;
use tagtrail_proto::{Push, Tag};
use time::OffsetDateTime;

use crate::coverage::{Numbers, Way};

/// A range of row ids of pushes: after the first, up to the last.
pub(crate) use crate::store::doubts::PushRange;

/// How far changes are counted.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Row id of the last push.
    pub(crate) push: i64,
    /// Ordinal of the last revision, by partition.
    pub(crate) revisions: BTreeMap<u16, u64>,
}

/// The transactions that Postgres runs, and the last push that is visible.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The oldest transaction that is still running.
    pub(crate) oldest: i64,
    /// The transaction that begins next.
    pub(crate) next: i64,
    /// Row id of the last visible push.
    pub(crate) last_push: i64,
}

/// A revision that is counted now, or counted otherwise than before.
#[derive(Debug)]
pub(crate) struct Recount {
    pub(crate) tag_id: i64,
    pub(crate) effective_at: OffsetDateTime,
    pub(crate) number: i64,
    pub(crate) registry: String,
    pub(crate) source: String,
    /// The hour (UTC) in which the revision was recorded.
    pub(crate) hour: OffsetDateTime,
    /// `None`: the revision was not counted.
    pub(crate) before: Option<Way>,
    /// `None`: the revision is not counted, because it repeats the digest before it.
    pub(crate) after: Option<Way>,
    /// Whether a row of `coverage_change` holds `after`.
    pub(crate) kept: bool,
}

/// The last event in an hour (UTC).
#[derive(Debug)]
pub(crate) struct LastEvent {
    pub(crate) registry: String,
    pub(crate) source: String,
    pub(crate) hour: OffsetDateTime,
    pub(crate) at: OffsetDateTime,
}

/// Prepares a session for statements of many small lookups: compiling one takes seconds, and
/// running it takes less than one. While the tables grow their statistics are old, and Postgres may
/// take a table for so small that it reads all of it for each lookup.
pub(crate) async fn prepare(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "select set_config('jit', 'off', false), set_config('enable_seqscan', 'off', false)",
    )
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns which transactions run, and the last visible push, in one snapshot.
pub(crate) async fn moment(db: &mut PgConnection) -> Result<Moment, sqlx::Error> {
    let row = sqlx::query(
        "select pg_snapshot_xmin(s)::text::bigint as oldest, pg_snapshot_xmax(s)::text::bigint as next,
                coalesce((select max(id) from push), 0) as last_push
         from pg_current_snapshot() s",
    )
    .fetch_one(db)
    .await?;
    Ok(Moment {
        oldest: row.try_get("oldest")?,
        next: row.try_get("next")?,
        last_push: row.try_get("last_push")?,
    })
}

/// Returns how far changes are counted.
pub(crate) async fn counted(db: &mut PgConnection) -> Result<Counted, sqlx::Error> {
    let rows = sqlx::query("select feed, partition, counted from coverage_position")
        .fetch_all(db)
        .await?;
    let mut counted = Counted::default();
    for found in &rows {
        let until: i64 = found.try_get("counted")?;
        match found.try_get("feed")? {
            "push" => counted.push = until,
            _ => {
                let partition = row::partition(found, "partition")?;
                counted.revisions.insert(partition, row::unsigned(until));
            }
        }
    }
    Ok(counted)
}

/// Returns the next thousand pushes of a range.
pub(crate) async fn next_pushes(
    db: &mut PgConnection,
    range: PushRange,
) -> Result<PushRange, sqlx::Error> {
    let last: Option<i64> = sqlx::query_scalar(
        "select id from push where id > $1 and id <= $2 order by id offset 999 limit 1",
    )
    .bind(range.after)
    .bind(range.last)
    .fetch_optional(db)
    .await?;
    Ok(PushRange {
        last: last.unwrap_or(range.last),
        ..range
    })
}

/// Returns the revisions of these ranges, and the counted revisions that they or these pushes count
/// otherwise. `ranges` has every partition.
///
/// A change that was found by reconciling or a pull and reported by an event afterwards counts
/// once, as an event. Either the event has an earlier time: then the tag changed at that time, and
/// the revision found by reconciling repeats the digest. Or the event has a later time, and reports
/// the same digest.
///
/// A change is reordered if an event reported its digest at most two minutes before or after the
/// revision that the change replaces: of two pushes at one moment the registry may write the tag in
/// another order than that of their events. The same digest reported at another time proves
/// nothing: the tag may have returned to it without an event.
///
/// So a revision is looked at again after a new one before it. If it is in `coverage_change`, it is
/// also looked at after a new one behind it, and after an event before the revision that follows
/// it. Every lookup has a limit, so that it is one descent of an index however large the tables
/// are.
pub(crate) async fn recounts(
    db: &mut PgConnection,
    ranges: &[OrdinalRange],
    pushes: PushRange,
) -> Result<Vec<Recount>, sqlx::Error> {
    let column = |of: fn(&OrdinalRange) -> u64| -> Vec<i64> {
        ranges.iter().map(|range| row::signed(of(range))).collect()
    };
    let partitions = ranges.iter().map(|range| row::small(range.partition));
    let rows = sqlx::query(RECOUNTS)
        .bind(partitions.collect::<Vec<_>>())
        .bind(column(|range| range.after))
        .bind(column(|range| range.until))
        .bind(pushes.after)
        .bind(pushes.last)
        .bind(Push::OBSERVED)
        .bind(Tag::SIGNATURE)
        .fetch_all(db)
        .await?;
    rows.iter().map(recount).collect()
}

const RECOUNTS: &str = "with share (partition, after, until) as materialized (
         select * from unnest($1::smallint[], $2::bigint[], $3::bigint[])
     ), added as materialized (
         select v.tag_id, v.effective_at, v.number
         from share s cross join lateral (
             select * from revision r where r.partition = s.partition and r.ordinal > s.after and r.ordinal <= s.until
             order by r.ordinal limit 1000) v
     ), reported as materialized (
         select distinct p.tag_id, p.effective_at
         from (select * from push where id > $4 and id <= $5 order by id limit 1000) p
         where p.origin = 'event' and p.tag_id is not null
     ), touched as (
         select * from added
         union
         select n.* from added a cross join lateral (
             (select c.tag_id, c.effective_at, c.number from coverage_change c
              where c.tag_id = a.tag_id and (c.effective_at, c.number) < (a.effective_at, a.number)
              order by c.effective_at desc, c.number desc limit 1)
             union all
             (select r.tag_id, r.effective_at, r.number from revision r
              where r.tag_id = a.tag_id and (r.effective_at, r.number) > (a.effective_at, a.number)
              order by r.effective_at, r.number limit 1)) n
         union
         select n.* from reported e cross join lateral (
             (select c.tag_id, c.effective_at, c.number from coverage_change c
              where c.tag_id = e.tag_id and c.effective_at <= e.effective_at
              order by c.effective_at desc, c.number desc limit 1)
             union all
             (select c.tag_id, c.effective_at, c.number from coverage_change c
              where c.tag_id = e.tag_id and c.effective_at > e.effective_at and c.effective_at <= e.effective_at + interval '2 min')
             union all
             (select c.tag_id, c.effective_at, c.number from coverage_change c
              where c.tag_id = e.tag_id and c.effective_at > e.effective_at + interval '2 min'
              order by c.effective_at, c.number limit 1)) n
     ), change as (
         select v.tag_id, v.number, v.digest, v.effective_at, v.recorded_at, v.ordinal > s.after as is_new,
                p.source, t.registry, t.is_signature,
                case when p.origin = 'resolved' and starts_with(p.event_id, $6) then 'observed' else p.origin::text end as origin,
                coalesce(before.effective_at, v.effective_at) as replaced_at,
                before.number is not null and before.digest is not distinct from v.digest as again,
                next.effective_at as until
         from touched c
         cross join lateral (select * from revision r where r.tag_id = c.tag_id and r.number = c.number limit 1) v
         join share s on s.partition = v.partition and v.ordinal <= s.until
         cross join lateral (select * from push p where p.id = v.push_id limit 1) p
         cross join lateral (
             select r.registry, t.name ~ $7 as is_signature
             from tag t join repository r on r.id = t.repository_id where t.id = v.tag_id limit 1) t
         left join lateral (
             select r.number, r.digest, r.effective_at from revision r
             where r.tag_id = v.tag_id and (r.effective_at, r.number) < (v.effective_at, v.number)
             order by r.effective_at desc, r.number desc limit 1) before on true
         left join lateral (
             select r.effective_at from revision r
             where r.tag_id = v.tag_id and (r.effective_at, r.number) > (v.effective_at, v.number)
             order by r.effective_at, r.number limit 1) next on true
     ), known as (
         select c.*,
                case when c.is_signature then 'signatures' else c.origin end as plain,
                case
                    when c.again then null
                    when c.is_signature then 'signatures'
                    when c.origin in ('observed', 'reconciled', 'imported') and (
                        exists (
                            select from push e
                            where e.tag_id = c.tag_id and e.origin = 'event' and e.effective_at = e.occurred_at
                              and e.occurred_at >= c.effective_at and e.occurred_at < coalesce(c.until, 'infinity')
                              and case e.action when 'push' then e.digest end is not distinct from c.digest)
                        or exists (
                            select from push e
                            where e.tag_id = c.tag_id and e.origin = 'event' and e.effective_at <> e.occurred_at
                              and e.effective_at >= c.effective_at and e.effective_at < coalesce(c.until, 'infinity')
                              and case e.action when 'push' then e.digest end is not distinct from c.digest))
                    then 'event'
                    when c.origin in ('observed', 'reconciled') and (
                        exists (
                            select from push e
                            where e.tag_id = c.tag_id and e.origin = 'event' and e.effective_at = e.occurred_at
                              and e.occurred_at < c.effective_at
                              and e.occurred_at between c.replaced_at - interval '2 min' and c.replaced_at + interval '2 min'
                              and case e.action when 'push' then e.digest end is not distinct from c.digest)
                        or exists (
                            select from push e
                            where e.tag_id = c.tag_id and e.origin = 'event' and e.effective_at <> e.occurred_at
                              and e.effective_at < c.effective_at
                              and e.effective_at between c.replaced_at - interval '2 min' and c.replaced_at + interval '2 min'
                              and case e.action when 'push' then e.digest end is not distinct from c.digest))
                    then 'reordered'
                    else c.origin
                end as after
         from change c
     ), compared as (
         select k.*, case when k.is_new then null when w.number is not null then w.counted_as else k.plain end as before
         from known k left join lateral (
             select * from coverage_change w
             where w.tag_id = k.tag_id and w.effective_at = k.effective_at and w.number = k.number limit 1) w on true
     )
     select tag_id, effective_at, number, registry, source, date_trunc('hour', recorded_at, 'UTC') as hour, before, after,
            plain in ('observed', 'reconciled', 'imported') or after is distinct from plain as kept
     from compared where is_new or before is distinct from after";

fn recount(row: &PgRow) -> Result<Recount, sqlx::Error> {
    let way = |column: &str| -> Result<Option<Way>, sqlx::Error> {
        let name: Option<&str> = row.try_get(column)?;
        name.map(row::parsed).transpose()
    };
    Ok(Recount {
        tag_id: row.try_get("tag_id")?,
        effective_at: row.try_get("effective_at")?,
        number: row.try_get("number")?,
        registry: row.try_get("registry")?,
        source: row.try_get("source")?,
        hour: row.try_get("hour")?,
        before: way("before")?,
        after: way("after")?,
        kept: row.try_get("kept")?,
    })
}

/// Returns the last event among these pushes, by hour, registry and source.
pub(crate) async fn last_events(
    db: &mut PgConnection,
    pushes: PushRange,
) -> Result<Vec<LastEvent>, sqlx::Error> {
    let rows = sqlx::query(
        "select r.registry, p.source, date_trunc('hour', p.recorded_at, 'UTC') as hour, max(p.received_at) as at
         from (select * from push where id > $1 and id <= $2 order by id limit 1000) p
         cross join lateral (
             select r.registry from repository r
             where r.id = coalesce(p.repository_id, (select t.repository_id from tag t where t.id = p.tag_id)) limit 1) r
         where p.origin in ('event', 'resolved')
         group by r.registry, p.source, hour",
    )
    .bind(pushes.after)
    .bind(pushes.last)
    .fetch_all(db)
    .await?;
    let event = |row: &PgRow| {
        Ok(LastEvent {
            registry: row.try_get("registry")?,
            source: row.try_get("source")?,
            hour: row.try_get("hour")?,
            at: row.try_get("at")?,
        })
    };
    rows.iter().map(event).collect()
}

/// Adds to the numbers of the report.
pub(crate) async fn add(db: &mut PgConnection, numbers: &Numbers) -> Result<(), sqlx::Error> {
    let way = |way: Way| -> Vec<i64> { numbers.rows().map(|(_, row)| row.of(way)).collect() };
    sqlx::query(
        "insert into coverage (period, starts_at, registry, source, event, resolved, observed, reconciled, reordered, imported,
                               signatures, last_event_at)
         select period::coverage_period, starts_at, registry, source, event, resolved, observed, reconciled, reordered, imported,
                signatures, last_event_at
         from unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
                     $9::bigint[], $10::bigint[], $11::bigint[], $12::timestamptz[])
              as n (period, starts_at, registry, source, event, resolved, observed, reconciled, reordered, imported, signatures, last_event_at)
         on conflict (period, starts_at, registry, source) do update
         set event = coverage.event + excluded.event, resolved = coverage.resolved + excluded.resolved,
             observed = coverage.observed + excluded.observed, reconciled = coverage.reconciled + excluded.reconciled,
             reordered = coverage.reordered + excluded.reordered, imported = coverage.imported + excluded.imported,
             signatures = coverage.signatures + excluded.signatures,
             last_event_at = greatest(coverage.last_event_at, excluded.last_event_at)",
    )
    .bind(numbers.rows().map(|(key, _)| key.period).collect::<Vec<_>>())
    .bind(numbers.rows().map(|(key, _)| key.starts_at).collect::<Vec<_>>())
    .bind(numbers.rows().map(|(key, _)| key.registry.as_str()).collect::<Vec<_>>())
    .bind(numbers.rows().map(|(key, _)| key.source.as_str()).collect::<Vec<_>>())
    .bind(way(Way::Event))
    .bind(way(Way::Resolved))
    .bind(way(Way::Observed))
    .bind(way(Way::Reconciled))
    .bind(way(Way::Reordered))
    .bind(way(Way::Imported))
    .bind(way(Way::Signature))
    .bind(numbers.rows().map(|(_, row)| row.last_event_at).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}

/// Records how revisions are counted, for those that a later push may count otherwise.
pub(crate) async fn keep(db: &mut PgConnection, recounts: &[Recount]) -> Result<(), sqlx::Error> {
    fn each<T>(recounts: &[Recount], of: impl Fn(&Recount) -> T) -> Vec<T> {
        recounts.iter().map(of).collect()
    }
    sqlx::query(
        "with now (tag_id, effective_at, number, counted_as, kept) as (
             select * from unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::text[], $5::boolean[])
         ), forgotten as (
             delete from coverage_change c using now n
             where not n.kept and c.tag_id = n.tag_id and c.effective_at = n.effective_at and c.number = n.number
         )
         insert into coverage_change (tag_id, effective_at, number, counted_as)
         select tag_id, effective_at, number, counted_as from now where kept
         on conflict (tag_id, effective_at, number) do update set counted_as = excluded.counted_as",
    )
    .bind(each(recounts, |one| one.tag_id))
    .bind(each(recounts, |one| one.effective_at))
    .bind(each(recounts, |one| one.number))
    .bind(each(recounts, |one| one.after.map(Way::as_str)))
    .bind(each(recounts, |one| one.kept))
    .execute(db)
    .await
    .map(|_| ())
}

/// Records how far changes are counted.
pub(crate) async fn advance(
    db: &mut PgConnection,
    ranges: &[OrdinalRange],
    push: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into coverage_position (feed, partition, counted)
         select 'revision', * from unnest($1::smallint[], $2::bigint[]) union all values ('push', 0::smallint, $3::bigint)
         on conflict (feed, partition) do update set counted = excluded.counted",
    )
    .bind(ranges.iter().map(|range| row::small(range.partition)).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| row::signed(range.until)).collect::<Vec<_>>())
    .bind(push)
    .execute(db)
    .await
    .map(|_| ())
}
