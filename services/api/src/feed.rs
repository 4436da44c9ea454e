//! The live feed, apart from HTTP: revisions as they are recorded, from any place on, each once, with nothing left out.
//!
//! The truth is in Postgres: the ordinals of a partition have no gap and are committed in order, so a [`Place`] (one ordinal a
//! partition) says exactly what a follower has seen. One task reads what is new once for all followers and keeps the last of
//! it in memory; a follower that finds a gap there, because it is far behind, reads Postgres by itself. NATS only says when
//! to look.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::{Bus, BusArgs, BusError};
use tagtrail_daemon::{Context, Retry, until};
use tagtrail_history::recorded::{self, OrdinalRange};
use tagtrail_proto::{Image, Revision, Subject};
use time::OffsetDateTime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::http::error::Error;

/// Revisions kept in memory for followers: those that are further behind read Postgres.
const KEPT: usize = 1024;
/// Followers at once.
const FOLLOWERS: usize = 256;
/// How often Postgres is asked when NATS says nothing.
const POLL: Duration = Duration::from_millis(500);

/// How far a follower has seen: the last ordinal of each partition; 0 where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place(BTreeMap<u16, u64>);

impl Place {
    fn of(&self, partition: u16) -> u64 {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// What lies between this place and a later one.
    fn until(&self, end: &Place) -> Vec<OrdinalRange> {
        let range = |(partition, until): (&u16, &u64)| OrdinalRange {
            partition: *partition,
            after: self.of(*partition),
            until: *until,
        };
        let ranges = end.0.iter().map(range);
        ranges.filter(|range| range.after < range.until).collect()
    }

    /// `partition:ordinal`, separated by commas.
    pub(crate) fn text(&self) -> String {
        let parts = self
            .0
            .iter()
            .map(|(partition, ordinal)| format!("{partition}:{ordinal}"));
        parts.collect::<Vec<_>>().join(",")
    }

    /// The inverse.
    pub(crate) fn parse(text: &str) -> Option<Place> {
        if text.is_empty() {
            return Some(Place::default());
        }
        let part = |part: &str| {
            let (partition, ordinal) = part.split_once(':')?;
            let ordinal: u64 = ordinal.parse().ok()?;
            Some((
                partition.parse().ok()?,
                i64::try_from(ordinal).ok()?.unsigned_abs(),
            ))
        };
        text.split(',').map(part).collect::<Option<_>>().map(Place)
    }
}

impl FromIterator<(u16, u64)> for Place {
    fn from_iter<I: IntoIterator<Item = (u16, u64)>>(ends: I) -> Place {
        Place(ends.into_iter().collect())
    }
}

/// One revision as it is shown.
#[derive(Debug)]
pub(crate) struct Item {
    partition: u16,
    ordinal: u64,
    pub(crate) image: Image,
    /// Its `CloudEvent`, as on the bus.
    pub(crate) event: String,
}

impl Item {
    fn new(partition: u16, ordinal: u64, revision: Revision) -> Item {
        let image = revision.image();
        // It is JSON of our own making, without a map in it that could fail.
        let event = serde_json::to_string(&revision.event()).unwrap_or_default();
        Item {
            partition,
            ordinal,
            image,
            event,
        }
    }
}

/// The feed. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    database: Database,
    /// How far everything was read that is in memory. `None`: nothing was read yet.
    end: watch::Sender<Option<Place>>,
    recent: broadcast::Sender<Arc<Item>>,
    followers: Arc<Semaphore>,
    /// Somebody began to follow, or NATS has news.
    wake: Arc<Notify>,
    shutdown: CancellationToken,
}

impl Feed {
    pub(crate) fn new(database: Database, shutdown: CancellationToken) -> Feed {
        Feed {
            database,
            end: watch::Sender::new(None),
            recent: broadcast::Sender::new(KEPT),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            wake: Arc::default(),
            shutdown,
        }
    }

