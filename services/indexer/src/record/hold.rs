//! Holding one partition: catch up with what was recorded but not published, then read, apply and publish, overlapped.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_bus::Bus;
use tagtrail_bus::consume::Reader;
use tagtrail_bus::publish::Message;
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::Retry;
use tagtrail_failpoint::FailPoint;
use tagtrail_history::recorded::Recorded;
use tagtrail_postgres::session::ping_interval;
use tagtrail_proto::{Digest, Image, Name, Quarantined, Subject};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};

use crate::error::{Error, Recovery};
use crate::received::ReceivedPush;
use crate::record::apply::{Cause, apply};
use crate::record::batch::{self, BatchSize};
use crate::record::partition::Partition;
use crate::record::publish::{self, OutgoingRevision};
use crate::record::tag_ids::TagIds;
use crate::record::takeover::{catch_up, note_published};
use crate::restore;
use crate::restore::find::unrecorded_of;
use crate::restore::unrecorded::UnrecordedCache;
use crate::shared::Shared;
use crate::store;
use crate::store::position::Progress;

/// Pushes read ahead of the store, and batches of revisions applied ahead of the bus.
const READ_AHEAD: usize = batch::MOST;
const PUBLISH_AHEAD: usize = 1;
/// Idle ticks after which PUSHES surely has no more, and what the store still lacks will not come from there.
const NOTHING_MORE: u32 = 3;
/// Longest pause between two attempts: Postgres ends the session if it is silent for longer than the session time-out.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Works on a partition whose lock the session `db` has, until the session is lost or a stop is asked for. Dropping the
/// session gives the partition up.
pub(crate) async fn hold(
    shared: Shared,
    cache: UnrecordedCache,
    number: u16,
    mut db: PgConnection,
) -> Result<(), Error> {
    let task = format!("work on partition {number}");
    let mut retry = Retry::new(task).at_most(LONGEST_PAUSE);
    loop {
        let error = match Box::pin(work(&shared, &cache, number, &mut db)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        shared.readiness.failed(number, &error);
        if Recovery::from(&error) == Recovery::GiveUp {
            cache.forget().await; // The store may come back as an older one.
            return Err(error);
        }
        if !retry.wait(&error, &shared.shutdown).await {
            return Ok(());
        }
        // The work may have been dropped in the middle of a transaction (and the driver forgets one whose BEGIN was cancelled:
        // sqlx issue 4393). This also keeps the session from dying of silence while NATS is away.
        shared.within(store::position::rollback(&mut db)).await?;
    }
}

async fn work(
    shared: &Shared,
    cache: &UnrecordedCache,
    number: u16,
    db: &mut PgConnection,
) -> Result<(), Error> {
    let mut progress = shared.within(store::position::progress(db, number)).await?;
    FailPoint::IndexerLocked.pass();
    // From here on the server refuses whatever an earlier holder still has in its queues …
    let fencing = Box::pin(shared.bus.fence(number));
    let fence = shared.while_pinging(db, fencing).await?;
    FailPoint::IndexerFenced.pass();
    // … so what REVISIONS holds now is all that was published: more than the store knows, if that is an older one …
    let unrecorded = unrecorded_of(shared, cache, number, db).await?;
    // … and what it lacks is ours to publish, before anything new.
    catch_up(shared, number, db, &fence, &mut progress).await?;

    let filter = Subject::all_pushes(number);
    let opening = shared.bus.read(Stream::Pushes, &filter, progress.position);
    let reader = shared.while_pinging(db, opening).await?;
    if reader.restarted_because().is_some() {
        // Pushes that are read a second time change nothing.
        let position = reader.position();
        let restarted = Progress {
            position,
            ..progress
        };
        let advancing = store::position::advance(db, number, &progress, restarted);
        progress = shared.within(advancing).await?;
    }
    tracing::info!(
        partition = number,
        after = progress.position.sequence,
        "reading"
    );

    let mut partition = Partition {
        number,
        partitions: shared.bus.partitions(),
        stream_created_ns: reader.stream_created_ns(),
        progress,
        repeats: false,
        tag_ids: TagIds::default(),
        unrecorded,
    };
    let (pushes_in, mut pushes) = mpsc::channel(READ_AHEAD);
    let (revisions, mut revisions_out) = mpsc::channel(PUBLISH_AHEAD);
    let published = watch::Sender::new(progress.published);
    let reading = read(shared, number, reader, pushes_in);
    let applying = apply_all(
        shared,
        &mut partition,
        db,
        &mut pushes,
        revisions,
        published.subscribe(),
    );
    let publishing = publish::publish(&fence, &mut revisions_out, &published, &shared.metrics);
    // All three in this task: when one fails the others are dropped with it, and nothing is left running behind.
    tokio::try_join!(reading, applying, publishing)?;
    // A stop was asked for, and everything applied is published.
    let published = *published.borrow();
    note_published(shared, number, db, &mut partition.progress, published).await?;
    FailPoint::IndexerStopped.pass();
    Ok(())
}

/// Reads ahead until a stop is asked for.
async fn read(
    shared: &Shared,
    number: u16,
    mut reader: Reader,
    pushes: mpsc::Sender<ReceivedPush>,
) -> Result<(), Error> {
    loop {
        let delivery = tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            delivery = reader.next() => delivery?,
        };
        match ReceivedPush::parse(&delivery, number, shared.bus.partitions()) {
            Ok(push) => {
                if pushes.send(push).await.is_err() {
                    return Err(Error::Ended("applier"));
                }
            }
            // Only a program other than the gateway can have put it there. Kept whole for people; the position passes over it.
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

/// Applies what was read, as much at once as there is, and hands the revisions on.
async fn apply_all(
    shared: &Shared,
    partition: &mut Partition,
    db: &mut PgConnection,
    pushes: &mut mpsc::Receiver<ReceivedPush>,
    revisions: mpsc::Sender<Vec<OutgoingRevision>>,
    published: watch::Receiver<u64>,
) -> Result<(), Error> {
    let mut batch = Vec::with_capacity(batch::MOST);
    let mut size = BatchSize::new(shared.silence);
    // Well within the silence after which the server ends the session.
    let mut idle = tokio::time::interval(ping_interval(shared.silence));
    let mut quiet = 0;
    loop {
        tokio::select! {
            biased;
            _ = idle.tick() => {
                // Also keeps the session alive while there is nothing to do.
                quiet += 1;
                let now = *published.borrow();
                if now > partition.progress.published {
                    note_published(shared, partition.number, db, &mut partition.progress, now).await?;
                } else {
                    shared.within(store::position::check(db, partition.number, &partition.progress)).await?;
                }
                if quiet == NOTHING_MORE {
                    shared.readiness.recovered(partition.number);
                }
                if quiet == NOTHING_MORE && !partition.unrecorded.is_empty() {
                    adopt(shared, partition, db, &partition.unrecorded.images()).await?;
                }
            }
            // Never waited for: a single push is applied at once.
            read = pushes.recv_many(&mut batch, size.pushes()) => {
                if read == 0 {
                    return Ok(()); // A stop was asked for and all that was read is applied.
                }
                quiet = 0;
                // No more is recorded than can be handed on: NATS may be slow or away.
                let room = async { revisions.reserve().await.map_err(|_| Error::Ended("publisher")) };
                let room = shared.while_pinging(db, room).await?;
                let turn = async { shared.appliers.acquire().await.map_err(|_| Error::Ended("semaphore")) };
                let permit = shared.while_pinging(db, turn).await?;
                let acknowledged = *published.borrow();
                let started = tokio::time::Instant::now();
                let new = apply_or_adopt(shared, partition, db, &batch, acknowledged).await?;
                drop(permit);
                shared.readiness.recovered(partition.number);
                size.took(batch.len(), started.elapsed());
                shared.metrics.applying.observe(started.elapsed().as_secs_f64());
                let recorded = new.iter().map(|(recorded, _)| recorded);
                shared.metrics.applied(partition.number, &batch, pushes.len(), recorded);
                batch.clear();
                let new = partition.unrecorded.still_to_publish(new);
                if new.is_empty() {
                    continue;
                }
                let outgoing = new.into_iter().map(|(new, cause)| OutgoingRevision::new(new, cause)).collect::<Result<Vec<_>, _>>()?;
                room.send(outgoing);
            }
        }
    }
}

/// Applies a batch. Where the store turns out to have forgotten what was published, that is taken in first; where pushes of it turn
/// out to be known, they are left out.
async fn apply_or_adopt(
    shared: &Shared,
    partition: &mut Partition,
    db: &mut PgConnection,
    batch: &[ReceivedPush],
    published: u64,
) -> Result<Vec<(Recorded, Cause)>, Error> {
    loop {
        match shared.within(apply(partition, db, batch, published)).await {
            Err(Error::Forgotten(images)) => adopt(shared, partition, db, &images).await?,
            Err(Error::Repeated) if !partition.repeats => {
                partition.repeats = true;
                // Those of the batch that failed were made in its transaction.
                partition.tag_ids = TagIds::default();
            }
            done => return done,
        }
    }
}

/// Takes what was published of these images, and the store has forgotten, into the store.
async fn adopt(
    shared: &Shared,
    partition: &mut Partition,
    db: &mut PgConnection,
    images: &BTreeSet<Image>,
) -> Result<(), Error> {
    let reading = partition.unrecorded.published(&shared.bus, images);
    let published = shared.while_pinging(db, reading).await?;
    let mut progress = partition.progress;
    let adopting = async {
        let mut tx = db.begin().await?;
        let revisions =
            restore::adopt(&mut tx, partition.number, &mut progress, &published).await?;
        tx.commit().await?;
        Ok::<_, Error>(revisions)
    };
    let revisions = shared.within(adopting).await?;
    partition.progress = progress;
    // Those of the batch that failed were made in its transaction.
    partition.tag_ids = TagIds::default();
    partition.unrecorded.remove(images);
    shared.metrics.adopted.inc_by(revisions);
    tracing::error!(
        partition = partition.number,
        images = images.len(),
        revisions,
        "the store had lost revisions that were published, and PUSHES their pushes; took them over from REVISIONS"
    );
    Ok(())
}
