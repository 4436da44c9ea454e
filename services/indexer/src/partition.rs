//! Holding one partition: catch up with what was recorded but not published, then read, apply and publish, overlapped.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::Bus;
use tagtrail_bus::consume::{Position, Reader};
use tagtrail_bus::publish::{Fence, Message};
use tagtrail_bus::topology::Stream;
use tagtrail_postgres::ping;
use tagtrail_postgres::recorded::{self, Recorded, Span};
use tagtrail_proto::{Digest, Name, Quarantined, Subject};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::apply::{Partition, TagIds};
use crate::doubt;
use crate::error::{Error, Next};
use crate::facts::Received;
use crate::metrics::Metrics;
use crate::publish::{self, Outgoing};
use crate::store;

/// Facts applied in one transaction at most. It is never waited for: a single fact is applied at once.
const BATCH: usize = 1000;
/// Facts read ahead of the store, and batches of revisions applied ahead of the bus.
const READ_AHEAD: usize = 2 * BATCH;
const PUBLISH_AHEAD: usize = 2;

/// What every partition of an instance shares.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) bus: Bus,
    /// The server ends a session that is silent for this long.
    pub(crate) silence: Duration,
    /// As many batches are applied at once as are of use: more only wait for the same cores.
    pub(crate) appliers: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) metrics: Metrics,
}

/// Works on a partition whose lock the session `db` has, until the session is lost or a stop is asked for. Dropping the
/// session gives the partition up.
pub(crate) async fn hold(shared: Shared, number: u16, mut db: PgConnection) -> Result<(), Error> {
    let mut failures = 0;
    loop {
        let started = tokio::time::Instant::now();
        let error = match Box::pin(work(&shared, number, &mut db)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if Next::from(&error) == Next::GiveUp {
            return Err(error);
        }
        failures = if started.elapsed() > Duration::from_secs(30) {
            1
        } else {
            failures + 1
        };
        let pause = tagtrail_daemon::backoff(failures).min(Duration::from_secs(2));
        tracing::warn!(
            partition = number,
            "starting the partition over in {pause:?}: {error:#}"
        );
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        // The work may have been dropped in the middle of a transaction (and the driver forgets one whose BEGIN was cancelled:
        // sqlx issue 4393). This also keeps the session from dying of silence while NATS is away.
        within(&shared, store::position::rollback(&mut db)).await?;
    }
}

/// Database work with a bound: a session that does not answer is as good as lost.
async fn within<T, E: Into<Error>>(
    shared: &Shared,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    match tokio::time::timeout(shared.silence, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Error::Silent(shared.silence)),
    }
}

/// Waits for NATS and keeps the session alive meanwhile: it must not die of the slowness of another server.
async fn meanwhile<T, E: Into<Error>>(
    shared: &Shared,
    db: &mut PgConnection,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    let period = shared.silence / 5;
    let mut every = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done.map_err(Into::into),
            _ = every.tick() => within(shared, ping(db)).await?,
        }
    }
}

