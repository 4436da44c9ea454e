//! Holds one partition: publishes its recorded but unpublished revisions, and then reads, applies
//! and publishes at the same time.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_daemon::Retry;
use tagtrail_failpoint::FailPoint;
use tagtrail_postgres::keep_plans;
use tagtrail_postgres::session::ping_interval;
use tagtrail_proto::{Image, Push};
use tokio::sync::{SemaphorePermit, mpsc, watch};

use crate::error::{Error, Recovery};
use crate::received::ReceivedPush;
use crate::recheck;
use crate::record::apply::{Applied, apply, segments};
use crate::record::batch::{self, BatchSize};
use crate::record::partition::Partition;
use crate::record::publish::{self, OutgoingRevision};
use crate::record::source;
use crate::record::tag_ids::TagIds;
use crate::record::takeover::{catch_up, note_published};
use crate::restore;
use crate::restore::find::unrecorded_of;
use crate::restore::unrecorded::UnrecordedCache;
use crate::shared::Shared;
use crate::store;

/// Most pushes read ahead of Postgres, and most batches of revisions recorded ahead of NATS.
const READ_AHEAD: usize = batch::MOST;
const PUBLISH_AHEAD: usize = 1;
/// Idle ticks in a row after which PUSHES counts as read to its end. Revisions that are still
/// missing from Postgres can then come only from REVISIONS, and are adopted.
const NOTHING_MORE: u32 = 3;
/// Longest pause between two attempts. It must be shorter than `idle_session_timeout`.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Works on a partition whose lock the session `db` holds, until the session is lost or a stop is
/// requested. Dropping the session releases the partition.
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
            Ok(Ended::Stopped) => return Ok(()),
            Ok(Ended::Moved) => continue,
            Err(error) => error,
        };
        shared.readiness.failed(number, &error);
        if Recovery::from(&error) == Recovery::GiveUp {
            cache.forget().await; // Postgres may come back from an older backup.
            return Err(error);
        }
        if !retry.wait(&error, &shared.shutdown).await {
            return Ok(());
        }
        // The work may have been dropped within a transaction, and the driver does not roll back a
        // transaction whose BEGIN was cancelled (sqlx issue 4393). The statement also keeps the
        // session alive while NATS is away.
        shared.within(store::position::rollback(&mut db)).await?;
    }
}

/// The end of work without an error.
enum Ended {
    /// A stop was requested.
    Stopped,
    /// The partition goes on with another stream.
    Moved,
}

async fn work(
    shared: &Shared,
    cache: &UnrecordedCache,
    number: u16,
    db: &mut PgConnection,
) -> Result<Ended, Error> {
    // The statements of a take-over look at ranges of different sizes.
    shared.within(keep_plans(db, false)).await?;
    let mut progress = shared.within(store::position::progress(db, number)).await?;
    FailPoint::IndexerLocked.pass();
    // From now on the server refuses messages that an earlier holder still has in its queues.
    let fencing = Box::pin(shared.bus.fence(number));
    let fence = shared.while_pinging(db, fencing).await?;
    FailPoint::IndexerFenced.pass();
    // So REVISIONS now has every published revision, perhaps more of them than a restored Postgres.
    let unrecorded = unrecorded_of(shared, cache, number, db).await?;
    // The revisions that REVISIONS is missing come before any new revision.
    catch_up(shared, number, db, &fence, &mut progress).await?;

    let reader = source::open(shared, number, db, &mut progress).await?;
    shared.within(keep_plans(db, true)).await?;
    let mut partition = Partition {
        number,
        partitions: shared.bus.partitions(),
        stream_created_ns: reader.stream_created_ns(),
        progress,
        repeats: false,
        tag_ids: TagIds::default(),
        unrecorded,
        asked: shared.asked.clone(),
        fence: fence.clone(),
    };
    let (pushes_in, mut pushes) = mpsc::channel(READ_AHEAD);
    let (revisions, mut revisions_out) = mpsc::channel(PUBLISH_AHEAD);
    let (rechecks, mut rechecks_out) = mpsc::channel(recheck::WAITING);
    let published = watch::Sender::new(progress.published);
    let reading = source::read(shared, number, reader, pushes_in);
    let applying = apply_all(
        shared,
        &mut partition,
        db,
        &mut pushes,
        Outlets {
            revisions,
            rechecks,
            published: published.subscribe(),
        },
    );
    let publishing = publish::publish(&fence, &mut revisions_out, &published, &shared.metrics);
    let asking = recheck::ask_all(&shared.bus, &mut rechecks_out);
    // All four run in this task: when one fails, the others are dropped too.
    tokio::try_join!(reading, applying, publishing, asking)?;
    // A stop was requested, or the stream is read to its end, and everything applied is published.
    let (published, known) = (*published.borrow(), partition.known());
    note_published(
        shared,
        number,
        db,
        &mut partition.progress,
        published,
        known,
    )
    .await?;
    if !shared.shutdown.is_cancelled() {
        let finding = source::next(shared, number, partition.progress.source);
        if let Some(next) = shared.while_pinging(db, finding).await? {
            source::move_on(shared, number, db, &mut partition.progress, next).await?;
        }
        return Ok(Ended::Moved);
    }
    FailPoint::IndexerStopped.pass();
    Ok(Ended::Stopped)
}

