//! How much there is and how much happens: numbers of images, the delay of recording, and the
//! changes of the last day. Statements read the numbers that the indexer keeps, never history.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Registry, Repository};
use time::OffsetDateTime;

use crate::counted::fresh;
use crate::instant::Instant;
use crate::slots::{HALF_HOURS, MINUTES, first_half_hour, first_minute, slots};

/// Most repositories that are counted one by one.
pub const COUNTED: i64 = 200_000;
/// Pushes whose delay is measured.
const MEASURED: i64 = 1000;

/// The numbers of all of history.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Totals {
    /// Registries that have a history.
    pub registries: u64,
    /// Repositories that have a history; counted up to 200,000.
    pub repositories: u64,
    /// Tags that have a digest now.
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
    let found = sqlx::query(AssertSqlSafe(format!(
        "with {}
         select r.registries, r.repositories, t.images, e.revisions, d.pushes, d.shares[1] as median, d.shares[2] as p99
         from (select count(distinct registry) as registries, count(*) as repositories
               from (select registry from repository limit $1) r) r
         cross join (
             select (coalesce((select sum(tags + signatures) from tag_stats), 0) + coalesce((select sum(more) from fresh), 0))::bigint as images) t
         cross join (
             select coalesce(sum((select max(v.ordinal) from revision v where v.partition = p.partition)), 0)::bigint as revisions
             from position p where p.stream = 'PUSHES') e
         cross join (
             select count(*) as pushes, percentile_cont(array[0.5, 0.99]) within group (
                    order by greatest(extract(epoch from p.recorded_at - p.received_at)::float8 * 1000, 0)) as shares
             from (select recorded_at, received_at from push order by id desc limit $2) p) d",
        fresh()
    )))
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
    /// The number of changes in each of the 60 minutes that end with the present one.
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
    /// Changes of these half hours.
    pub changes: u64,
    /// The number of changes in each of the 48 half hours that end with the present one.
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
    let rows = sqlx::query(AssertSqlSafe(format!(
        "with {}, counted as materialized (
             select repository_id, least(half_hour - $1, 47) as slot, changes, push_id from half_hour_stats where half_hour >= $1
             union all
             select repository_id, least(half_hour - $1, 47), 1, push_id from fresh where image and half_hour >= $1
         ), most as (
             select repository_id, sum(changes) as changes, max(push_id) as push_id
             from counted group by repository_id order by 2 desc, 1 limit $3
         ), slots as (
             select repository_id, array_agg(slot) as slots, array_agg(changes) as counts
             from (select c.repository_id, c.slot, sum(c.changes) as changes
                   from counted c join most m on m.repository_id = c.repository_id group by 1, 2) c
             group by repository_id
         ), minutes as (
             select minute - $2 as slot, sum(changes) as changes
             from (select minute, changes from minute_stats where minute >= $2
                   union all select minute, 1 from fresh where image and minute >= $2) m
             group by 1
         )
         select r.registry, r.name as repository, m.changes, s.slots, s.counts, p.actor,
                (coalesce((select t.tags from tag_stats t where t.repository_id = m.repository_id), 0)
                 + coalesce((select sum(f.more) from fresh f where f.image and f.repository_id = m.repository_id), 0))::bigint as tags
         from most m join slots s on s.repository_id = m.repository_id
         join repository r on r.id = m.repository_id join push p on p.id = m.push_id
         union all
         select null, null, null, array_agg(slot), array_agg(changes), null, null from minutes
         order by changes desc nulls last, repository",
        fresh()
    )))
    .bind(first_half_hour(now))
    .bind(first_minute(now))
    .bind(most)
    .fetch_all(db)
    .await?;
    let mut busy = Busy {
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