async fn work(shared: &Shared, number: u16, db: &mut PgConnection) -> Result<(), Error> {
    let mut progress = within(shared, store::position::progress(db, number)).await?;
    // From here on the server refuses whatever an earlier holder still has in its queues …
    let fence = meanwhile(shared, db, shared.bus.fence(number)).await?;
    // … so what REVISIONS holds now is all that was published, and what it lacks is ours to publish, before anything new.
    progress.published = catch_up(
        shared,
        number,
        db,
        &fence,
        progress.published,
        progress.recorded,
    )
    .await?;

    let filter = format!("tagtrail.push.{number}.>");
    let opening = shared.bus.read(Stream::Pushes, &filter, progress.position);
    let reader = meanwhile(shared, db, opening).await?;
    let stream_created_ns = reader.stream_created_ns();
    if let Some(why) = reader.afresh() {
        tracing::warn!(
            partition = number,
            "reading PUSHES from its first message, not after {}: {why}",
            progress.position.sequence
        );
        within(
            shared,
            store::position::restart_position(db, number, stream_created_ns),
        )
        .await?;
        progress.position = Position {
            stream_created_ns: Some(stream_created_ns),
            sequence: 0,
            time_ns: None,
        };
    }
    tracing::info!(
        partition = number,
        after = progress.position.sequence,
        "reading"
    );

    let mut partition = Partition {
        number,
        progress,
        tag_ids: TagIds::default(),
    };
    let (facts_in, mut facts) = mpsc::channel(READ_AHEAD);
    let (revisions, mut revisions_out) = mpsc::channel(PUBLISH_AHEAD);
    let published = watch::Sender::new(progress.published);
    let reading = read(shared, number, reader, facts_in);
    let applying = apply(
        shared,
        &mut partition,
        db,
        &mut facts,
        revisions,
        published.subscribe(),
        stream_created_ns,
    );
    let publishing = publish::publish(&fence, &mut revisions_out, &published, &shared.metrics);
    // All three in this task: when one fails the others are dropped with it, and nothing is left running behind.
    tokio::try_join!(reading, applying, publishing)?;
    // A stop was asked for, and everything applied is published.
    let published = *published.borrow();
    within(
        shared,
        store::position::set_published(db, number, published),
    )
    .await
}

/// Publishes the revisions above `published`, except those that REVISIONS holds already.
async fn catch_up(
    shared: &Shared,
    number: u16,
    db: &mut PgConnection,
    fence: &Fence,
    published: u64,
    recorded: u64,
) -> Result<u64, Error> {
    let noted = published;
    let mut published = truly_published(shared, number, db, published).await?;
    while published < recorded {
        let page = recorded_in(shared, number, db, published, recorded).await?;
        let Some(last) = page.last().map(|new| new.ordinal) else {
            return Err(Error::Inconsistent(
                "revisions are missing between two ordinals",
            ));
        };
        // Those that REVISIONS holds already are not published again, but what they raise may not have been asked yet.
        for question in page
            .iter()
            .filter(|new| new.ordinal > noted)
            .filter_map(doubt::of)
        {
            meanwhile(shared, db, async {
                publish::ask(fence.line(), question).await;
                Ok::<_, Error>(())
            })
            .await?;
        }
        let missing: Vec<Outgoing> = meanwhile(shared, db, publish::missing(&shared.bus, page))
            .await?
            .into_iter()
            .map(|new| Outgoing::new(new, None))
            .collect::<Result<_, _>>()?;
        if !missing.is_empty() {
            tracing::info!(
                partition = number,
                revisions = missing.len(),
                "publishing what was recorded but not published"
            );
        }
        let (sender, mut receiver) = mpsc::channel(1);
        // The channel has room for one, so this does not wait.
        sender
            .send(missing)
            .await
            .map_err(|_| Error::Ended("publisher"))?;
        drop(sender);
        let nobody = watch::Sender::new(0);
        let publishing = publish::publish(fence, &mut receiver, &nobody, &shared.metrics);
        meanwhile(shared, db, publishing).await?;
        published = last;
        within(
            shared,
            store::position::set_published(db, number, published),
        )
        .await?;
    }
    Ok(published)
}

/// The revisions of the partition after one ordinal and up to another, as many as are read at once.
async fn recorded_in(
    shared: &Shared,
    partition: u16,
    db: &mut PgConnection,
    after: u64,
    until: u64,
) -> Result<Vec<Recorded>, Error> {
    let span = Span {
        partition,
        after,
        until,
    };
    let found = within(shared, recorded::revisions(db, &[span])).await?;
    Ok(found.into_iter().map(|(_, revision)| revision).collect())
}

