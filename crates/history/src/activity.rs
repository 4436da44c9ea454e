//! How much there is and how much happens: numbers of images, the delay of recording, and the
//! changes of the last day. Every statement reads a bounded number of rows.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Registry, Repository, Tag};
use time::{Duration, OffsetDateTime};

use crate::instant::Instant;
use crate::slots::{HALF_HOURS, MINUTES, slots};

/// Most rows of a kind that are counted one by one.
pub const COUNTED: i64 = 200_000;
/// Most revisions of a partition among the changes of the last day.
const OF_PARTITION: i64 = 5_000;
/// Pushes whose delay is measured.
const MEASURED: i64 = 1000;

/// The numbers of all of history.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Totals {
    /// Registries that have a history.
    pub registries: u64,
    /// Repositories that have a history; counted up to 200,000.
    pub repositories: u64,
    /// Tags that have a digest now; counted up to 200,000.
    pub images: u64,
    /// Revisions.
    pub revisions: u64,
    /// The time from the receipt of a push to its record, of the last 1,000 pushes. None: no push
    /// is recorded.
    pub delay: Option<Delay>,
}

/// The time from the receipt of a push to its record.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Delay {
    /// Pushes measured.
    pub pushes: u64,
    /// The median, in milliseconds.
    pub median_ms: f64,
    /// The time that 99 of 100 pushes do not exceed, in milliseconds.
    pub p99_ms: f64,
}

/// Returns the numbers of all of history.
pub async fn totals(db: &mut PgConnection) -> Result<Totals, sqlx::Error> {
    let found = sqlx::query(
        "select r.registries, r.repositories, t.images, e.revisions, d.pushes, d.shares[1] as median, d.shares[2] as p99
         from (select count(distinct registry) as registries, count(*) as repositories
               from (select registry from repository limit $1) r) r
         cross join (select count(*) as images from (select from tag where head_digest is not null limit $1) t) t
         cross join (
             select coalesce(sum((select max(v.ordinal) from revision v where v.partition = p.partition)), 0)::bigint as revisions
             from position p where p.stream = 'PUSHES') e
         cross join (
             select count(*) as pushes, percentile_cont(array[0.5, 0.99]) within group (
                    order by greatest(extract(epoch from p.recorded_at - p.received_at)::float8 * 1000, 0)) as shares
             from (select recorded_at, received_at from push order by id desc limit $2) p) d",
    )
    .bind(COUNTED)
    .bind(MEASURED)
    .fetch_one(db)
    .await?;
    let count = |name: &str| Ok::<_, sqlx::Error>(row::unsigned(found.try_get(name)?));
    let time = |name: &str| found.try_get::<Option<f64>, _>(name);
    let pushes = count("pushes")?;
    let delay = match (time("median")?, time("p99")?) {
        (Some(median_ms), Some(p99_ms)) => Some(Delay {
            pushes,
            median_ms,
            p99_ms,
        }),
        _ => None,
    };
    Ok(Totals {
        registries: count("registries")?,
        repositories: count("repositories")?,
        images: count("images")?,
        revisions: count("revisions")?,
        delay,
    })
}

/// The changes of the last day.
#[derive(Debug)]
pub struct Busy {
    /// The time from which on changes are read: a day ago, or later if there are too many.
    pub since: OffsetDateTime,
    /// The number of changes in each minute of the last hour.
    pub minutes: [u64; MINUTES],
    /// The repositories with the most changes, and most changes first.
    pub repositories: Vec<BusyRepository>,
}

/// A repository with many changes.
#[derive(Debug)]
pub struct BusyRepository {
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// Changes since the time.
    pub changes: u64,
    /// The number of changes in each half hour of the last day.
    pub half_hours: [u64; HALF_HOURS],
    /// Tags that have a digest now.
    pub tags: u64,
    /// The user or account that pushed last, if the registry named one.
    pub actor: Option<String>,
}

