//! The newest revisions of all images. Each partition is read from its end, so that the cost does
//! not depend on the length of history.

use sqlx::{Error, PgConnection};
use tagtrail_postgres::row;
use tagtrail_proto::Image;
use time::{Duration, OffsetDateTime};

use super::{Recorded, before, ends, of_row};
use crate::changes::HistoryItem;
use crate::instant::{Instant, of_key, to_micros};

/// Revisions by their time of recording. `None` is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct Between {
    /// The first time of recording.
    pub since: Option<OffsetDateTime>,
    /// The first time of recording that is too late.
    pub until: Option<OffsetDateTime>,
}

/// Place of a revision among all: time of recording in microseconds, partition, ordinal.
pub type Key = [i64; 3];

/// Most revisions that one statement reads.
const ROWS: i64 = 1000;
/// Most statements for one page, so that a pattern with few matches has a bounded cost.
const ROUNDS: usize = 5;

/// The revisions that were found.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest first.
    pub items: Vec<HistoryItem>,
    /// Place of the last revision that was looked at, if there may be more.
    pub next: Option<Key>,
}

/// Returns at most `limit` revisions of images that `keeps` returns true for, the last recorded
/// first, after a place. Ends early, with a place to continue at, after 5,000 revisions.
pub async fn newest(
    db: &mut PgConnection,
    between: Between,
    after: Option<Key>,
    keeps: impl Fn(&Image) -> bool,
    limit: usize,
) -> Result<Newest, Error> {
    let [since, until] = [between.since, between.until];
    let last = match after {
        Some([at, ..]) => of_key(at)?.checked_add(Duration::MICROSECOND),
        None => None,
    };
    let end = match (until, last) {
        (Some(until), Some(last)) => Some(until.min(last)),
        (until, last) => until.or(last),
    };
    let ends = match end {
        Some(end) => before(&mut *db, end).await?,
        None => ends(&mut *db).await?,
    };
    let starts = match since {
        Some(since) => before(&mut *db, since).await?,
        None => Vec::new(),
    };
    let start = |partition: u16| {
        let found = starts.iter().find(|(of, _)| *of == partition);
        found.map_or(0, |(_, ordinal)| *ordinal)
    };
    let ranges: Vec<(u16, u64, u64)> = ends
        .into_iter()
        .map(|(partition, end)| (partition, start(partition), end))
        .filter(|(_, start, end)| start < end)
        .collect();
    let mut found = Newest::default();
    let mut after = after;
    // A page of all images needs no more rows than it has items.
    let mut rows = i64::try_from(limit).map_or(ROWS, |limit| (limit + 1).min(ROWS));
    for _ in 0..ROUNDS {
        let read = page(&mut *db, &ranges, after, rows).await?;
        let full = i64::try_from(read.len()) == Ok(rows);
        for (partition, recorded) in read {
            if !keeps(&recorded.event.image()) {
                after = Some(key(partition, &recorded));
                continue;
            }
            if found.items.len() == limit {
                found.next = after;
                return Ok(found);
            }
            after = Some(key(partition, &recorded));
            found.items.push(item(recorded));
        }
        if !full {
            return Ok(found);
        }
        rows = ROWS;
    }
    found.next = after;
    Ok(found)
}

fn key(partition: u16, recorded: &Recorded) -> Key {
    [
        to_micros(recorded.event.recorded_at),
        partition.into(),
        row::signed(recorded.ordinal),
    ]
}

async fn page(
    db: &mut PgConnection,
    ranges: &[(u16, u64, u64)],
    after: Option<Key>,
    rows: i64,
) -> Result<Vec<(u16, Recorded)>, Error> {
    let at = after.map(|[at, ..]| of_key(at)).transpose()?;
    let found = sqlx::query(concat!(
        select_recorded!(
            "(select w.* from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as s (partition, after, until)
              cross join lateral (
                  select * from revision r where r.partition = s.partition and r.ordinal > s.after and r.ordinal <= s.until
                    and ($4::timestamptz is null or (r.recorded_at, r.partition, r.ordinal) < ($4, $5::smallint, $6::bigint))
                  order by r.ordinal desc limit $7) w
              order by w.recorded_at desc, w.partition desc, w.ordinal desc limit $7) v"
        ),
        "order by v.recorded_at desc, v.partition desc, v.ordinal desc"
    ))
    .bind(ranges.iter().map(|(partition, ..)| row::small(*partition)).collect::<Vec<_>>())
    .bind(ranges.iter().map(|(_, start, _)| row::signed(*start)).collect::<Vec<_>>())
    .bind(ranges.iter().map(|(.., end)| row::signed(*end)).collect::<Vec<_>>())
    .bind(at)
    .bind(after.and_then(|[_, partition, _]| i16::try_from(partition).ok()))
    .bind(after.map(|[.., ordinal]| ordinal))
    .bind(rows)
    .fetch_all(db)
    .await?;
    found.iter().map(of_row).collect()
}

/// Returns the revision without `head`, which was news only when it was recorded.
fn item(recorded: Recorded) -> HistoryItem {
    let event = recorded.event;
    HistoryItem {
        registry: event.registry,
        repository: event.repository,
        tag: event.tag,
        revision: event.revision,
        kind: event.kind,
        digest: event.digest,
        pinned: event.pinned,
        previous: event.previous,
        late: event.late,
        occurred_at: Instant(event.occurred_at),
        recorded_at: Instant(event.recorded_at),
        origin: event.origin,
        source: event.source,
        actor: event.actor,
        media_type: event.media_type,
        size: event.size,
    }
}
