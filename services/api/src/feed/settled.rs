//! How far the ordinals of a table of changes are settled: each of them is visible, or will never
//! be.
//!
//! A follower has one ordinal of each table, so nothing may become visible below it. Where an
//! ordinal is missing below a visible one, the feed waits until the transactions that wrote into
//! the table at that time have ended: they take milliseconds.

use std::collections::BTreeSet;
use std::time::Duration;

use tagtrail_condition::changes::End;
use tokio::time::Instant;

/// The longest wait for the writers before the first follower begins. After it, the follower begins
/// at the missing ordinal, and may receive changes of the moments before.
const BEGINNING: Duration = Duration::from_secs(1);
/// The time in which a missing ordinal is looked for at short intervals.
const SHORT: Duration = Duration::from_secs(1);

/// How far a table is settled.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The last settled ordinal that is visible. `None`: not known yet.
    until: Option<i64>,
    doubt: Option<Doubt>,
}

/// Missing ordinals.
#[derive(Debug)]
struct Doubt {
    /// The first missing ordinal.
    gap: i64,
    /// A visible ordinal above the missing ones.
    below: i64,
    /// The transactions that wrote into the table after the visible ordinals were read.
    writers: BTreeSet<String>,
    since: Instant,
}

impl Settled {
    /// The last settled ordinal. `None`: not known yet.
    pub(super) fn until(&self) -> Option<i64> {
        self.until
    }

    /// Whether ordinals are missing.
    pub(super) fn doubts(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whether ordinals have been missing for a moment only.
    pub(super) fn is_brief(&self) -> bool {
        let doubt = self.doubt.as_ref();
        doubt.is_some_and(|doubt| doubt.since.elapsed() < SHORT)
    }

    /// Takes the end of the table at the first look, and the writers after it.
    pub(super) fn begin(&mut self, end: End, writers: BTreeSet<String>) {
        match end.gap {
            Some(gap) if !writers.is_empty() => self.doubt(gap, end.last, writers),
            _ => self.until = Some(end.last),
        }
    }

    /// Notes that ordinals are missing, from `gap` on and below the visible ordinal `below`.
    pub(super) fn doubt(&mut self, gap: i64, below: i64, writers: BTreeSet<String>) {
        self.doubt = Some(Doubt {
            gap,
            below,
            writers,
            since: Instant::now(),
        });
    }

    /// Takes the present writers. Returns the ordinal below which those that are still missing when
    /// the table is read next will never come; 0 if there is none.
    pub(super) fn reconsider(&mut self, writers: &BTreeSet<String>) -> i64 {
        let Some(doubt) = &self.doubt else { return 0 };
        let (gap, below) = (doubt.gap, doubt.below);
        if doubt.writers.is_disjoint(writers) {
            self.until.get_or_insert(below);
            self.doubt = None;
            return below;
        }
        if self.until.is_none() && doubt.since.elapsed() >= BEGINNING {
            self.until = Some(gap - 1);
            self.doubt = None;
        }
        0
    }

    /// Takes the ordinals above the settled ones. Those missing below `over` will never come.
    /// Returns the number of the first ordinals that are settled now.
    pub(super) fn take(&mut self, over: i64, ordinals: impl Iterator<Item = i64>) -> usize {
        let mut taken = 0;
        for ordinal in ordinals {
            let next = self.until.map_or(1, |until| until + 1);
            if ordinal != next && ordinal > over {
                break;
            }
            self.until = Some(ordinal);
            taken += 1;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writers(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn begun(last: i64) -> Settled {
        let mut settled = Settled::default();
        settled.begin(End { last, gap: None }, writers(&["3/1"]));
        assert_eq!(settled.until(), Some(last));
        settled
    }

    #[test]
    fn ordinals_are_settled_up_to_the_first_missing_one() {
        let mut settled = begun(4);
        assert_eq!(settled.take(0, [5, 6, 8, 9].into_iter()), 2);
        assert_eq!(settled.until(), Some(6));
        settled.doubt(7, 9, writers(&["3/1", "4/2"]));
        // One of the writers is still at work: 7 may come.
        let over = settled.reconsider(&writers(&["4/2", "5/1"]));
        assert_eq!((over, settled.take(over, [8, 9].into_iter())), (0, 0));
        assert!(settled.doubts());
        // It came.
        let over = settled.reconsider(&writers(&["5/1"]));
        assert_eq!(over, 9);
        assert_eq!(settled.take(over, [7, 8, 9, 11].into_iter()), 3);
        assert_eq!(settled.until(), Some(9));
    }

    #[test]
    fn a_missing_ordinal_is_given_up_after_its_writers_have_ended() {
        let mut settled = begun(4);
        assert_eq!(settled.take(0, [6].into_iter()), 0);
        settled.doubt(5, 6, writers(&["3/1"]));
        let over = settled.reconsider(&writers(&[]));
        // A new gap above is another matter.
        assert_eq!(settled.take(over, [6, 8].into_iter()), 1);
        assert_eq!(settled.until(), Some(6));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_follower_waits_for_writers_below_the_end_but_not_for_long() {
        let (mut long, end) = (
            Settled::default(),
            End {
                last: 9,
                gap: Some(7),
            },
        );
        long.begin(end, writers(&["3/1"]));
        assert_eq!(long.reconsider(&writers(&["3/1"])), 0);
        assert_eq!(long.until(), None);
        tokio::time::advance(BEGINNING).await;
        long.reconsider(&writers(&["3/1"]));
        assert_eq!(long.until(), Some(6));
        let mut short = Settled::default();
        short.begin(end, writers(&["3/1"]));
        short.reconsider(&writers(&["4/1"]));
        assert_eq!(short.until(), Some(9));
        // Gaps of old failures delay nobody.
        let mut quiet = Settled::default();
        quiet.begin(end, writers(&[]));
        assert_eq!(quiet.until(), Some(9));
    }
}