/// The ways out of the applier.
struct Outlets {
    revisions: mpsc::Sender<Vec<OutgoingRevision>>,
    rechecks: mpsc::Sender<Vec<Push>>,
    /// The ordinal of the last published revision.
    published: watch::Receiver<u64>,
}

/// Applies the pushes that were read, as many at once as have arrived, and hands the revisions to
/// the publisher.
async fn apply_all(
    shared: &Shared,
    partition: &mut Partition,
    db: &mut PgConnection,
    pushes: &mut mpsc::Receiver<ReceivedPush>,
    out: Outlets,
) -> Result<(), Error> {
    let Outlets {
        revisions,
        rechecks,
        published,
    } = out;
    let mut batch = Vec::new();
    let mut size = BatchSize::new(shared.silence);
    // Shorter than the time-out of the session.
    let mut idle = tokio::time::interval(ping_interval(shared.silence));
    let mut quiet = 0;
    loop {
        tokio::select! {
            biased;
            _ = idle.tick() => {
                // The statement also keeps an idle session alive.
                quiet += 1;
                let (now, known) = (*published.borrow(), partition.known());
                if (now, known) != (partition.progress.published, partition.progress.known) {
                    note_published(shared, partition.number, db, &mut partition.progress, now, known).await?;
                } else {
                    shared.within(store::position::check(db, partition.number, &partition.progress)).await?;
                }
                if quiet == NOTHING_MORE {
                    shared.readiness.recovered(partition.number);
                }
                // The next stream may have their pushes.
                let last = source::is_last(shared, partition.number, partition.progress.source);
                if quiet == NOTHING_MORE && last && !partition.unrecorded.is_empty() {
                    adopt(shared, partition, db, &partition.unrecorded.images()).await?;
                }
            }
            // A single push is applied at once.
            first = pushes.recv() => {
                let Some(first) = first else {
                    return Ok(()); // A stop was requested, and all pushes read are applied.
                };
                batch.push(first);
                quiet = 0;
                let mut turn = Some(turn(shared, db, &revisions).await?);
                // Only now, so that partitions without a turn keep no batch besides the pushes
                // read ahead.
                while batch.len() < size.pushes()
                    && let Ok(next) = pushes.try_recv()
                {
                    batch.push(next);
                }
                for segment in segments(&batch) {
                    let (room, permit) = match turn.take() {
                        Some(turn) => turn,
                        None => self::turn(shared, db, &revisions).await?,
                    };
                    let started = tokio::time::Instant::now();
                    let acknowledged = *published.borrow();
                    let new = apply_or_adopt(shared, partition, db, segment, acknowledged).await?;
                    drop(permit);
                    shared.readiness.recovered(partition.number);
                    size.took(segment.len(), started.elapsed());
                    shared.metrics.applying.observe(started.elapsed().as_secs_f64());
                    let recorded = new.revisions.iter().map(|(recorded, _)| recorded);
                    shared.metrics.applied(partition.number, segment, pushes.len(), recorded);
                    if !new.rechecks.is_empty() && rechecks.try_send(new.rechecks).is_err() {
                        tracing::warn!(partition = partition.number, "the bus is slow to take re-checks; the sweeper asks again");
                    }
                    let new = partition.unrecorded.still_to_publish(new.revisions);
                    let new: Vec<_> = new.into_iter().map(|(new, cause)| OutgoingRevision::new(new, cause)).collect();
                    if !new.is_empty() {
                        room.send(new);
                    }
                }
                batch.clear();
            }
        }
    }
}

/// Waits for room for the revisions of one more segment, and for a permit to apply it: no more is
/// recorded than the publisher can take, for NATS may be slow or away.
async fn turn<'a>(
    shared: &'a Shared,
    db: &mut PgConnection,
    revisions: &'a mpsc::Sender<Vec<OutgoingRevision>>,
) -> Result<(mpsc::Permit<'a, Vec<OutgoingRevision>>, SemaphorePermit<'a>), Error> {
    let waiting = async {
        let room = revisions.reserve().await;
        let room = room.map_err(|_| Error::Ended("publisher"))?;
        let permit = shared.appliers.acquire().await;
        let permit = permit.map_err(|_| Error::Ended("semaphore"))?;
        Ok::<_, Error>((room, permit))
    };
    shared.while_pinging(db, waiting).await
}

/// Applies a segment. If Postgres turns out to lack published revisions, adopts these first; if
/// pushes of the segment turn out to be recorded already, leaves these out.
async fn apply_or_adopt(
    shared: &Shared,
    partition: &mut Partition,
    db: &mut PgConnection,
    segment: &[ReceivedPush],
    published: u64,
) -> Result<Applied, Error> {
    loop {
        match shared
            .within(apply(partition, db, segment, published))
            .await
        {
            Err(Error::Forgotten(images)) => adopt(shared, partition, db, &images).await?,
            Err(Error::Repeated) if !partition.repeats => {
                partition.repeats = true;
            }
            done => return done,
        }
    }
}

/// Adopts the unrecorded revisions of these images.
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
    partition.unrecorded.remove(images);
    shared.metrics.adopted.inc_by(revisions);
    tracing::error!(
        partition = partition.number,
        images = images.len(),
        revisions,
        "Postgres had lost published revisions, and PUSHES has lost their pushes; inserted them again from REVISIONS"
    );
    Ok(())
}