/// An ordinal up to which REVISIONS surely holds what it once acknowledged: that stream may have lost its end (it is not synced
/// message by message), or have been made anew. Revisions are published in the order of their ordinals, give or take a window,
/// so what is lost is an end, and its beginning is found by halving.
async fn truly_published(
    shared: &Shared,
    number: u16,
    db: &mut PgConnection,
    published: u64,
) -> Result<u64, Error> {
    let (mut there, mut gone) = (0, published + 1);
    let mut probe = published;
    while there + 1 < gone {
        let one = recorded_in(shared, number, db, probe - 1, probe).await?;
        let missing = meanwhile(shared, db, publish::missing(&shared.bus, one)).await?;
        if missing.is_empty() {
            there = probe;
        } else {
            gone = probe;
        }
        probe = there + (gone - there) / 2;
    }
    if there < published {
        shared.metrics.forgotten.inc_by(published - there);
        tracing::error!(
            partition = number,
            lost = published - there,
            "REVISIONS lost revisions that it had acknowledged; publishing them again from Postgres"
        );
    }
    Ok(there.saturating_sub(publish::WINDOW as u64))
}

/// Reads ahead until a stop is asked for.
async fn read(
    shared: &Shared,
    number: u16,
    mut reader: Reader,
    facts: mpsc::Sender<Received>,
) -> Result<(), Error> {
    loop {
        let delivery = tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            delivery = reader.next() => delivery?,
        };
        match Received::parse(&delivery, number, shared.bus.partitions()) {
            Ok(fact) => {
                if facts.send(fact).await.is_err() {
                    return Err(Error::Ended("applier"));
                }
            }
            // Only a program other than the gateway can have put it there. Kept whole for people; the position passes over it.
            Err(reason) => {
                tracing::error!(
                    partition = number,
                    sequence = delivery.sequence,
                    "a message of PUSHES is no fact: {reason}"
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
    let payload = serde_json::to_vec(&quarantined)
        .map_err(|_| Error::Inconsistent("a quarantined body can't be written as JSON"))?;
    bus.publish(Message {
        subject: &Subject::Quarantine { source },
        id: Some(&id),
        payload: payload.into(),
        trace: None,
    })
    .await?;
    Ok(())
}

/// Applies what was read, as much at once as there is, and hands the revisions on.
async fn apply(
    shared: &Shared,
    partition: &mut Partition,
    db: &mut PgConnection,
    facts: &mut mpsc::Receiver<Received>,
    revisions: mpsc::Sender<Vec<Outgoing>>,
    published: watch::Receiver<u64>,
    stream_created_ns: i64,
) -> Result<(), Error> {
    let mut batch = Vec::with_capacity(BATCH);
    // Well within the silence after which the server ends the session.
    let mut idle = tokio::time::interval(shared.silence / 5);
    loop {
        tokio::select! {
            biased;
            _ = idle.tick() => {
                // Also keeps the session alive while there is nothing to do.
                let now = *published.borrow();
                if now > partition.progress.published {
                    within(shared, store::position::set_published(db, partition.number, now)).await?;
                    partition.progress.published = now;
                } else {
                    within(shared, ping(db)).await?;
                }
            }
            read = facts.recv_many(&mut batch, BATCH) => {
                if read == 0 {
                    return Ok(()); // A stop was asked for and all that was read is applied.
                }
                let turn = async { shared.appliers.acquire().await.map_err(|_| Error::Ended("semaphore")) };
                let permit = meanwhile(shared, db, turn).await?;
                partition.progress.published = partition.progress.published.max(*published.borrow());
                let started = tokio::time::Instant::now();
                let new = within(shared, partition.apply(db, &batch, stream_created_ns)).await?;
                drop(permit);
                shared.metrics.applying.observe(started.elapsed().as_secs_f64());
                let recorded = new.iter().map(|(recorded, _)| recorded);
                shared.metrics.applied(partition.number, &batch, facts.len(), recorded);
                batch.clear();
                if new.is_empty() {
                    continue;
                }
                let outgoing = new.into_iter().map(|(new, cause)| Outgoing::new(new, Some(cause))).collect::<Result<Vec<_>, _>>()?;
                // NATS may be slow or away.
                let room = async { revisions.reserve().await.map_err(|_| Error::Ended("publisher")) };
                meanwhile(shared, db, room).await?.send(outgoing);
            }
        }
    }
}
