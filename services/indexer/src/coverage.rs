//! Counts changes by the way in which they became known, for the coverage report, and by day
//! (`days.rs`). The instance that holds the lock does it for all, behind the recording of pushes,
//! which it never delays.
//!
//! Revisions are read by their ordinals, which have no gap. Pushes are read by their row ids, which
//! may become visible out of order; see [`Horizon`]. The position moves in the transaction that
//! changes the numbers, so nothing is counted twice or passed over. An upgrade from a version
//! without numbers, or a restored backup, counts from its own position on, in bounded batches.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_daemon::Progress;
use tagtrail_history::recorded::{self, OrdinalRange};
use tagtrail_postgres::{DbArgs, Lock, within};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::days;
use crate::error::Error;
use crate::shared::Shared;
use crate::store::coverage::{self as store, LastEvent, Moment, PushRange, Recount};

/// Most revisions of a batch, of all partitions together. The statements read at most as many
/// pushes, and as many revisions of one partition.
const BATCH: u64 = 1000;
/// The time for which a turn that found nothing left counts, if nothing comes.
const LASTS: Duration = Duration::from_secs(60);
/// Time-out of a batch, which takes a fraction of a second.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Counts until a stop is requested. After an error the work starts over from the position.
pub(crate) async fn coverage(db: DbArgs, shared: Shared) -> anyhow::Result<()> {
    shared
        .repeat("counting changes for the coverage report", || {
            hold(&db, &shared)
        })
        .await;
    Ok(())
}

/// Waits for the lock, and counts until an error.
async fn hold(db: &DbArgs, shared: &Shared) -> Result<Infallible, Error> {
    let mut db = shared.session(db, "coverage", Lock::Coverage).await?;
    shared.within(store::prepare(&mut db)).await?;
    let turn = shared.turn();
    let (mut horizon, mut progress) = (Horizon::default(), None);
    let mut done: Option<Done> = None;
    loop {
        horizon.pass(shared.within(store::moment(&mut db)).await?);
        let ends = shared.within(recorded::ends(&mut db)).await?;
        let started = Instant::now();
        let settled = horizon.settled;
        if done
            .as_ref()
            .is_some_and(|done| done.is_up_to(settled, &ends, started))
        {
            tokio::time::sleep(turn).await;
            continue;
        }
        let left = within(TIMEOUT, count(&mut db, settled)).await?;
        let more = left.is_some() | within(TIMEOUT, days::count(&mut db)).await?;
        match left {
            Some((counted, total)) => progress
                .get_or_insert_with(|| Progress::of_service("counting changes", "changes"))
                .set(counted, total),
            None => progress = None,
        }
        if !more {
            done = Some(Done {
                settled,
                ends,
                at: started,
            });
        }
        // A backlog takes at most half of the time of one core of Postgres.
        let pause = if more {
            started.elapsed().min(turn)
        } else {
            turn
        };
        tokio::time::sleep(pause).await;
    }
}

/// A turn that found nothing left to count.
#[derive(Debug)]
struct Done {
    /// Row id of the last settled push.
    settled: i64,
    /// The last ordinal of each partition.
    ends: Vec<(u16, u64)>,
    at: Instant,
}

impl Done {
    /// Returns whether nothing has come since. A migration may set the numbers back, so this holds
    /// for a minute.
    fn is_up_to(&self, settled: i64, ends: &[(u16, u64)], now: Instant) -> bool {
        self.settled == settled && self.ends == ends && now - self.at < LASTS
    }
}

/// The pushes of which no earlier one can still appear. A push gets its row id before its
/// transaction commits, so a later id may be visible first. Once every transaction of a moment has
/// ended, the ids up to the last visible one of that moment are all there, or never will be.
#[derive(Debug, Default)]
struct Horizon {
    /// Row id of the last such push.
    settled: i64,
    /// The moment whose transactions may still run.
    waiting: Option<Moment>,
}

