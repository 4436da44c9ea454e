//! Delivers the messages of one entry, one after the other.

use std::time::Duration;

use tagtrail_bus::Bus;
use tagtrail_bus::consume::{Delivery, ReadError};
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::Retry;
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::retry::Outcome;
use tagtrail_postgres::within;
use tagtrail_proto::{Position, Rollout, Subject};
use time::OffsetDateTime;

use super::entry::{Entry, Message};
use super::notice::Told;
use crate::connections::Lent;
use crate::error::Error;
use crate::shared::Shared;
use crate::store::notify as store;

/// Interval at which an idle entry looks for rollouts that still fail after a day.
const LOOK: Duration = Duration::from_secs(60);
/// First and longest pause after a failed attempt.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// The consumer of a reader that rests longer may be gone.
const RESTS: Duration = Duration::from_secs(5);
/// Attempts at a message that the receiver calls wrong. The message after it may be good.
const REFUSALS: u32 = 5;
/// The statuses of a wrong message: bad request, too large, unsupported type, not processable.
const WRONG: [i32; 4] = [400, 413, 415, 422];

/// The reason why an entry starts over.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] Error),
    #[error("another process delivers the messages of this entry")]
    Elsewhere,
}

impl From<sqlx::Error> for Ended {
    fn from(error: sqlx::Error) -> Ended {
        Ended::Store(error.into())
    }
}

/// The fate of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    Dropped,
    /// The service stops: the message is delivered after the next start.
    Left,
}

struct Deliverer<'a> {
    shared: &'a Shared,
    bus: &'a Bus,
    entry: &'a Entry,
    /// Attempts in a row that failed.
    failures: u32,
}

/// Delivers the messages of an entry until shutdown.
pub(super) async fn deliver(shared: Shared, bus: Bus, entry: std::sync::Arc<Entry>) {
    let mut retry = Retry::new(format!("reading ROLLOUTS for [[notify]] {}", entry.name));
    let mut deliverer = Deliverer {
        shared: &shared,
        bus: &bus,
        entry: &entry,
        failures: 0,
    };
    shared.metrics.messages.expect(&entry.name);
    loop {
        match deliverer.read().await {
            Ok(()) if shared.shutdown.is_cancelled() => return,
            Ok(()) => {}
            Err(error) => {
                if !retry.wait(&error, &shared.shutdown).await {
                    return;
                }
            }
        }
    }
}

