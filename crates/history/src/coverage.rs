//! How changes became known.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use time::OffsetDateTime;

use crate::instant::Instant;

/// How well a registry told a source of its changes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Covered {
    /// The registry.
    pub registry: String,
    /// None: it is compared, and nothing ever came of it.
    pub source: Option<String>,
    /// The changes, by how they became known.
    pub changes: Changes,
    /// Of the changes that an event should have told, the share that only comparing found. None: there were none.
    pub lost_share: Option<f64>,
    /// When the last event was received, or answered if it did not say enough; of those since then.
    pub last_event_at: Option<Instant>,
    /// When a repository of the registry was last compared to the end.
    pub last_walk_at: Option<Instant>,
}

/// Changes, by how they became known.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Changes {
    /// An event told them, perhaps late.
    pub event: u64,
    /// The registry was asked, because an event did not say enough.
    pub resolved: u64,
    /// No event told them.
    pub reconciled: u64,
    /// They were there before anybody looked.
    pub imported: u64,
}

/// What was recorded since then.
///
/// Revisions are counted once where an event arrives after the change was found otherwise: its fact is of an earlier time, so that
/// the tag changed then and no more when it was found; or it is of a later one, and says the same.
pub async fn since(
    db: &mut PgConnection,
    since: OffsetDateTime,
) -> Result<Vec<Covered>, sqlx::Error> {
    let rows = sqlx::query(
        "with change as (
             select v.tag_id, v.digest, v.effective_at, p.origin, p.source,
                    lag(v.number) over same is not null and lag(v.digest) over same is not distinct from v.digest as again,
                    lead(v.effective_at) over same as until
             from revision v join push p on p.id = v.push_id
             where v.recorded_at >= $1
             window same as (partition by v.tag_id order by v.effective_at, v.number)
         ), known as (
             select c.tag_id, c.source,
                    case when c.origin in ('reconciled', 'imported') and exists (
                        select from push e
                        where e.tag_id = c.tag_id and e.origin = 'event' and e.effective_at >= c.effective_at
                          and (c.until is null or e.effective_at < c.until)
                          and case e.action when 'push' then e.digest end is not distinct from c.digest)
                    then 'event' else c.origin end as origin
             from change c where not c.again
         ), counted as (
             select r.registry, k.source,
                    count(*) filter (where k.origin = 'event') as event,
                    count(*) filter (where k.origin = 'resolved') as resolved,
                    count(*) filter (where k.origin = 'reconciled') as reconciled,
                    count(*) filter (where k.origin = 'imported') as imported
             from known k join tag t on t.id = k.tag_id join repository r on r.id = t.repository_id
             group by r.registry, k.source
         ), heard as (
             select r.registry, p.source, max(p.received_at) as last_event_at
             from push p left join tag t on t.id = p.tag_id
             join repository r on r.id = coalesce(t.repository_id, p.repository_id)
             where p.recorded_at >= $1 and p.origin in ('event', 'resolved')
             group by r.registry, p.source
         ), told as (
             select registry, source, c.event, c.resolved, c.reconciled, c.imported, h.last_event_at
             from counted c full join heard h using (registry, source)
         ), walked as (
             select registry, max(last_at) as last_walk_at from walk group by registry
         )
         select registry, source, event, resolved, reconciled, imported, last_event_at, last_walk_at
         from told full join walked using (registry)
         order by registry, source",
    )
    .bind(since)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let count = |name: &str| -> Result<u64, sqlx::Error> {
                Ok(row::unsigned(
                    row.try_get::<Option<i64>, _>(name)?.unwrap_or(0),
                ))
            };
            let changes = Changes {
                event: count("event")?,
                resolved: count("resolved")?,
                reconciled: count("reconciled")?,
                imported: count("imported")?,
            };
            let told = changes.event + changes.resolved + changes.reconciled;
            #[expect(
                clippy::cast_precision_loss,
                reason = "a share of fewer than 2^53 changes"
            )]
            let share = changes.reconciled as f64 / told as f64;
            Ok(Covered {
                registry: row.try_get("registry")?,
                source: row.try_get("source")?,
                lost_share: (told > 0).then_some(share),
                changes,
                last_event_at: row.try_get::<Option<_>, _>("last_event_at")?.map(Instant),
                last_walk_at: row.try_get::<Option<_>, _>("last_walk_at")?.map(Instant),
            })
        })
        .collect()
}
