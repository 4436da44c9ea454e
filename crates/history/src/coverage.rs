//! Changes by the way in which they became known: an event, resolving an incomplete event, a pull,
//! or reconciling.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use time::{Duration, OffsetDateTime, UtcOffset};

use crate::instant::Instant;

/// The changes of a registry that a source reported, and those that it did not.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Covered")]
pub struct SourceCoverage {
    /// The registry.
    pub registry: String,
    /// None: the registry is reconciled, and no source reported a change of it.
    pub source: Option<String>,
    /// Changes, by how they became known.
    pub changes: Changes,
    /// Changes of tags that are no images, but hold signatures and the like. They are not among
    /// `changes`.
    pub signatures: u64,
    /// The share of changes that only reconciling or a pull found, among those that an event should
    /// have reported. None: there were no such changes.
    pub lost_share: Option<f64>,
    /// The last time since then at which an event was received, or the registry was asked because
    /// an event lacked something.
    pub last_event_at: Option<Instant>,
    /// The last time at which a repository of the registry was reconciled to its end.
    pub last_reconciled_at: Option<Instant>,
}

/// Changes, by how they became known.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Changes {
    /// An event reported them, perhaps late.
    pub event: u64,
    /// The registry was asked for them, because an event lacked something.
    pub resolved: u64,
    /// No event reported them: a pull named another digest than history, and the registry was
    /// asked.
    pub observed: u64,
    /// No event reported them: they were found by reconciling.
    pub reconciled: u64,
    /// Events reported them, but in another order than the registry wrote the tag: reconciling
    /// found which push was the last.
    pub reordered: u64,
    /// They were there when their repository was first reconciled.
    pub imported: u64,
}

/// A repository whose last comparison with its registry did not reach its end.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NotCompared {
    /// The registry.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// The time of that comparison.
    pub failed_at: Instant,
    /// The answer of the registry, or the error in its place.
    pub reason: String,
    /// The last comparison that reached the end. None: there was none.
    pub last_reconciled_at: Option<Instant>,
}

/// Most repositories in the list of those that are not compared.
pub const MOST_NOT_COMPARED: i64 = 100;

/// Returns the repositories whose last comparison did not reach its end, the newest first.
pub async fn not_compared(db: &mut PgConnection) -> Result<Vec<NotCompared>, sqlx::Error> {
    let rows = sqlx::query(
        "select f.registry, f.repository, f.failed_at, f.reason, r.last_at
         from reconcile_failure f left join reconcile r using (registry, repository)
         where r.last_at is null or r.last_at < f.failed_at
         order by f.failed_at desc, f.registry, f.repository limit $1",
    )
    .bind(MOST_NOT_COMPARED)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(NotCompared {
                registry: row.try_get("registry")?,
                repository: row.try_get("repository")?,
                failed_at: Instant(row.try_get("failed_at")?),
                reason: row.try_get("reason")?,
                last_reconciled_at: row.try_get::<Option<_>, _>("last_at")?.map(Instant),
            })
        })
        .collect()
}

/// The coverage since a time.
#[derive(Debug)]
pub struct Coverage {
    /// The start of the hour (UTC) from which on changes are counted.
    pub since: OffsetDateTime,
    /// By registry, then source.
    pub items: Vec<SourceCoverage>,
    /// Recorded changes that are not counted yet.
    pub uncounted: u64,
}

/// Returns the coverage of each registry and source, by the revisions recorded since the hour (UTC)
/// of a time. The indexer counts them; the rule is with its statements.
///
/// The time depends on the number of days, registries and sources, and not on the number of
/// changes: hours are added up to the end of the first day, and days from there on.
pub async fn since(db: &mut PgConnection, since: OffsetDateTime) -> Result<Coverage, sqlx::Error> {
    let in_utc = since.checked_to_offset(UtcOffset::UTC);
    let since = in_utc.unwrap_or(since).truncate_to_hour();
    let rows = sqlx::query(
        "with counted as (
             select registry, source, sum(event)::bigint as event, sum(resolved)::bigint as resolved, sum(observed)::bigint as observed,
                    sum(reconciled)::bigint as reconciled, sum(reordered)::bigint as reordered, sum(imported)::bigint as imported,
                    sum(signatures)::bigint as signatures, max(last_event_at) as last_event_at
             from coverage
             where period = 'hour' and starts_at >= $1 and starts_at < $2 or period = 'day' and starts_at >= $2
             group by registry, source
             having max(last_event_at) is not null
                 or sum(event + resolved + observed + reconciled + reordered + imported + signatures) <> 0
         ), reconciled_at as (
             select registry, max(last_at) as last_reconciled_at from reconcile group by registry
         )
         select registry, source, event, resolved, observed, reconciled, reordered, imported, signatures, last_event_at, last_reconciled_at
         from counted full join reconciled_at using (registry)
         order by registry, source",
    )
    .bind(since)
    .bind(next_day(since))
    .fetch_all(&mut *db)
    .await?;
    Ok(Coverage {
        since,
        items: rows.iter().map(of_row).collect::<Result<_, _>>()?,
        uncounted: uncounted(db).await?,
    })
}

/// Returns the first midnight (UTC) at or after an hour. `None`: the calendar ends before.
fn next_day(hour: OffsetDateTime) -> Option<OffsetDateTime> {
    match hour.truncate_to_day() {
        day if day == hour => Some(day),
        day => day.checked_add(Duration::DAY),
    }
}

/// Returns the number of recorded changes that are not counted yet.
async fn uncounted(db: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let count: Option<i64> = sqlx::query_scalar(
        "select sum(greatest(e.ordinal - coalesce(c.counted, 0), 0))::bigint
         from position p
         cross join lateral (select coalesce(max(r.ordinal), 0) as ordinal from revision r where r.partition = p.partition) e
         left join coverage_position c on c.feed = 'revision' and c.partition = p.partition
         where p.stream = 'PUSHES'",
    )
    .fetch_one(db)
    .await?;
    Ok(row::unsigned(count.unwrap_or(0)))
}

fn of_row(row: &PgRow) -> Result<SourceCoverage, sqlx::Error> {
    let count = |name: &str| -> Result<u64, sqlx::Error> {
        Ok(row::unsigned(
            row.try_get::<Option<i64>, _>(name)?.unwrap_or(0),
        ))
    };
    let changes = Changes {
        event: count("event")?,
        resolved: count("resolved")?,
        observed: count("observed")?,
        reconciled: count("reconciled")?,
        reordered: count("reordered")?,
        imported: count("imported")?,
    };
    let lost = changes.observed + changes.reconciled;
    let reportable = changes.event + changes.resolved + changes.reordered + lost;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of fewer than 2^53 changes"
    )]
    let share = lost as f64 / reportable as f64;
    let time = |name: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<_>, _>(name)?.map(Instant));
    Ok(SourceCoverage {
        registry: row.try_get("registry")?,
        source: row.try_get("source")?,
        lost_share: (reportable > 0).then_some(share),
        changes,
        signatures: count("signatures")?,
        last_event_at: time("last_event_at")?,
        last_reconciled_at: time("last_reconciled_at")?,
    })
}