impl Deliverer<'_> {
    /// Reads from the place of the entry on. Returns when the reader must be opened again.
    async fn read(&mut self) -> Result<(), Ended> {
        let mut place = self.place().await?;
        let filters = self.entry.filters();
        let mut reader = self
            .bus
            .read_slowly(Stream::Rollouts, filters, place)
            .await?;
        if reader.restarted_because().is_some() {
            // The place is in a stream that is no more.
            let now = reader.position();
            self.advance(place, now, None).await?;
            place = now;
        }
        loop {
            let delivery = tokio::select! {
                () = self.shared.shutdown.cancelled() => return Ok(()),
                delivery = reader.next() => delivery?,
                () = tokio::time::sleep(LOOK) => {
                    self.tell_again().await?;
                    continue;
                }
            };
            let began = tokio::time::Instant::now();
            let after = reader.position();
            if !self.handle(&delivery, (place, after)).await? || began.elapsed() > RESTS {
                return Ok(());
            }
            place = after;
        }
    }

    /// Returns the place of the entry; of a new entry the end of the stream.
    async fn place(&self) -> Result<Position, Ended> {
        let mut db = self.lend().await?;
        let timeout = self.shared.session_timeout;
        let name = &self.entry.name;
        let place = within(timeout, store::position(&mut db, name)).await?;
        let place = match place {
            Some(place) => place,
            None => {
                let end = self.bus.end_of(Stream::Rollouts).await?;
                within(timeout, store::begin(&mut db, name, end)).await?;
                end
            }
        };
        db.keep();
        Ok(place)
    }

    /// Delivers or drops one message, and moves the place. Returns false if the service stops.
    async fn handle(
        &mut self,
        delivery: &Delivery,
        (before, after): (Position, Position),
    ) -> Result<bool, Ended> {
        let subject: Option<Subject> = delivery.subject.parse().ok();
        if !subject.is_some_and(|subject| self.entry.wants(&subject)) {
            self.advance(before, after, None).await?;
            return Ok(true);
        }
        let told = match Told::read(&delivery.payload) {
            Ok(told) => told,
            Err(why) => {
                let subject = &delivery.subject;
                tracing::warn!("a message on {subject} can't be read, and is dropped: {why}");
                self.shared.metrics.messages.dropped(&self.entry.name);
                self.advance(before, after, None).await?;
                return Ok(true);
            }
        };
        if !self.entry.is_for(&told) {
            self.advance(before, after, None).await?;
            return Ok(true);
        }
        let failed = told.failed_rollout();
        if let Some(rollout) = failed
            && self.knows(rollout).await?
        {
            self.advance(before, after, None).await?;
            return Ok(true);
        }
        let fate = self.send(&told, &delivery.payload).await;
        if fate == Fate::Left {
            return Ok(false);
        }
        FailPoint::NotifyTold.pass();
        let failure = failed.filter(|_| fate == Fate::Sent);
        self.advance(before, after, failure).await?;
        FailPoint::NotifyMoved.pass();
        Ok(true)
    }

    /// Sends the messages about an event, with growing pauses between failed attempts.
    async fn send(&mut self, told: &Told, payload: &[u8]) -> Fate {
        let name = &self.entry.name;
        let messages = match self.entry.messages(told, payload) {
            Ok(messages) => messages,
            Err(why) => {
                tracing::warn!(notify = name, "notify {name}: a message is dropped: {why}");
                self.shared.metrics.messages.dropped(name);
                return Fate::Dropped;
            }
        };
        for message in &messages {
            match self.send_one(message, told.time()).await {
                Fate::Sent => self.shared.metrics.messages.sent(name),
                Fate::Left => return Fate::Left,
                Fate::Dropped => {
                    self.shared.metrics.messages.dropped(name);
                    return Fate::Dropped;
                }
            }
        }
        Fate::Sent
    }

    async fn send_one(&mut self, message: &Message, time: OffsetDateTime) -> Fate {
        let (name, metrics) = (&self.entry.name, &self.shared.metrics.messages);
        let mut refusals = 0;
        loop {
            if OffsetDateTime::now_utc() - time > self.entry.max_age {
                let age = self.entry.max_age;
                tracing::warn!(
                    notify = name,
                    "notify {name}: a message older than {age:?} is dropped"
                );
                return Fate::Dropped;
            }
            let (outcome, status) = self.entry.send(message).await;
            if FailPoint::NotifyAccepted.skipped() {
                return Fate::Sent;
            }
            let Some(error) = outcome.error() else {
                self.failures = 0;
                metrics.failing(name, false);
                return Fate::Sent;
            };
            let after = match &outcome {
                Outcome::Failed { after, .. } => *after,
                _ => None,
            };
            self.failures = self.failures.saturating_add(1);
            metrics.failing(name, true);
            refusals += u32::from(status.is_some_and(|status| WRONG.contains(&status)));
            if refusals >= REFUSALS {
                tracing::warn!(
                    notify = name,
                    "notify {name}: a message is dropped after {refusals} refusals: {error}"
                );
                return Fate::Dropped;
            }
            let pause = self.pause(after);
            tracing::warn!(
                notify = name,
                "notify {name}: {error}; the next attempt follows in {pause:.1?}"
            );
            tokio::select! {
                () = self.shared.shutdown.cancelled() => return Fate::Left,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Returns the pause after a failed attempt: doubled after each, or as long as the receiver
    /// asked for, up to five minutes.
    fn pause(&self, after: Option<Duration>) -> Duration {
        let doubled = FIRST * 2_u32.pow(self.failures.saturating_sub(1).min(10));
        let jitter = rand::random_range(0.75..1.0);
        let pause = doubled.min(LONGEST).mul_f64(jitter);
        pause.max(after.unwrap_or_default().min(LONGEST))
    }

    /// Tells of the rollouts that still fail a day after the last message.
    async fn tell_again(&mut self) -> Result<(), Ended> {
        let failed = tagtrail_config::NotifyOn::Rollout(tagtrail_proto::RolloutState::Failed);
        if !self.entry.on().contains(&failed) {
            return Ok(());
        }
        while let Some(rollout) = self.failing_still().await? {
            let (id, now) = (rollout.id.clone(), OffsetDateTime::now_utc());
            if self.entry.is_of(&rollout.trigger) {
                let mut event = rollout.event(now);
                // Another message than that of the day before.
                event.id = format!("{}/{}", event.id, now.unix_timestamp());
                let payload = serde_json::to_vec(&event).map_err(Error::from)?;
                if self.send(&Told::Rollout(Box::new(event)), &payload).await == Fate::Left {
                    return Ok(());
                }
            }
            let mut db = self.lend().await?;
            let name = &self.entry.name;
            let noted = store::told_again(&mut db, name, &id);
            within(self.shared.session_timeout, noted).await?;
            db.keep();
        }
        Ok(())
    }

    async fn failing_still(&self) -> Result<Option<Rollout>, Ended> {
        let mut db = self.lend().await?;
        let still = store::failing_still(&mut db, &self.entry.name);
        let still = within(self.shared.session_timeout, still).await?;
        db.keep();
        Ok(still)
    }

    async fn knows(&self, rollout: &str) -> Result<bool, Ended> {
        let mut db = self.lend().await?;
        let knows = store::knows(&mut db, &self.entry.name, rollout);
        let knows = within(self.shared.session_timeout, knows).await?;
        db.keep();
        Ok(knows)
    }

    async fn advance(
        &self,
        before: Position,
        after: Position,
        failure: Option<&str>,
    ) -> Result<(), Ended> {
        let mut db = self.lend().await?;
        let moved = store::advance(&mut db, &self.entry.name, (before, after), failure);
        let moved = within(self.shared.session_timeout, moved).await?;
        db.keep();
        match moved {
            true => Ok(()),
            false => Err(Ended::Elsewhere),
        }
    }

    async fn lend(&self) -> Result<Lent<'_>, Error> {
        let connections = &self.shared.connections;
        connections.lend(self.shared.session_timeout).await
    }
}