impl Horizon {
    fn pass(&mut self, now: Moment) {
        match self.waiting {
            Some(then) if now.oldest < then.next => {}
            then => {
                self.settled = then.map_or(self.settled, |then| then.last_push);
                self.waiting = Some(now);
            }
        }
    }
}

/// Counts a batch: revisions, and pushes up to `settled`. If more are waiting, returns the number
/// of counted revisions and of all revisions.
async fn count(db: &mut PgConnection, settled: i64) -> Result<Option<(u64, u64)>, sqlx::Error> {
    // One snapshot for all statements.
    let mut tx = db
        .begin_with("begin isolation level repeatable read")
        .await?;
    let counted = store::counted(&mut tx).await?;
    let ends = recorded::ends(&mut tx).await?;
    let total = ends.iter().map(|(_, end)| end).sum();
    let of = |partition| counted.revisions.get(&partition).copied().unwrap_or(0);
    let waiting = ends
        .into_iter()
        .map(|(partition, end)| OrdinalRange {
            partition,
            after: of(partition),
            until: end,
        })
        .collect();
    let (ranges, more_revisions) = share(waiting);
    let waiting = PushRange {
        after: counted.push,
        last: settled.max(counted.push),
    };
    let pushes = store::next_pushes(&mut tx, waiting).await?;
    if pushes.after == pushes.last && ranges.iter().all(|range| range.after >= range.until) {
        tx.rollback().await?;
        return Ok(None);
    }
    let recounts = store::recounts(&mut tx, &ranges, pushes).await?;
    let mut numbers = Numbers::default();
    for recount in &recounts {
        numbers.recount(recount);
    }
    for event in store::last_events(&mut tx, pushes).await? {
        numbers.event(&event);
    }
    store::add(&mut tx, &numbers).await?;
    store::keep(&mut tx, &recounts).await?;
    store::advance(&mut tx, &ranges, pushes.last).await?;
    tx.commit().await?;
    let more = more_revisions || pushes.last < waiting.last;
    Ok(more.then(|| (ranges.iter().map(|range| range.until).sum(), total)))
}

/// Cuts the ranges of all partitions to one batch, to which each partition with a backlog
/// contributes. Returns whether something is left.
pub(crate) fn share(mut ranges: Vec<OrdinalRange>) -> (Vec<OrdinalRange>, bool) {
    let behind = ranges.iter().filter(|range| range.after < range.until);
    let each = (BATCH / (behind.count() as u64).max(1)).max(1);
    let mut more = false;
    for range in &mut ranges {
        more |= range.until.saturating_sub(range.after) > each;
        // A position after the end stays: history came from an older backup than the numbers.
        range.until = range.until.max(range.after).min(range.after + each);
    }
    (ranges, more)
}

/// The way in which a change became known: a column of `coverage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Event,
    Resolved,
    Observed,
    Reconciled,
    Reordered,
    Imported,
    /// Any way: the tag holds signatures.
    Signature,
}

impl Way {
    const ALL: [Way; 7] = [
        Way::Event,
        Way::Resolved,
        Way::Observed,
        Way::Reconciled,
        Way::Reordered,
        Way::Imported,
        Way::Signature,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Way::Event => "event",
            Way::Resolved => "resolved",
            Way::Observed => "observed",
            Way::Reconciled => "reconciled",
            Way::Reordered => "reordered",
            Way::Imported => "imported",
            Way::Signature => "signatures",
        }
    }
}

impl FromStr for Way {
    type Err = ();

    fn from_str(text: &str) -> Result<Way, ()> {
        let found = Way::ALL.into_iter().find(|way| way.as_str() == text);
        found.ok_or(())
    }
}

/// Differences to the numbers of the report.
#[derive(Debug, Default)]
pub(crate) struct Numbers(BTreeMap<Key, Difference>);

/// A row of the report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) period: &'static str,
    pub(crate) starts_at: OffsetDateTime,
    pub(crate) registry: String,
    pub(crate) source: String,
}

/// The difference to a row.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// By [`Way::ALL`].
    changes: [i64; Way::ALL.len()],
    pub(crate) last_event_at: Option<OffsetDateTime>,
}

