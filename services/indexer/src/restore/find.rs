//! Looking for revisions that were published and that the store does not know; see [`crate::restore::unrecorded`].

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;
use tagtrail_bus::consume::Position;
use tagtrail_bus::topology::Stream;
use tagtrail_proto::{Image, Subject, partition_of};

use crate::error::Error;
use crate::restore::unrecorded::{Unrecorded, UnrecordedCache, revision};
use crate::shared::Shared;
use crate::store;

/// Messages looked at between two questions to the store.
pub(crate) const MESSAGES: usize = 1000;

/// What was published of a partition and is not in the store; to be asked after fencing.
pub(crate) async fn unrecorded_of(
    shared: &Shared,
    cache: &UnrecordedCache,
    number: u16,
    db: &mut PgConnection,
) -> Result<Unrecorded, Error> {
    // One looks for all partitions; the others wait meanwhile.
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
    // Some of it may have been read or adopted since.
    let issued = store::tags::issued(db, unrecorded.0.keys());
    let issued = shared.within(issued).await?;
    for (numbers, issued) in unrecorded.0.values_mut().zip(issued) {
        numbers.retain(|number, _| *number > issued);
    }
    unrecorded.0.retain(|_, numbers| !numbers.is_empty());
    Ok(unrecorded)
}

/// Looks at what REVISIONS holds behind the place up to which the store knows everything. If all of it is known, moves that place on.
pub(crate) async fn find(
    shared: &Shared,
    db: &mut PgConnection,
) -> Result<HashMap<u16, Unrecorded>, Error> {
    let mut found: HashMap<u16, Unrecorded> = HashMap::new();
    let place = shared.within(store::sweep::known(db)).await?;
    let held = shared
        .while_pinging(db, shared.bus.held(Stream::Revisions))
        .await?;
    // Fences too: with them the end of the stream is noticed, whatever stands there.
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
        // Also keeps the session alive.
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
        let end = Position {
            sequence: *held.end(),
            time_ns: None,
            ..reader.position()
        };
        shared.within(store::sweep::know(db, end)).await?;
    } else {
        tracing::warn!(
            images = found
                .values()
                .map(|unrecorded| unrecorded.0.len())
                .sum::<usize>(),
            "revisions were published that the store does not know: was it restored from a backup?"
        );
    }
    Ok(found)
}