    /// Reads what is new while anybody follows, until a stop is asked for.
    pub(crate) async fn keep(self) -> anyhow::Result<()> {
        let mut retry = Retry::new("reading new revisions for the live feed");
        while !self.shutdown.is_cancelled() {
            let pause = if self.recent.receiver_count() == 0 {
                self.end.send_replace(None);
                None
            } else {
                match self.read_on().await {
                    Ok(()) => {
                        retry.succeeded();
                        Some(POLL)
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

    async fn read_on(&self) -> Result<(), Error> {
        let read_on = async |db: &mut PgConnection| {
            let end: Place = recorded::ends(db).await?.into_iter().collect();
            let Some(mut place) = self.end.borrow().clone() else {
                self.end.send_replace(Some(end));
                return Ok(());
            };
            while !place.until(&end).is_empty() {
                for (partition, revision) in recorded::revisions(db, &place.until(&end)).await? {
                    place.0.insert(partition, revision.ordinal);
                    let item = Item::new(partition, revision.ordinal, revision.event);
                    let _ = self.recent.send(Arc::new(item)); // Nobody may be left.
                }
                // Followers read what they miss up to here.
                self.end.send_replace(Some(place.clone()));
            }
            Ok(())
        };
        self.database.ask(read_on).await
    }

    /// Wakes the feed when NATS has news, while anybody follows. Without NATS the feed is half a second slower.
    pub(crate) async fn listen(self, args: BusArgs, ctx: Context) -> anyhow::Result<()> {
        let bus = match Bus::observe(&args, "api", &ctx.shutdown).await {
            Err(BusError::Stopped) => return Ok(()),
            connected => connected?,
        };
        let mut end = self.end.subscribe();
        let mut retry = Retry::new("listening to REVISIONS for the live feed");
        loop {
            let listening = async {
                // Nobody follows: each push would wake us for nothing.
                let _ = end.wait_for(Option::is_some).await;
                let mut news = bus.listen(Subject::ALL_REVISIONS.to_owned()).await?;
                while news.next().await.is_some() {
                    if end.borrow().is_none() {
                        return Ok(());
                    }
                    self.wake.notify_one();
                }
                Err(BusError::Unreachable("the subscription ended".to_owned()))
            };
            let outcome = tokio::select! {
                () = ctx.shutdown.cancelled() => return Ok(()),
                outcome = listening => outcome,
            };
            match outcome {
                Ok(()) => retry.succeeded(),
                Err(error) => {
                    if !retry.wait(&error, &ctx.shutdown).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Follows from a place on.
    pub(crate) async fn follow(&self, from: Start) -> Result<Follower, Error> {
        let permit = Arc::clone(&self.followers)
            .try_acquire_owned()
            .map_err(|_| Error::TooManyFollowers)?;
        // Before the place is looked up: whatever is recorded after it is either in memory or found missing there.
        let recent = self.recent.subscribe();
        self.wake.notify_one();
        let find_place = async |db: &mut PgConnection| match from {
            Start::Now => Ok(recorded::ends(db).await?.into_iter().collect()),
            Start::Since(time) => Ok(recorded::before(db, time).await?.into_iter().collect()),
            Start::After(place) => {
                // Where Postgres was restored from an older copy, what comes next counts from its end.
                let end: Place = recorded::ends(db).await?.into_iter().collect();
                let known =
                    |(partition, ordinal): (u16, u64)| (partition, ordinal.min(end.of(partition)));
                Ok(place.0.into_iter().map(known).collect())
            }
        };
        let place = self.database.ask(find_place).await?;
        Ok(Follower {
            feed: self.clone(),
            place,
            recent,
            end: self.end.subscribe(),
            ready: Vec::new(),
            retry: Retry::new("reading revisions for a follower"),
            _permit: permit,
        })
    }
}

/// Where to begin.
#[derive(Debug)]
pub(crate) enum Start {
    Now,
    /// With what was recorded at that time or later.
    Since(OffsetDateTime),
    After(Place),
}

/// Somebody who follows.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Feed,
    place: Place,
    recent: broadcast::Receiver<Arc<Item>>,
    end: watch::Receiver<Option<Place>>,
    /// Read from Postgres and not shown yet, the next one last.
    ready: Vec<Arc<Item>>,
    retry: Retry,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// Where it is: after the last revision that [`Follower::next`] gave.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The next revision. `None`: a stop was asked for. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Arc<Item>> {
        loop {
            if let Some(item) = self.ready.pop().or_else(|| self.recall()) {
                self.place.0.insert(item.partition, item.ordinal);
                return Some(item);
            }
            let next_attempt = match self.fetch().await {
                Ok(true) => {
                    self.retry.succeeded();
                    continue;
                }
                Ok(false) => None,
                Err(error) => {
                    // The task that reads for all followers warns.
                    tracing::debug!("a follower waits for Postgres: {error}");
                    Some(Instant::now() + self.retry.pause())
                }
            };
            tokio::select! {
                () = self.feed.shutdown.cancelled() => return None,
                () = until(next_attempt) => {}
                changed = self.end.changed(), if next_attempt.is_none() => if changed.is_err() { return None },
            }
        }
    }

    /// The next one of those in memory that was not shown; `None` if there is none, or one before it is missing there.
    fn recall(&mut self) -> Option<Arc<Item>> {
        loop {
            // Those that were overwritten are missing, and will be found to be.
            match self.recent.try_recv() {
                Ok(item) if item.ordinal == self.place.of(item.partition) + 1 => return Some(item),
                Ok(item) if item.ordinal <= self.place.of(item.partition) => {}
                Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return None,
            }
        }
    }

    /// Reads what lies before the end that is known. Says whether there was anything.
    async fn fetch(&mut self) -> Result<bool, Error> {
        let ranges = match &*self.end.borrow_and_update() {
            Some(end) => self.place.until(end),
            None => return Ok(false),
        };
        if ranges.is_empty() {
            return Ok(false);
        }
        let database = &self.feed.database;
        let found = database
            .ask(async |db| recorded::revisions(db, &ranges).await)
            .await?;
        let items = found.into_iter().rev();
        self.ready = items
            .map(|(partition, found)| Arc::new(Item::new(partition, found.ordinal, found.event)))
            .collect();
        Ok(!self.ready.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::parse(text).unwrap()
    }

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for text in ["", "0:1", "0:17,3:4,255:9223372036854775807"] {
            assert_eq!(place(text).text(), text);
        }
        for wrong in [
            "0",
            "0:",
            ":1",
            "0:-1",
            "0:9223372036854775808",
            "65536:1",
            "0:1,",
            "a:1",
        ] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_lies_between_two_places_is_known_by_partition() {
        let ranges = place("0:5,1:7").until(&place("0:9,1:7,2:3"));
        let range = |partition, after, until| OrdinalRange {
            partition,
            after,
            until,
        };
        assert_eq!(ranges, [range(0, 5, 9), range(2, 0, 3)]);
        assert_eq!(place("0:9").until(&place("0:5")), []);
    }
}
