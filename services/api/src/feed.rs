//! The live feed, apart from HTTP: every new revision, and every change of rollouts, holds and
//! conditions, after a given place, once.
//!
//! Followers rely on Postgres alone. The ordinals of a partition have no gap and are committed in
//! order, and those of a table of changes are sent as far as they are settled (`settled.rs`). So a
//! [`Place`] (an ordinal for each of these series) states exactly which events a follower has seen.
//! A task reads new events for all followers and keeps the latest in memory. A follower that is too
//! far behind finds a gap in memory, and reads Postgres by itself. NATS only wakes the feed.

mod item;
mod place;
mod seats;
mod settled;
mod tail;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::{Bus, BusArgs, BusError};
use tagtrail_condition::changes::{self, Changes};
use tagtrail_daemon::{Context, Retry, until};
use tagtrail_history::recorded;
use tagtrail_postgres::row;
use tagtrail_proto::Subject;
use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::http::error::Error;
use crate::quarantine::Quarantine;
pub(crate) use item::{About, Item};
pub(crate) use place::{EventKind, Kinds, Place};
use place::{Range, Series};
use seats::{Seat, Seats};

/// Events of revisions, and of changes, that are kept in memory. Followers that are further behind
/// read Postgres.
const KEPT: usize = 1024;
/// Time between two reads of Postgres while NATS sends nothing.
const POLL: Duration = Duration::from_millis(500);
/// Time-out of the first look at the tables of changes for a follower.
const LOOK: Duration = Duration::from_secs(4);

/// The feed. Clones are cheap and share their state.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    database: Database,
    /// The place up to which events are in memory. `None`: nobody follows, so none are read.
    end: watch::Sender<Option<Place>>,
    revisions: broadcast::Sender<Arc<Item>>,
    changes: broadcast::Sender<Arc<Item>>,
    /// Looks at Postgres so far.
    looks: watch::Sender<u64>,
    seats: Arc<Seats>,
    /// Notified when a follower begins, and when NATS announces an event.
    wake: Arc<Notify>,
    shutdown: CancellationToken,
}

impl Feed {
    pub(crate) fn new(database: Database, shutdown: CancellationToken) -> Feed {
        Feed {
            database,
            end: watch::Sender::new(None),
            revisions: broadcast::Sender::new(KEPT),
            changes: broadcast::Sender::new(KEPT),
            looks: watch::Sender::new(0),
            seats: Arc::default(),
            wake: Arc::default(),
            shutdown,
        }
    }

