//! Finds unrecorded revisions; see [`crate::restore::unrecorded`].

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;
use tagtrail_bus::Bus;
use tagtrail_bus::consume::{Position, ReadError};
use tagtrail_bus::fence::Known;
use tagtrail_bus::topology::Stream;
use tagtrail_proto::{Image, Subject, partition_of};

use crate::error::Error;
use crate::restore::unrecorded::{Unrecorded, UnrecordedCache, revision};
use crate::shared::Shared;
use crate::store;

/// Most messages between two queries of Postgres.
pub(crate) const MESSAGES: usize = 1000;

/// Returns the unrecorded revisions of a partition. Right only after fencing.
pub(crate) async fn unrecorded_of(
    shared: &Shared,
    cache: &UnrecordedCache,
    number: u16,
    db: &mut PgConnection,
) -> Result<Unrecorded, Error> {
    // One partition searches for all; the others wait meanwhile.
    let locking = async { Ok::<_, Error>(cache.0.lock().await) };
    let mut cached = shared.while_pinging(db, locking).await?;
    if cached.is_none() {
        *cached = Some(find(shared, db).await?);
    }
    let of_all = cached.as_ref();
    let Some(mut unrecorded) = of_all.and_then(|all| all.get(&number)).cloned() else {
        return Ok(Unrecorded::default());
    };
    drop(cached);
    // Some revisions may have been recorded or adopted since.
    let issued = store::tags::issued(db, unrecorded.0.keys());
    let issued = shared.within(issued).await?;
    for (numbers, issued) in unrecorded.0.values_mut().zip(issued) {
        numbers.retain(|number, _| *number > issued);
    }
    unrecorded.0.retain(|_, numbers| !numbers.is_empty());
    Ok(unrecorded)
}

/// Finds the unrecorded revisions of all partitions, after the place in REVISIONS up to which
/// Postgres has every revision. If there are none, moves the place of the sweeper to the end of the
/// stream.
pub(crate) async fn find(
    shared: &Shared,
    db: &mut PgConnection,
) -> Result<HashMap<u16, Unrecorded>, Error> {
    let mut found: HashMap<u16, Unrecorded> = HashMap::new();
    let place = place(shared, db).await?;
    let held = shared
        .while_pinging(db, shared.bus.held(Stream::Revisions))
        .await?;
    // The filter includes fences, so that the reader always reaches the end of the stream.
    let opening = shared
        .bus
        .read(Stream::Revisions, Subject::EVERYTHING, place);
    let mut reader = shared.while_pinging(db, opening).await?;
    let mut at_end = held.is_empty() || *held.end() <= reader.position().sequence;
    while !at_end {
        let reading = reader.next_until(*held.end(), MESSAGES);
        let some = shared.while_pinging(db, reading).await?;
        at_end = some.last().is_some_and(|last| last.sequence >= *held.end());
        let mut told: BTreeMap<Image, BTreeMap<u64, _>> = BTreeMap::new();
        for one in some.iter().filter_map(revision) {
            let numbers = told.entry(one.image()).or_default();
            numbers.insert(one.revision, (one.digest, one.occurred_at));
        }
        // The query also keeps the session alive.
        let issued = shared.within(store::tags::issued(db, told.keys())).await?;
        for ((image, mut numbers), issued) in told.into_iter().zip(issued) {
            numbers.retain(|number, _| *number > issued);
            if !numbers.is_empty() {
                let partitions = shared.bus.partitions();
                let partition = partition_of(&image.registry, &image.repository, partitions);
                let unrecorded = found.entry(partition).or_default();
                unrecorded.0.entry(image).or_default().extend(numbers);
            }
        }
    }
    if found.is_empty() {
        // The time of the last message read tells the place from the same sequence of a stream that
        // was rolled back and grew again.
        let end = reader.position();
        if end.time_ns.is_some() {
            let advancing = store::sweep::advance(db, Stream::Revisions, end);
            shared.within(advancing).await?;
        }
    } else {
        tracing::warn!(
            images = found
                .values()
                .map(|unrecorded| unrecorded.0.len())
                .sum::<usize>(),
            "REVISIONS has revisions that Postgres lacks: was Postgres restored from a backup?"
        );
    }
    Ok(found)
}

/// Returns the place in REVISIONS up to which Postgres has every revision: the earliest of the
/// places that the holders keep, or the place of the sweeper if that one is later, or if REVISIONS
/// no longer is the stream that one of the holders knew.
async fn place(shared: &Shared, db: &mut PgConnection) -> Result<Position, Error> {
    let swept = shared
        .within(store::sweep::compared(db, Stream::Revisions))
        .await?;
    let by_partition = shared.within(store::position::known(db)).await?;
    let asking = async {
        let end = shared.bus.end_of(Stream::Revisions).await?;
        known_to_all(&shared.bus, &by_partition, end).await
    };
    let known = shared.while_pinging(db, asking).await?;
    Ok(match known {
        Some(known)
            if known.stream_created_ns != swept.stream_created_ns
                || known.sequence > swept.sequence =>
        {
            known
        }
        _ => swept,
    })
}

/// Returns the earliest of the places that holders keep; `None` unless all of them are places of
/// the stream as it is now.
async fn known_to_all(
    bus: &Bus,
    by_partition: &BTreeMap<u16, Option<Known>>,
    end: Position,
) -> Result<Option<Position>, ReadError> {
    let mut earliest = None;
    for partition in 0..bus.partitions() {
        let Some(Some(known)) = by_partition.get(&partition) else {
            return Ok(None);
        };
        if Some(known.stream_created_ns) != end.stream_created_ns
            || known.sequence > end.sequence
            || !bus.still_holds(partition, known).await?
        {
            return Ok(None);
        }
        earliest = Some(earliest.unwrap_or(u64::MAX).min(known.sequence));
    }
    Ok(earliest.map(|sequence| Position {
        sequence,
        time_ns: None,
        ..end
    }))
}
