//! Reads the pushes of a partition from its stream, and moves to the next stream.
//!
//! A stream that gave the partition up takes no more of its pushes, once the server has stored
//! those in its queue. Such a stream is read to its end, then the stream that has taken the pushes
//! since.

use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::Bus;
use tagtrail_bus::consume::{Position, Reader};
use tagtrail_bus::publish::Message;
use tagtrail_bus::topology::Stream;
use tagtrail_proto::{Digest, Name, Quarantined, Subject};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::Error;
use crate::received::ReceivedPush;
use crate::shared::Shared;
use crate::store::position::{self, Progress};

/// Interval at which a reader looks for the end of a stream.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait of a publisher for its acknowledgement. nats-server takes pushes into a queue
/// before it stores them, and stores them also if their subject has moved meanwhile: 5,000 were
/// seen. The sender of a push that is stored later has given up, and sends the push again, to the
/// next stream.
const QUEUED: Duration = Duration::from_secs(10);

/// Returns the stream that takes the pushes of a partition, if that is not the one that is read.
pub(crate) async fn next(
    shared: &Shared,
    number: u16,
    source: Stream,
) -> Result<Option<Stream>, Error> {
    if is_last(shared, number, source) {
        return Ok(None);
    }
    // Another instance may have seen a later move, and have moved on already.
    let present = shared.bus.present_layout().await?;
    Ok(present.owner(number).filter(|owner| *owner != source))
}

/// Returns whether the stream is the last one that has pushes of the partition, as far as this
/// process knows.
pub(crate) fn is_last(shared: &Shared, number: u16, source: Stream) -> bool {
    let owner = shared.bus.layout().owner(number);
    owner.is_none_or(|owner| owner == source)
}

/// The end of a stream that gives a partition up.
#[derive(Debug, Default)]
struct End {
    /// The time at which the partition was first seen in another stream.
    moved: Option<Instant>,
}

impl End {
    /// Returns whether the stream gets no more pushes of the partition, and is read to its end.
    async fn is_reached(
        &mut self,
        shared: &Shared,
        number: u16,
        reader: &Reader,
    ) -> Result<bool, Error> {
        let source = reader.stream();
        if self.moved.is_some_and(|moved| moved.elapsed() < QUEUED) {
            return Ok(false);
        }
        if next(shared, number, source).await?.is_none() {
            self.moved = None;
            return Ok(false);
        }
        if self.moved.is_none() {
            self.moved = Some(Instant::now());
            return Ok(false);
        }
        let filter = Subject::all_pushes(number);
        let last = shared.bus.last_sequence(source, &filter).await?;
        Ok(last.is_none_or(|last| last <= reader.position().sequence))
    }
}

/// Goes on with the first message of another stream.
pub(crate) async fn move_on(
    shared: &Shared,
    number: u16,
    db: &mut PgConnection,
    progress: &mut Progress,
    next: Stream,
) -> Result<(), Error> {
    tracing::info!(
        partition = number,
        from = progress.source.name(),
        to = next.name(),
        "read a stream of pushes to its end; reading the next one"
    );
    let moved = Progress {
        source: next,
        position: Position::default(),
        ..*progress
    };
    let advancing = position::advance(db, number, progress, moved);
    *progress = shared.within(advancing).await?;
    Ok(())
}

/// Opens a reader of the partition's stream.
pub(crate) async fn open(
    shared: &Shared,
    number: u16,
    db: &mut PgConnection,
    progress: &mut Progress,
) -> Result<Reader, Error> {
    let finding = self::next(shared, number, progress.source);
    let next = shared.while_pinging(db, finding).await?;
    if let Some(next) = next
        && !shared.bus.layout().streams.contains(&progress.source)
    {
        // Nothing is left to be read there.
        move_on(shared, number, db, progress, next).await?;
    }
    let filter = Subject::all_pushes(number);
    let opening = shared.bus.read(progress.source, &filter, progress.position);
    let reader = shared.while_pinging(db, opening).await?;
    if reader.restarted_because().is_some() {
        // Pushes that are read a second time change nothing.
        let position = reader.position();
        let restarted = Progress {
            position,
            ..*progress
        };
        let advancing = position::advance(db, number, progress, restarted);
        *progress = shared.within(advancing).await?;
    }
    tracing::info!(
        partition = number,
        stream = progress.source.name(),
        after = progress.position.sequence,
        "reading"
    );
    Ok(reader)
}

/// Reads ahead until a stop is requested, or the end of a stream that takes no more pushes of the
/// partition.
pub(crate) async fn read(
    shared: &Shared,
    number: u16,
    mut reader: Reader,
    pushes: mpsc::Sender<ReceivedPush>,
) -> Result<(), Error> {
    let mut look = tokio::time::interval(LOOK);
    let mut end = End::default();
    loop {
        let delivery = tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            delivery = reader.next() => delivery?,
            _ = look.tick() => {
                if end.is_reached(shared, number, &reader).await? {
                    return Ok(());
                }
                continue;
            }
        };
        match ReceivedPush::parse(&delivery, number, shared.bus.partitions()) {
            Ok(push) => {
                if pushes.send(push).await.is_err() {
                    return Err(Error::Ended("applier"));
                }
            }
            // Only a program other than the gateway can have published this message. QUARANTINE
            // keeps the body for people, and reading goes on.
            Err(reason) => {
                tracing::error!(
                    partition = number,
                    sequence = delivery.sequence,
                    "a message of PUSHES is not a valid push: {reason}"
                );
                quarantine(&shared.bus, &delivery.payload, reason).await?;
            }
        }
    }
}

async fn quarantine(bus: &Bus, body: &[u8], reason: String) -> Result<(), Error> {
    let source: Name = "indexer"
        .parse()
        .map_err(|_| Error::Inconsistent("a name"))?;
    let quarantined = Quarantined::new(
        source.as_ref(),
        Quarantined::PUSH,
        reason,
        OffsetDateTime::now_utc(),
        None,
        body,
    );
    let id = Digest::sha256_of(body).to_string();
    let subject = Subject::Quarantine { source };
    let message = Message::of(&subject, &quarantined)?.with_id(&id);
    bus.publish(message).await?;
    Ok(())
}