/// Returns the changes of the last day by repository, and those of the last hour by minute. Tags
/// that hold signatures are left out.
pub async fn busy(
    db: &mut PgConnection,
    now: OffsetDateTime,
    most: i64,
) -> Result<Busy, sqlx::Error> {
    let day = now - Duration::DAY;
    let bound: Option<OffsetDateTime> = sqlx::query_scalar(
        "select max(r.recorded_at)
         from position p
         cross join lateral (select max(v.ordinal) as ordinal from revision v where v.partition = p.partition) e
         join revision r on r.partition = p.partition and r.ordinal = e.ordinal - $1
         where p.stream = 'PUSHES'",
    )
    .bind(OF_PARTITION)
    .fetch_one(&mut *db)
    .await?;
    let since = bound.map_or(day, |bound| bound.max(day));
    let rows = sqlx::query(
        "with c as materialized (
             select t.repository_id, v.push_id, v.recorded_at
             from revision v join tag t on t.id = v.tag_id
             where v.recorded_at >= $1 and t.name !~ $4
         ), slots as (
             select repository_id, floor(extract(epoch from recorded_at - $2) / 1800)::int as slot, count(*) as changes, max(push_id) as push_id
             from c group by 1, 2
         ), most as (
             select repository_id, sum(changes)::bigint as changes, max(push_id) as push_id,
                    array_agg(slot order by slot) as slots, array_agg(changes order by slot) as counts
             from slots group by repository_id order by 2 desc, 1 limit $3
         ), minutes as (
             select floor(extract(epoch from recorded_at - $5) / 60)::int as slot, count(*) as changes
             from c where recorded_at >= $5 group by 1
         )
         select r.registry, r.name as repository, m.changes, m.slots, m.counts, p.actor,
                (select count(*) from (select from tag t where t.repository_id = m.repository_id and t.head_digest is not null limit 20000) t) as tags
         from most m join repository r on r.id = m.repository_id join push p on p.id = m.push_id
         union all
         select null, null, null, array_agg(slot), array_agg(changes), null, null from minutes
         order by changes desc nulls last, repository",
    )
    .bind(since)
    .bind(day)
    .bind(most)
    .bind(Tag::SIGNATURE)
    .bind(now - Duration::HOUR)
    .fetch_all(db)
    .await?;
    let mut busy = Busy {
        since,
        minutes: [0; MINUTES],
        repositories: Vec::new(),
    };
    for found in &rows {
        let Some(repository) = found.try_get::<Option<String>, _>("repository")? else {
            busy.minutes = slots(found)?;
            continue;
        };
        busy.repositories.push(BusyRepository {
            registry: row::parsed(found.try_get("registry")?)?,
            repository: row::parsed(&repository)?,
            changes: row::unsigned(found.try_get("changes")?),
            half_hours: slots(found)?,
            tags: row::unsigned(found.try_get("tags")?),
            actor: found.try_get("actor")?,
        });
    }
    Ok(busy)
}

/// The end of a partition.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PartitionEnd {
    /// The partition.
    pub partition: u16,
    /// Revisions of the partition: the ordinal of the last one.
    pub revisions: u64,
    /// Revisions that are not published yet.
    pub unpublished: u64,
    /// The time of the last record.
    pub recorded_at: Option<Instant>,
}

/// Returns the end of each partition.
pub async fn partitions(db: &mut PgConnection) -> Result<Vec<PartitionEnd>, sqlx::Error> {
    let rows = sqlx::query(
        "select p.partition, coalesce(e.ordinal, 0) as revisions, greatest(coalesce(e.ordinal, 0) - p.published, 0) as unpublished, p.recorded_at
         from position p
         cross join lateral (select max(v.ordinal) as ordinal from revision v where v.partition = p.partition) e
         where p.stream = 'PUSHES' order by p.partition",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            Ok(PartitionEnd {
                partition: row::partition(found, "partition")?,
                revisions: row::unsigned(found.try_get("revisions")?),
                unpublished: row::unsigned(found.try_get("unpublished")?),
                recorded_at: found.try_get::<Option<_>, _>("recorded_at")?.map(Instant),
            })
        })
        .collect()
}
