//! The task that reads new events for all followers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_condition::changes::{self, Changes};
use tagtrail_daemon::{Retry, until};
use tagtrail_history::recorded;
use tagtrail_postgres::row;
use tokio::time::Instant;

use super::item;
use super::place::{EventKind, Place, Series};
use super::settled::Settled;
use super::{Feed, POLL};
use crate::http::error::Error;

/// Time between two looks for an ordinal that is missing.
const MISSING: Duration = Duration::from_millis(10);
/// Longest event of a change that is kept in memory; followers read a longer one from Postgres.
const LONGEST: usize = 64 * 1024;

/// The task's memory of the last look.
#[derive(Debug, Default)]
struct Tail {
    /// How far the tables are settled. Empty: nobody follows changes.
    tables: BTreeMap<Changes, Settled>,
    /// Somebody follows revisions.
    revisions: bool,
}

impl Feed {
    /// Reads new events while there are followers, until a stop is requested.
    pub(crate) async fn keep(self) -> anyhow::Result<()> {
        let mut retry = Retry::new("reading new events for the live feed");
        let mut tail = Tail::default();
        while !self.shutdown.is_cancelled() {
            let followed = self.revisions.receiver_count() + self.changes.receiver_count();
            let pause = if followed == 0 {
                self.end.send_replace(None);
                tail = Tail::default();
                None
            } else {
                match self.read_on(&mut tail).await {
                    Ok(()) => {
                        retry.succeeded();
                        self.looks.send_modify(|looks| *looks += 1);
                        Some(tail.pause())
                    }
                    Err(error) => Some(retry.failed(&error)),
                }
            };
            let next = pause.map(|pause| Instant::now() + pause);
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = until(next) => {}
                () = self.wake.notified() => {}
            }
        }
        Ok(())
    }

    async fn read_on(&self, tail: &mut Tail) -> Result<(), Error> {
        let read_on = async |db: &mut PgConnection| {
            if self.revisions.receiver_count() > 0 {
                self.read_revisions(db, tail).await?;
            } else if std::mem::take(&mut tail.revisions) {
                self.forget(|kind| kind != EventKind::Revision);
            }
            if self.changes.receiver_count() > 0 {
                for table in [Changes::Rollouts, Changes::Holds, Changes::Conditions] {
                    let settled = tail.tables.entry(table).or_default();
                    self.read_changes(db, table, settled).await?;
                }
            } else if !std::mem::take(&mut tail.tables).is_empty() {
                self.forget(|kind| kind == EventKind::Revision);
            }
            Ok(())
        };
        self.database.ask(read_on).await
    }

    async fn read_revisions(
        &self,
        db: &mut PgConnection,
        tail: &mut Tail,
    ) -> Result<(), sqlx::Error> {
        let end = Place::of_revisions(recorded::ends(db).await?);
        if !tail.revisions {
            tail.revisions = true;
            self.advance(end);
            return Ok(());
        }
        let kinds = [EventKind::Revision].into();
        loop {
            let place = self.end.borrow().clone().unwrap_or_default();
            let ranges = place.until(&end, &kinds);
            if ranges.is_empty() {
                return Ok(());
            }
            let mut read = Place::default();
            for item in item::revisions(db, &ranges).await? {
                read.set(item.series, item.ordinal);
                // An error: the last follower is gone.
                let _ = self.revisions.send(Arc::new(item));
            }
            self.advance(read);
        }
    }

    async fn read_changes(
        &self,
        db: &mut PgConnection,
        table: Changes,
        settled: &mut Settled,
    ) -> Result<(), sqlx::Error> {
        let series = Series::Changes(table);
        if settled.until().is_none() && !settled.doubts() {
            let end = changes::end(db, table).await?;
            let writers = match end.gap {
                Some(_) => changes::writers(db, table).await?,
                None => Default::default(),
            };
            settled.begin(end, writers);
        }
        let over = match settled.doubts() {
            true => settled.reconsider(&changes::writers(db, table).await?),
            false => 0,
        };
        let Some(mut last) = settled.until() else {
            return Ok(());
        };
        self.advance(Place::from([(series, row::unsigned(last))]));
        loop {
            let found = item::changes(db, table, last, i64::MAX).await?;
            let (read, highest) = (found.len(), found.last().map(|one| one.ordinal));
            let taken = settled.take(over, found.iter().map(|one| one.ordinal));
            for item in found.into_iter().take(taken).filter_map(|one| one.item) {
                if item.event.len() <= LONGEST {
                    // An error: the last follower is gone.
                    let _ = self.changes.send(Arc::new(item));
                }
            }
            last = settled.until().unwrap_or(last);
            self.advance(Place::from([(series, row::unsigned(last))]));
            match highest {
                Some(highest) if taken < read => {
                    if !settled.doubts() {
                        settled.doubt(last + 1, highest, changes::writers(db, table).await?);
                    }
                    return Ok(());
                }
                _ if read < changes::PAGE => return Ok(()),
                _ => {}
            }
        }
    }

    /// Moves the end of the feed in these series, and wakes the followers, which read any gap up to
    /// the end from Postgres.
    fn advance(&self, read: Place) {
        self.end.send_if_modified(|end| {
            let mut moved = end.is_none();
            let end = end.get_or_insert_default();
            for (series, ordinal) in read.series() {
                moved |= end.get(series) != Some(ordinal);
                end.set(series, ordinal);
            }
            moved
        });
    }

    /// Leaves out the series of kinds that nobody follows any more.
    fn forget(&self, kinds: impl Fn(EventKind) -> bool) {
        self.end.send_if_modified(|end| {
            end.get_or_insert_default().retain(kinds);
            false
        });
    }
}

impl Tail {
    /// The time until the next look.
    fn pause(&self) -> Duration {
        match self.tables.values().any(Settled::is_brief) {
            true => MISSING,
            false => POLL,
        }
    }
}
