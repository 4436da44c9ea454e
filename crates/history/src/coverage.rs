//! Changes by the way in which they became known: an event, resolving an incomplete event, a pull,
//! or reconciling.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Push, Tag};
use time::OffsetDateTime;

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

/// Returns the coverage of each registry and source, by the revisions recorded since a time.
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
pub async fn since(
    db: &mut PgConnection,
    since: OffsetDateTime,
) -> Result<Vec<SourceCoverage>, sqlx::Error> {
    let rows = sqlx::query(
        "with change as (
             select v.tag_id, v.digest, v.effective_at, p.source,
                    case when p.origin = 'resolved' and starts_with(p.event_id, $2) then 'observed' else p.origin::text end as origin,
                    coalesce(lag(v.effective_at) over same, v.effective_at) as replaced_at,
                    lag(v.number) over same is not null and lag(v.digest) over same is not distinct from v.digest as again,
                    lead(v.effective_at) over same as until
             from revision v join push p on p.id = v.push_id
             where v.recorded_at >= $1
             window same as (partition by v.tag_id order by v.effective_at, v.number)
         ), known as (
             select c.tag_id, c.source,
                    case
                        when c.origin in ('observed', 'reconciled', 'imported') and exists (
                            select from push e
                            where e.tag_id = c.tag_id and e.origin = 'event' and e.effective_at >= c.effective_at
                              and (c.until is null or e.effective_at < c.until)
                              and case e.action when 'push' then e.digest end is not distinct from c.digest)
                        then 'event'
                        when c.origin in ('observed', 'reconciled') and exists (
                            select from push e
                            where e.tag_id = c.tag_id and e.origin = 'event' and e.effective_at < c.effective_at
                              and e.effective_at between c.replaced_at - interval '2 min' and c.replaced_at + interval '2 min'
                              and case e.action when 'push' then e.digest end is not distinct from c.digest)
                        then 'reordered'
                        else c.origin
                    end as origin
             from change c where not c.again
         ), counted as (
             select r.registry, k.source,
                    count(*) filter (where k.origin = 'event') as event,
                    count(*) filter (where k.origin = 'resolved') as resolved,
                    count(*) filter (where k.origin = 'observed') as observed,
                    count(*) filter (where k.origin = 'reconciled') as reconciled,
                    count(*) filter (where k.origin = 'reordered') as reordered,
                    count(*) filter (where k.origin = 'imported') as imported,
                    count(*) filter (where k.origin = 'signature') as signatures
             from (
                 select k.source, t.repository_id, case when t.name ~ $3 then 'signature' else k.origin end as origin
                 from known k join tag t on t.id = k.tag_id) k
             join repository r on r.id = k.repository_id
             group by r.registry, k.source
         ), last_event as (
             select r.registry, p.source, max(p.received_at) as last_event_at
             from push p left join tag t on t.id = p.tag_id
             join repository r on r.id = coalesce(t.repository_id, p.repository_id)
             where p.recorded_at >= $1 and p.origin in ('event', 'resolved')
             group by r.registry, p.source
         ), by_source as (
             select registry, source, c.event, c.resolved, c.observed, c.reconciled, c.reordered, c.imported, c.signatures, e.last_event_at
             from counted c full join last_event e using (registry, source)
         ), reconciled_at as (
             select registry, max(last_at) as last_reconciled_at from reconcile group by registry
         )
         select registry, source, event, resolved, observed, reconciled, reordered, imported, signatures, last_event_at, last_reconciled_at
         from by_source full join reconciled_at using (registry)
         order by registry, source",
    )
    .bind(since)
    .bind(Push::OBSERVED)
    .bind(Tag::SIGNATURE)
    .fetch_all(db)
    .await?;
    rows.iter().map(of_row).collect()
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
