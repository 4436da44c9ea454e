//! The sweeper: from time to time one instance compares the streams with Postgres, and has missing
//! messages processed again.
//!
//! As a rule a sweep finds nothing: positions move with the data, and readers and publishers detect
//! gaps. But servers have skipped messages silently (nats-server issue 8036), and people purge
//! streams. So the sweeper looks up each applied message of PUSHES in Postgres once, and checks
//! that each tag's subject on REVISIONS ends with the tag's last published revision. Where a
//! message is missing, the sweeper sets the position of the partition back. The holder of the
//! partition detects the change, starts over with a take-over, and so publishes the missing
//! revisions and reads on from the position.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::consume::{Delivery, Position, nanoseconds};
use tagtrail_bus::pushes::Layout;
use tagtrail_bus::topology::{REVISIONS_KEPT, Stream};
use tagtrail_daemon::chain;
use tagtrail_failpoint::FailPoint;
use tagtrail_postgres::{DbArgs, Lock};
use tagtrail_proto::{Event, Revision, Subject};

use crate::error::Error;
use crate::received::ReceivedPush;
use crate::recheck;
use crate::restore::find::{MESSAGES, find};
use crate::shared::Shared;
use crate::store::{doubts, sweep as store};

/// Tags compared at once, and the pause after them: a sweep has time.
const TAGS: i64 = 256;
const PAUSE: Duration = Duration::from_millis(50);

/// Sweeps until a stop is requested, once in each period `every` over all instances.
pub(crate) async fn sweeper(db: DbArgs, shared: Shared, every: Duration) -> anyhow::Result<()> {
    // Instances that start together ask at different times, and a due sweep begins soon after the
    // start.
    let period = (every / 10).clamp(Duration::from_millis(100), Duration::from_secs(60));
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(period) => {}
        }
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            swept = sweep(&db, &shared, every) => if let Err(error) = swept {
                tracing::warn!("the sweep failed; retrying in {period:.0?}: {}", chain(&error));
            }
        }
    }
}

/// Runs a sweep, if it is due and no other instance is sweeping.
async fn sweep(db: &DbArgs, shared: &Shared, every: Duration) -> Result<(), Error> {
    let mut db = db.session("sweeper", shared.silence).await?;
    if FailPoint::IndexerSweep.skipped()
        || !shared.within(Lock::Sweep.try_acquire(&mut db)).await?
        || !shared.within(store::is_due(&mut db, every)).await?
    {
        return Ok(());
    }
    let started = tokio::time::Instant::now();
    let pushes = pushes(shared, &mut db).await?;
    let revisions = revisions(shared, &mut db).await?;
    find(shared, &mut db).await?;
    ask_lost(shared, &mut db).await?;
    shared.within(store::finish(&mut db)).await?;
    let took = started.elapsed();
    tracing::debug!(
        pushes,
        revisions,
        took_ms = took.as_secs_f64() * 1e3,
        "swept"
    );
    Ok(())
}

/// Looks up the pushes applied since the last sweep. Returns the number of messages.
async fn pushes(shared: &Shared, db: &mut PgConnection) -> Result<u64, Error> {
    let mut looked_at = 0;
    for &stream in shared.bus.layout().streams.iter() {
        looked_at += pushes_of(shared, db, stream).await?;
    }
    Ok(looked_at)
}