    /// Wakes the feed when NATS announces a revision or a change of a rollout, while there are
    /// followers. Without NATS the feed is half a second slower. Changes of holds and conditions
    /// come to NATS later than the next look at Postgres.
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
        let mut retry = Retry::new("listening to REVISIONS and ROLLOUTS for the live feed");
        loop {
            let listening = async {
                // Without followers each push would wake this task for nothing.
                let _ = end.wait_for(Option::is_some).await;
                let mut revisions = bus.listen(Subject::ALL_REVISIONS.to_owned()).await?;
                let mut rollouts = bus.listen(Subject::ALL_ROLLOUTS.to_owned()).await?;
                loop {
                    let (message, followed) = tokio::select! {
                        message = revisions.next() => (message, self.revisions.receiver_count()),
                        message = rollouts.next() => (message, self.changes.receiver_count()),
                    };
                    if message.is_none() {
                        break;
                    }
                    if end.borrow().is_none() {
                        return Ok(());
                    }
                    if followed > 0 {
                        self.wake.notify_one();
                    }
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

    /// Starts a follower of these kinds at a place. `token`: the name of the client's token.
    pub(crate) async fn follow(
        &self,
        kinds: Kinds,
        from: Start,
        token: Option<&str>,
    ) -> Result<Follower, Error> {
        let seat = self.seats.take(token)?;
        // Subscribes before looking up the place. So each later event is in memory, or memory has a
        // gap.
        let mut recent = Vec::new();
        if kinds.contains(&EventKind::Revision) {
            recent.push(self.revisions.subscribe());
        }
        let tables: Vec<Changes> = kinds.iter().filter_map(|kind| kind.table()).collect();
        if !tables.is_empty() {
            recent.push(self.changes.subscribe());
        }
        self.wake.notify_one();
        let begins = async |db: &mut PgConnection| {
            let mut place = match kinds.contains(&EventKind::Revision) {
                true => place_of_revisions(db, &from).await?,
                false => Place::default(),
            };
            for table in &tables {
                if let Some(ordinal) = ordinal_of_changes(db, *table, &from).await? {
                    place.set(Series::Changes(*table), ordinal);
                }
            }
            let after = place.get(Series::Changes(Changes::Conditions));
            let deleted = match (&from, after) {
                (Start::After { .. }, Some(after)) => {
                    changes::are_deleted(db, row::signed(after)).await?
                }
                _ => false,
            };
            Ok((place, deleted))
        };
        let (mut place, deleted) = self.database.ask(begins).await?;
        let series: Vec<Series> = tables.into_iter().map(Series::Changes).collect();
        let resumes =
            |series: &Series| matches!(from, Start::After { .. }) && place.get(*series).is_some();
        if !series.iter().all(resumes) {
            let settled = self.look(&series).await?;
            for series in series {
                let settled = settled.of(series);
                let ordinal = match (&from, place.get(series)) {
                    (Start::After { .. }, Some(ordinal)) => ordinal,
                    (_, Some(ordinal)) => ordinal.min(settled),
                    (_, None) => settled,
                };
                place.set(series, ordinal);
            }
        }
        Ok(Follower {
            feed: self.clone(),
            kinds,
            place,
            deleted,
            recent,
            end: self.end.subscribe(),
            ready: Vec::new(),
            retry: Retry::new("reading events for a follower"),
            _seat: seat,
        })
    }

    /// Waits for a look at Postgres, and returns the place up to which these series are settled.
    async fn look(&self, series: &[Series]) -> Result<Place, Error> {
        let mut looks = self.looks.subscribe();
        let look = async {
            while looks.changed().await.is_ok() {
                if let Some(end) = &*self.end.borrow()
                    && series.iter().all(|series| end.get(*series).is_some())
                {
                    return end.clone();
                }
            }
            Place::default()
        };
        self.wake.notify_one();
        let look = tokio::time::timeout(LOOK, look).await;
        look.map_err(|_| Error::TooSlow(LOOK))
    }
}

/// Returns the place at which a follower of revisions starts.
async fn place_of_revisions(db: &mut PgConnection, from: &Start) -> Result<Place, sqlx::Error> {
    match from {
        Start::Since(time) => recorded::before(db, *time).await.map(Place::of_revisions),
        Start::After { kinds, place: last } if kinds.contains(&EventKind::Revision) => {
            // If Postgres was restored from an older copy, the place may lie after the end of
            // history: then the follower continues at the end.
            let end = Place::of_revisions(recorded::ends(db).await?);
            let mut place = Place::default();
            for (series, ordinal) in last.series() {
                if series.kind() == EventKind::Revision {
                    place.set(series, ordinal.min(end.of(series)));
                }
            }
            Ok(place)
        }
        Start::Now | Start::After { .. } => recorded::ends(db).await.map(Place::of_revisions),
    }
}

/// Returns the ordinal after which a follower of a table of changes starts. `None`: with the next
/// change.
async fn ordinal_of_changes(
    db: &mut PgConnection,
    table: Changes,
    from: &Start,
) -> Result<Option<u64>, sqlx::Error> {
    Ok(match from {
        Start::Now => None,
        Start::Since(time) => Some(row::unsigned(changes::before(db, table, *time).await?)),
        Start::After { place, .. } => match place.get(Series::Changes(table)) {
            // As for revisions: Postgres may have been restored.
            Some(ordinal) => {
                let last = changes::end(db, table).await?.last;
                Some(ordinal.min(row::unsigned(last)))
            }
            None => None,
        },
    })
}

/// The place at which a follower starts.
#[derive(Debug)]
pub(crate) enum Start {
    /// After the last recorded event.
    Now,
    /// With the first event recorded at this time or later.
    Since(OffsetDateTime),
    /// After the events of this place, whose follower asked for these kinds. Events of other kinds
    /// start with the next one.
    After { kinds: Kinds, place: Place },
}

/// A client that follows the feed.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Feed,
    kinds: Kinds,
    place: Place,
    /// Changes of conditions between the place at the start and the present may be deleted.
    deleted: bool,
    recent: Vec<broadcast::Receiver<Arc<Item>>>,
    end: watch::Receiver<Option<Place>>,
    /// Events read from Postgres and not returned yet, the next event last.
    ready: Vec<Arc<Item>>,
    retry: Retry,
    _seat: Seat,
}

impl Follower {
    /// Returns the place after the last event that [`Follower::next`] returned.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The kinds of events that the follower receives.
    pub(crate) fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Whether events after the place at which the follower resumed may be deleted. True once.
    pub(crate) fn take_deleted(&mut self) -> bool {
        std::mem::take(&mut self.deleted)
    }

    /// Waits for the next event. `None`: a stop is requested. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Arc<Item>> {
        loop {
            if let Some(item) = self.ready.pop().or_else(|| self.recall()) {
                self.place.set(item.series, item.ordinal);
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

    /// Takes the next event from memory. `None`: memory has no more, or has a gap.
    fn recall(&mut self) -> Option<Arc<Item>> {
        for recent in &mut self.recent {
            loop {
                // Events that were overwritten in memory leave a gap, which `fetch` reads.
                match recent.try_recv() {
                    Ok(item) if self.kinds.contains(&item.kind()) => {
                        let place = self.place.of(item.series);
                        if item.before <= place && place < item.ordinal {
                            return Some(item);
                        }
                    }
                    Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                    Err(_) => break,
                }
            }
        }
        None
    }

    /// Reads from Postgres up to the place of the feed. Returns whether there was an event.
    async fn fetch(&mut self) -> Result<bool, Error> {
        let ranges = match &*self.end.borrow_and_update() {
            Some(end) => self.place.until(end, &self.kinds),
            None => return Ok(false),
        };
        if ranges.is_empty() {
            return Ok(false);
        }
        let database = &self.feed.database;
        let mut found = database
            .ask_large(async |db| read(db, &ranges).await)
            .await?;
        found.reverse();
        self.ready = found;
        Ok(!self.ready.is_empty())
    }
}

/// Reads the next events of these ranges.
async fn read(db: &mut PgConnection, ranges: &[Range]) -> Result<Vec<Arc<Item>>, sqlx::Error> {
    let mut items = item::revisions(db, ranges).await?;
    for range in ranges {
        if let Series::Changes(table) = range.series {
            let (after, until) = (row::signed(range.after), row::signed(range.until));
            let found = item::changes(db, table, after, until).await?;
            items.extend(found.into_iter().filter_map(|one| one.item));
        }
    }
    Ok(items.into_iter().map(Arc::new).collect())
}