impl Difference {
    /// Returns the difference of changes that became known in this way.
    pub(crate) fn of(&self, way: Way) -> i64 {
        self.changes[way as usize]
    }
}

impl Numbers {
    /// Returns the rows with a difference.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Key, &Difference)> {
        self.0.iter()
    }

    fn recount(&mut self, recount: &Recount) {
        let (registry, source) = (&recount.registry, &recount.source);
        self.change(registry, source, recount.hour, |row| {
            if let Some(before) = recount.before {
                row.changes[before as usize] -= 1;
            }
            if let Some(after) = recount.after {
                row.changes[after as usize] += 1;
            }
        });
    }

    fn event(&mut self, event: &LastEvent) {
        self.change(&event.registry, &event.source, event.hour, |row| {
            row.last_event_at = row.last_event_at.max(Some(event.at));
        });
    }

    /// Changes the rows of an hour and of its day.
    fn change(
        &mut self,
        registry: &str,
        source: &str,
        hour: OffsetDateTime,
        change: impl Fn(&mut Difference),
    ) {
        for (period, starts_at) in [("hour", hour), ("day", hour.truncate_to_day())] {
            let key = Key {
                period,
                starts_at,
                registry: registry.to_owned(),
                source: source.to_owned(),
            };
            change(self.0.entry(key).or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(oldest: i64, next: i64, last_push: i64) -> Moment {
        Moment {
            oldest,
            next,
            last_push,
        }
    }

    #[test]
    fn pushes_are_settled_once_the_transactions_of_their_moment_have_ended() {
        let mut horizon = Horizon::default();
        // Transaction 10 is running, and may hold an id below 7.
        horizon.pass(moment(10, 12, 7));
        assert_eq!(horizon.settled, 0);
        // 11 ended, 10 did not.
        horizon.pass(moment(10, 14, 9));
        assert_eq!(horizon.settled, 0);
        horizon.pass(moment(12, 15, 11));
        assert_eq!(horizon.settled, 7);
        horizon.pass(moment(14, 15, 11));
        assert_eq!(horizon.settled, 7);
        horizon.pass(moment(15, 15, 11));
        assert_eq!(horizon.settled, 11);
    }

    #[test]
    fn every_partition_with_a_backlog_gets_a_share_of_a_batch() {
        let range = |partition, after, until| OrdinalRange {
            partition,
            after,
            until,
        };
        let (ranges, more) = share(vec![range(0, 5, 5), range(1, 0, 9000), range(2, 7, 9)]);
        assert_eq!(ranges, [range(0, 5, 5), range(1, 0, 500), range(2, 7, 9)]);
        assert!(more);
        let (ranges, more) = share(vec![range(0, 9, 5), range(1, 8600, 9000)]);
        assert_eq!(ranges, [range(0, 9, 9), range(1, 8600, 9000)]);
        assert!(!more);
    }

    #[test]
    fn a_change_counted_otherwise_moves_between_columns_of_its_hour_and_day() {
        let hour = OffsetDateTime::from_unix_timestamp(1_772_546_400).unwrap();
        let recount = |before, after| Recount {
            tag_id: 1,
            effective_at: hour,
            number: 1,
            registry: "r.example.com".to_owned(),
            source: "main".to_owned(),
            hour,
            before,
            after,
            kept: true,
        };
        let mut numbers = Numbers::default();
        numbers.recount(&recount(None, Some(Way::Reconciled)));
        numbers.recount(&recount(Some(Way::Reconciled), Some(Way::Event)));
        numbers.recount(&recount(Some(Way::Event), None));
        numbers.recount(&recount(None, Some(Way::Imported)));
        let rows: Vec<_> = numbers.rows().collect();
        assert_eq!(rows.len(), 2);
        for (key, row) in rows {
            assert!(key.period == "hour" || key.starts_at == hour.truncate_to_day());
            let sum: i64 = row.changes.iter().sum();
            assert_eq!((row.of(Way::Imported), sum), (1, 1), "{key:?}");
        }
    }
}
