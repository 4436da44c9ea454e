//! The live feed, apart from HTTP: every new revision after a given place, once.
//!
//! Followers rely on Postgres alone. The ordinals of a partition have no gap and are committed in
//! order, so a [`Place`] (an ordinal for each partition) states exactly which revisions a follower
//! has seen. A task reads new revisions for all followers and keeps the latest in memory. A
//! follower that is too far behind finds a gap in memory, and reads Postgres by itself. NATS only
//! wakes the feed.

mod seats;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::{Bus, BusArgs, BusError};
use tagtrail_daemon::{Context, Retry, until};
use tagtrail_history::recorded::{self, OrdinalRange};
use tagtrail_proto::{Image, Revision, Subject};
use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::http::error::Error;
use crate::quarantine::Quarantine;
use seats::{Seat, Seats};

/// Revisions kept in memory. Followers that are further behind read Postgres.
const KEPT: usize = 1024;
/// Time between two reads of Postgres while NATS sends nothing.
const POLL: Duration = Duration::from_millis(500);

/// The place of a follower in the feed: of each partition the last ordinal seen, or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place(BTreeMap<u16, u64>);

impl Place {
    fn of(&self, partition: u16) -> u64 {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// Returns the ordinals between this place and a later place.
    fn until(&self, end: &Place) -> Vec<OrdinalRange> {
        let range = |(partition, until): (&u16, &u64)| OrdinalRange {
            partition: *partition,
            after: self.of(*partition),
            until: *until,
        };
        let ranges = end.0.iter().map(range);
        ranges.filter(|range| range.after < range.until).collect()
    }

    /// Writes the place as `partition:ordinal`, separated by commas.
    pub(crate) fn text(&self) -> String {
        let parts = self
            .0
            .iter()
            .map(|(partition, ordinal)| format!("{partition}:{ordinal}"));
        parts.collect::<Vec<_>>().join(",")
    }

    /// Reads a place that [`Place::text`] wrote.
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

/// A revision for followers.
#[derive(Debug)]
pub(crate) struct Item {
    partition: u16,
    ordinal: u64,
    pub(crate) image: Image,
    /// The `CloudEvent` on the bus, as JSON.
    pub(crate) event: String,
}

impl Item {
    fn new(partition: u16, ordinal: u64, revision: Revision) -> Item {
        let image = revision.image();
        // Serialising fails only for maps with keys other than strings; an event has no map.
        let event = serde_json::to_string(&revision.event()).unwrap_or_default();
        Item {
            partition,
            ordinal,
            image,
            event,
        }
    }
}

/// The feed. Clones are cheap and share their state.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    database: Database,
    /// The place up to which revisions are in memory. `None`: nobody follows, so none are read.
    end: watch::Sender<Option<Place>>,
    recent: broadcast::Sender<Arc<Item>>,
    seats: Arc<Seats>,
    /// Notified when a follower begins, and when NATS announces a revision.
    wake: Arc<Notify>,
    shutdown: CancellationToken,
}

impl Feed {
    pub(crate) fn new(database: Database, shutdown: CancellationToken) -> Feed {
        Feed {
            database,
            end: watch::Sender::new(None),
            recent: broadcast::Sender::new(KEPT),
            seats: Arc::default(),
            wake: Arc::default(),
            shutdown,
        }
    }

    /// Reads new revisions while there are followers, until a stop is requested.
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
                    // An error: the last follower is gone.
                    let _ = self.recent.send(Arc::new(item));
                }
                // Wakes the followers, which read any gap up to this place from Postgres.
                self.end.send_replace(Some(place.clone()));
            }
            Ok(())
        };
        self.database.ask(read_on).await
    }

    /// Wakes the feed when NATS announces a revision, while there are followers. Without NATS the
    /// feed is half a second slower.
    pub(crate) async fn listen(
        self,
        args: BusArgs,
        ctx: Context,
        quarantine: Quarantine,
    ) -> anyhow::Result<()> {
        let bus = match Bus::observe(&args, "api", &ctx.shutdown).await {
            Err(BusError::Stopped) => return Ok(()),
            connected => connected?,
        };
        quarantine.set(&bus);
        let mut end = self.end.subscribe();
        let mut retry = Retry::new("listening to REVISIONS for the live feed");
        loop {
            let listening = async {
                // Without followers each push would wake this task for nothing.
                let _ = end.wait_for(Option::is_some).await;
                let mut revisions = bus.listen(Subject::ALL_REVISIONS.to_owned()).await?;
                while revisions.next().await.is_some() {
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

    /// Starts a follower at a place. `token`: the name of the client's token.
    pub(crate) async fn follow(&self, from: Start, token: Option<&str>) -> Result<Follower, Error> {
        let seat = self.seats.take(token)?;
        // Subscribes before looking up the place. So each later revision is in memory, or memory
        // has a gap.
        let recent = self.recent.subscribe();
        self.wake.notify_one();
        let find_place = async |db: &mut PgConnection| match from {
            Start::Now => Ok(recorded::ends(db).await?.into_iter().collect()),
            Start::Since(time) => Ok(recorded::before(db, time).await?.into_iter().collect()),
            Start::After(place) => {
                // If Postgres was restored from an older copy, the place may lie after the end of
                // history: then the follower continues at the end.
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
            _seat: seat,
        })
    }
}

/// The place at which a follower starts.
#[derive(Debug)]
pub(crate) enum Start {
    /// After the last recorded revision.
    Now,
    /// With the first revision recorded at this time or later.
    Since(OffsetDateTime),
    /// After the revisions of this place.
    After(Place),
}

/// A client that follows the feed.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Feed,
    place: Place,
    recent: broadcast::Receiver<Arc<Item>>,
    end: watch::Receiver<Option<Place>>,
    /// Revisions read from Postgres and not returned yet, the next revision last.
    ready: Vec<Arc<Item>>,
    retry: Retry,
    _seat: Seat,
}

impl Follower {
    /// Returns the place after the last revision that [`Follower::next`] returned.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Waits for the next revision. `None`: a stop is requested. Cancel safe.
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

    /// Takes the next revision from memory. `None`: memory has no more, or has a gap.
    fn recall(&mut self) -> Option<Arc<Item>> {
        loop {
            // Revisions that were overwritten in memory leave a gap, which `fetch` reads.
            match self.recent.try_recv() {
                Ok(item) if item.ordinal == self.place.of(item.partition) + 1 => return Some(item),
                Ok(item) if item.ordinal <= self.place.of(item.partition) => {}
                Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return None,
            }
        }
    }

    /// Reads from Postgres up to the place of the feed. Returns whether there was a revision.
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
            .ask_large(async |db| recorded::revisions(db, &ranges).await)
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
    fn a_place_survives_writing_and_reading() {
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
    fn the_ranges_between_two_places_are_by_partition() {
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
