//! Re-checks that may never have been queued, derived from recorded pushes.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Push, TimeSource};
use tagtrail_timeline::{End, Suspect, is_doubtful};
use time::OffsetDateTime;

use crate::recheck::AskedRegistries;
use crate::store::pushes::effect;
use crate::store::tags::image_of;

/// Row ids of pushes that one statement looks at.
const PAGE: i64 = 1000;
/// Pages that [`shortly_before`] looks at: a holder loses re-checks only with its last batches.
const PAGES: i64 = 20;

/// A range of row ids of pushes: after the first, up to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PushRange {
    pub(crate) after: i64,
    pub(crate) last: i64,
}

/// Returns the questions about pushes that were recorded in the ten seconds up to a time.
pub(crate) async fn shortly_before(
    db: &mut PgConnection,
    time: OffsetDateTime,
    asked: &AskedRegistries,
) -> Result<Vec<Push>, sqlx::Error> {
    // Without `offset 0` Postgres looks for the least id from the first push on, and reads all
    // pushes before these.
    let row = sqlx::query(
        "select min(id) as first, max(id) as last
         from (select id from push where recorded_at > $1 - interval '10 seconds' and recorded_at <= $1 offset 0) p",
    )
    .bind(time)
    .fetch_one(&mut *db)
    .await?;
    let (Some(first), Some(last)): (Option<i64>, Option<i64>) =
        (row.try_get("first")?, row.try_get("last")?)
    else {
        return Ok(Vec::new());
    };
    let mut range = PushRange {
        after: (first - 1).max(last - PAGE * PAGES),
        last,
    };
    let mut questions = Vec::new();
    while range.after < range.last {
        questions.extend(page(db, &mut range, asked).await?);
    }
    Ok(questions)
}

/// Returns the questions about the next pushes of a range that no answer followed, and moves the
/// beginning of the range on. An answer is a later push about a later time that no event brought;
/// the answers of each tag are read once.
///
/// A push counts from the time that it names (`>=` in place of `=`, which Postgres takes for rare),
/// or from an earlier one, its receipt.
pub(crate) async fn page(
    db: &mut PgConnection,
    range: &mut PushRange,
    asked: &AskedRegistries,
) -> Result<Vec<Push>, sqlx::Error> {
    let until = range.last.min(range.after + PAGE);
    let rows = sqlx::query(
        "with near as materialized (
             select t.id as tag_id, r.registry, r.name as repository, t.name as tag, t.head, t.head_at, t.head_digest, t.latest_at,
                    p.id, p.tag_id is null as of_repository, p.action = 'delete' as deleted, p.digest, p.effective_at,
                    p.occurred_at_source::text as time_source, p.effective_at = p.occurred_at as undelayed, p.origin::text as origin, p.source,
                    v.number, v.previous, v.digest as set
             from push p
             join tag t on t.id = p.tag_id or t.repository_id = p.repository_id
             join repository r on r.id = t.repository_id
             left join revision v on v.tag_id = t.id and v.effective_at = p.effective_at and v.push_id = p.id
             where p.id > $1 and p.id <= $2 and ($3::text[] is null or r.registry = any ($3))
               and t.head is not null and (p.tag_id is not null or v.number is not null)
         ), answer as materialized (
             select n.tag_id, a.id, a.effective_at
             from (select tag_id, min(id) as id, min(effective_at) as at from near group by tag_id) n
             cross join lateral (
                 select a.id, a.effective_at from push a
                 where a.tag_id = n.tag_id and a.effective_at > n.at and a.occurred_at > n.at and a.id > n.id and a.origin <> 'event'
                 offset 0) a
         ), last as materialized (
             select distinct on (n.tag_id) n.* from near n
             where not exists (
                 select from answer a where a.tag_id = n.tag_id and a.id > n.id and a.effective_at > n.effective_at)
             order by n.tag_id, n.id desc
         )
         select l.*, l.number is not null as changed, before.digest as digest_before,
                greatest(receipt.at, own.at, before.effective_at) as newest_at,
                coalesce(l.number = l.head and exists (
                    select from revision o where o.digest = l.set and o.tag_id = l.tag_id and o.number < l.number
                ), false) as returns
         from last l
         left join revision before on before.tag_id = l.tag_id and before.number = l.previous
         left join lateral (
             select n.effective_at as at from push n
             where n.tag_id = l.tag_id and n.id <> l.id and n.effective_at <> n.occurred_at
             order by n.effective_at desc limit 1) receipt on true
         left join lateral (
             select n.occurred_at as at from push n
             where n.tag_id = l.tag_id and n.id <> l.id and n.effective_at >= n.occurred_at
               and n.occurred_at > coalesce(receipt.at, '-infinity') and n.occurred_at <= l.latest_at
             order by n.occurred_at desc limit 1) own on true",
    )
    .bind(range.after)
    .bind(until)
    .bind(asked.names())
    .fetch_all(db)
    .await?;
    range.after = until;
    rows.iter()
        .filter_map(|row| of_row(row).transpose())
        .collect()
}

/// Returns the question about a push, if the push leaves a doubt.
fn of_row(row: &PgRow) -> Result<Option<Push>, sqlx::Error> {
    let effect = effect(row)?;
    let at: OffsetDateTime = row.try_get("effective_at")?;
    let newest_at: Option<OffsetDateTime> = row.try_get("newest_at")?;
    let is_newest = newest_at.is_none_or(|newest| newest <= at);
    let digest = match is_newest && row.try_get("changed")? {
        true => row.try_get("digest_before")?,
        false => row.try_get("head_digest")?,
    };
    let end = End {
        digest: row::digest(digest)?,
        at: newest_at,
    };
    let source: TimeSource = row::parsed(row.try_get("time_source")?)?;
    let suspect = Suspect {
        at,
        effect: &effect,
        of_tag: !row.try_get::<bool, _>("of_repository")?,
        origin: row::parsed(row.try_get("origin")?)?,
        own_time: source == TimeSource::Event && row.try_get("undelayed")?,
        returns: row.try_get("returns")?,
    };
    if !is_doubtful(suspect, &end) {
        return Ok(None);
    }
    let head = row::unsigned(row.try_get("head")?);
    let (head_at, source): (OffsetDateTime, String) =
        (row.try_get("head_at")?, row.try_get("source")?);
    Ok(Some(Push::recheck(&image_of(row)?, head, head_at, &source)))
}