/// Looks up the pushes of one stream.
async fn pushes_of(shared: &Shared, db: &mut PgConnection, stream: Stream) -> Result<u64, Error> {
    let position = shared.within(store::compared(db, stream)).await?;
    let applied = shared.within(store::applied(db)).await?;
    let held = shared.while_pinging(db, shared.bus.held(stream)).await?;
    let opening = shared.bus.read(stream, Subject::ALL_PUSHES, position);
    let mut reader = shared.while_pinging(db, opening).await?;
    let created_ns = reader.stream_created_ns();
    if *held.end() <= reader.position().sequence || held.is_empty() {
        return Ok(0);
    }
    let was_applied =
        |message: &Delivery, partition: u16, layout: &Layout| match applied.get(&partition) {
            Some((source, of)) if *source == stream => {
                of.stream_created_ns == Some(created_ns) && message.sequence <= of.sequence
            }
            // The partition has left this stream. While it is between two others, this stream may
            // be one that it still has to read: the next sweep looks here.
            Some((source, _)) => layout.owner(partition) == Some(*source),
            // The partition has no position: another configuration made it, or nothing of it was
            // applied yet.
            None => partition >= shared.bus.partitions(),
        };
    let mut looked_at = 0;
    loop {
        let reading = reader.next_until(*held.end(), MESSAGES);
        let some = shared.while_pinging(db, reading).await?;
        // Later than the messages: a stream that still takes the pushes of a partition is not one
        // that the partition has left. The server is asked only if there is such a partition.
        let left = some.iter().any(|message| {
            let applied = applied.get(&partition_of(message));
            applied.is_some_and(|(source, _)| *source != stream)
        });
        let layout = if left {
            let asking = shared.bus.present_layout();
            shared.while_pinging(db, asking).await?
        } else {
            shared.bus.layout()
        };
        let (mut batch, mut last) = (Vec::new(), None);
        for message in &some {
            let partition = partition_of(message);
            if !was_applied(message, partition, &layout) {
                break; // The next sweep looks the rest up.
            }
            last = Some(message);
            // An invalid message is in QUARANTINE.
            if let Ok(push) = ReceivedPush::parse(message, partition, shared.bus.partitions()) {
                batch.push(push);
            }
        }
        let Some(last) = last else {
            return Ok(looked_at);
        };
        let missing = shared.within(store::missing(db, &batch)).await?;
        looked_at += batch.len() as u64;
        let mut first: BTreeMap<u16, u64> = BTreeMap::new();
        for push in batch.iter().filter(|push| missing.contains(&push.sequence)) {
            first
                .entry(push.partition(shared.bus.partitions()))
                .or_insert(push.sequence);
        }
        if !missing.is_empty() {
            shared.metrics.swept(Stream::Pushes, missing.len() as u64);
            tracing::error!(
                pushes = missing.len(),
                "Postgres lacks pushes that were counted as applied; they are read again"
            );
        }
        for (partition, sequence) in first {
            shared
                .within(store::set_back(
                    db,
                    partition,
                    (stream, created_ns),
                    sequence - 1,
                ))
                .await?;
        }
        let to = Position {
            stream_created_ns: Some(created_ns),
            sequence: last.sequence,
            time_ns: Some(nanoseconds(last.time)),
        };
        shared.within(store::advance(db, stream, to)).await?;
        let all = some.last().map(|message| message.sequence) == Some(last.sequence);
        if !all || last.sequence >= *held.end() {
            return Ok(looked_at);
        }
    }
}

/// Returns the partition of a message; one that does not exist if the subject is not of a push.
fn partition_of(message: &Delivery) -> u16 {
    match message.subject.parse() {
        Ok(Subject::Push { partition, .. }) => partition,
        _ => u16::MAX,
    }
}

/// Asks registries about pushes since the last sweep whose doubts no answer has settled: the bus
/// refused the question, or a crash lost it. A question that the registry has not answered yet is
/// asked twice, which does no harm.
async fn ask_lost(shared: &Shared, db: &mut PgConnection) -> Result<(), Error> {
    if shared.asked.is_empty() {
        return Ok(());
    }
    let Some(mut range) = shared.within(store::undoubted(db)).await? else {
        return Ok(());
    };
    while range.after < range.last {
        let finding = doubts::page(db, &mut range, &shared.asked);
        let questions = shared.within(finding).await?;
        if !questions.is_empty() {
            tracing::info!(
                questions = questions.len(),
                "asking registries again about images whose order of pushes is doubtful"
            );
            let asking = recheck::ask(&shared.bus, &questions);
            shared.while_pinging(db, asking).await?;
        }
        shared.within(store::set_undoubted(db, range.after)).await?;
    }
    Ok(())
}

/// Compares the last message of each tag's subject with the tag's last published revision. Returns
/// the number of tags.
async fn revisions(shared: &Shared, db: &mut PgConnection) -> Result<u64, Error> {
    let (mut after, mut looked_at) = (0, 0);
    loop {
        let tags = shared
            .within(store::published_tags(db, after, TAGS))
            .await?;
        let Some(last) = tags.last() else {
            return Ok(looked_at);
        };
        after = last.tag_id;
        looked_at += tags.len() as u64;
        let subjects = tags.iter().map(|tag| Subject::of_revisions(&tag.image));
        let asking = shared
            .bus
            .last_messages(Stream::Revisions, subjects.collect());
        let told: HashMap<String, u64> = shared
            .while_pinging(db, asking)
            .await?
            .into_iter()
            .filter_map(|(subject, payload)| {
                let event: Event<Revision> = serde_json::from_slice(&payload).ok()?;
                Some((subject.to_string(), event.data.revision))
            })
            .collect();
        let missing: BTreeMap<i64, u64> = tags
            .iter()
            .filter_map(|tag| {
                let subject = Subject::of_revisions(&tag.image).to_string();
                let told = told.get(&subject).copied().unwrap_or(0);
                let oldest = tag.issued.saturating_sub(u64::from(REVISIONS_KEPT));
                (told < tag.issued).then_some((tag.tag_id, told.max(oldest)))
            })
            .collect();
        if !missing.is_empty() {
            let revisions: u64 = tags
                .iter()
                .filter_map(|tag| missing.get(&tag.tag_id).map(|told| tag.issued - told))
                .sum();
            shared.metrics.swept(Stream::Revisions, revisions);
            tracing::error!(
                images = missing.len(),
                revisions,
                "REVISIONS lacks revisions that were published; they are published again from Postgres"
            );
            shared.within(store::publish_again(db, &missing)).await?;
        }
        shared
            .while_pinging(db, async {
                tokio::time::sleep(PAUSE).await;
                Ok::<_, Error>(())
            })
            .await?;
    }
}
