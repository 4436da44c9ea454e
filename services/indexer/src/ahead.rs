//! Revisions that were published and that the store does not know, because it was restored from an older backup.
//!
//! As a rule nothing has to be done: PUSHES is read again from the older position, and the same facts give the same revisions the
//! same numbers. But PUSHES may have lost those facts by then, and a new push would be given a number that subscribers know as
//! another digest. So the store notes a place in REVISIONS up to which it knows everything, the sweeper moves that place on, and each
//! indexer looks at what stands behind it before it publishes anything. Where a new revision contradicts what was published under its
//! number, or PUSHES has no more to tell, what was published is taken into the store, as the facts that it tells of.
//!
//! Once a process has looked, it need not look again as long as its sessions live: all that is published from then on is committed
//! to this store before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_bus::consume::{Delivery, Position, Reader};
use tagtrail_bus::topology::Stream;
use tagtrail_bus::{Bus, BusError};
use tagtrail_postgres::recorded::Recorded;
use tagtrail_proto::{Digest, Event, Image, Revision, Subject, TimeSource, partition_of};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::apply::{Cause, Partition, TagIds};
use crate::error::Error;
use crate::shared::Shared;
use crate::store;
use crate::store::tags::NewHead;
use crate::timeline::Numbered;

/// Messages looked at between two questions to the store.
const MESSAGES: usize = 1000;
/// The next message must come in this time: those that are read are known to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was published of the images of a partition beyond what the store knows: digest and time by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ahead(HashMap<Image, BTreeMap<u64, (Option<Digest>, OffsetDateTime)>>);

impl Ahead {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All images of which anything is missing.
    pub(crate) fn images(&self) -> BTreeSet<Image> {
        self.0.keys().cloned().collect()
    }

    /// Whether these new revisions are what was published under their numbers, if anything was.
    ///
    /// # Errors
    /// [`Error::Forgotten`] with the images where not.
    pub(crate) fn check<'a>(&self, new: impl Iterator<Item = &'a Recorded>) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let contradicts = |new: &&Recorded| {
            let published = self.0.get(&new.event.image());
            published
                .and_then(|published| published.get(&new.event.revision))
                .is_some_and(|old| (&old.0, old.1) != (&new.event.digest, new.event.occurred_at))
        };
        let forgotten: BTreeSet<Image> = new
            .filter(contradicts)
            .map(|new| new.event.image())
            .collect();
        if forgotten.is_empty() {
            Ok(())
        } else {
            Err(Error::Forgotten(forgotten))
        }
    }

    /// Those of some new revisions, committed now, that are still to be published: some may have been, before the store forgot them.
    pub(crate) fn still_to_publish(
        &mut self,
        new: Vec<(Recorded, Cause)>,
    ) -> Vec<(Recorded, Cause)> {
        if self.0.is_empty() {
            return new;
        }
        let to_publish = new
            .into_iter()
            .filter(|(new, _)| {
                let published = self.0.get_mut(&new.event.image());
                published.is_none_or(|published| published.remove(&new.event.revision).is_none())
            })
            .collect();
        self.0.retain(|_, published| !published.is_empty());
        to_publish
    }

    /// What was published of these images beyond what the store knows, as REVISIONS holds it: the last hundred of each at most.
    pub(crate) async fn published(
        &self,
        bus: &Bus,
        images: &BTreeSet<Image>,
    ) -> Result<BTreeMap<Image, Vec<Revision>>, Error> {
        let mut published = BTreeMap::new();
        for image in images {
            let subject = Subject::of_revisions(image);
            let messages = bus.messages_of(Stream::Revisions, &subject).await;
            let messages = messages.map_err(|error| BusError::Unreachable(error.to_string()))?;
            let missing = self.0.get(image);
            // By number, so that one that was published twice counts once.
            let revisions: BTreeMap<u64, Revision> = messages
                .iter()
                .filter_map(revision)
                .filter(|told| missing.is_some_and(|missing| missing.contains_key(&told.revision)))
                .map(|told| (told.revision, told))
                .collect();
            published.insert(image.clone(), revisions.into_values().collect());
        }
        Ok(published)
    }
}

/// What a process knows to be published and not in the store, by partition; `None`: it has not looked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(Arc<Mutex<Option<HashMap<u16, Ahead>>>>);

impl Known {
    /// What was published of a partition and is not in the store; to be asked after fencing.
    pub(crate) async fn take_over(
        &self,
        shared: &Shared,
        number: u16,
        db: &mut PgConnection,
    ) -> Result<Ahead, Error> {
        // One looks for all partitions; the others wait meanwhile.
        let locking = async { Ok::<_, Error>(self.0.lock().await) };
        let mut known = shared.meanwhile(db, locking).await?;
        if known.is_none() {
            *known = Some(look(shared, db).await?);
        }
        let of_all = known.as_ref();
        let Some(mut ahead) = of_all.and_then(|all| all.get(&number)).cloned() else {
            return Ok(Ahead::default());
        };
        drop(known);
        // Some of it may have been read or adopted since.
        let issued = store::tags::issued(db, ahead.0.keys());
        let issued = shared.within(issued).await?;
        for (numbers, issued) in ahead.0.values_mut().zip(issued) {
            numbers.retain(|number, _| *number > issued);
        }
        ahead.0.retain(|_, numbers| !numbers.is_empty());
        Ok(ahead)
    }

    /// Whatever was found may be wrong from now on.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// Looks at what REVISIONS holds behind the place up to which the store knows everything. If all of it is known, moves that place on.
pub(crate) async fn look(
    shared: &Shared,
    db: &mut PgConnection,
) -> Result<HashMap<u16, Ahead>, Error> {
    let mut found: HashMap<u16, Ahead> = HashMap::new();
    let place = shared.within(store::sweep::known(db)).await?;
    let held = shared
        .meanwhile(db, shared.bus.held(Stream::Revisions))
        .await?;
    // Fences too: with them the end of the stream is noticed, whatever stands there.
    let opening = shared.bus.read(Stream::Revisions, "tagtrail.>", place);
    let mut reader = shared.meanwhile(db, opening).await?;
    let created_ns = reader.stream_created_ns();
    let after = reader.afresh().map_or(place.sequence, |_| 0);
    let mut at_end = held.is_empty() || *held.end() <= after;
    while !at_end {
        let reading = messages(&mut reader, *held.end());
        let some = shared.meanwhile(db, reading).await?;
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
                let ahead = found.entry(partition).or_default();
                ahead.0.entry(image).or_default().extend(numbers);
            }
        }
    }
    if found.is_empty() {
        let end = Position {
            stream_created_ns: Some(created_ns),
            sequence: *held.end(),
            time_ns: None,
        };
        shared.within(store::sweep::know(db, end)).await?;
    } else {
        tracing::warn!(
            images = found.values().map(|ahead| ahead.0.len()).sum::<usize>(),
            "revisions were published that the store does not know: was it restored from a backup?"
        );
    }
    Ok(found)
}

/// The next messages, up to the one with sequence `end` at most.
async fn messages(reader: &mut Reader, end: u64) -> Result<Vec<Delivery>, Error> {
    let mut some = Vec::new();
    while some.len() < MESSAGES {
        let message = tokio::time::timeout(PATIENCE, reader.next())
            .await
            .map_err(|_| Error::Ended("stream of revisions"))??;
        let at_end = message.sequence >= end;
        some.push(message);
        if at_end {
            break;
        }
    }
    Ok(some)
}

/// The revision that a message tells of, if it stands where it belongs.
fn revision(message: &Delivery) -> Option<Revision> {
    let event: Event<Revision> = serde_json::from_slice(&message.payload).ok()?;
    let subject = Subject::of_revisions(&event.data.image()).to_string();
    (subject == message.subject).then_some(event.data)
}

impl Partition {
    /// Takes what was published of images into the store, as the facts that it tells of: each had or lost a digest at a time. Gives
    /// the number of revisions.
    pub(crate) async fn adopt(
        &mut self,
        db: &mut PgConnection,
        published: BTreeMap<Image, Vec<Revision>>,
    ) -> Result<u64, Error> {
        // Those of the batch that failed were made in its transaction.
        self.tag_ids = TagIds::default();
        let images: BTreeSet<Image> = published.keys().cloned().collect();
        let mut tx = db.begin().await?;
        let mut to =
            store::position::advance(&mut tx, self.number, &self.progress, self.progress, true)
                .await?;
        let recorded_at = to.recorded_at()?;
        let ids = store::tags::tag_ids(&mut tx, &images).await?;
        let heads =
            store::tags::lock_tags(&mut tx, &ids.values().copied().collect::<Vec<_>>()).await?;
        let (mut revisions, mut new_heads) = (Vec::new(), Vec::new());
        for (image, tag_id) in &ids {
            let (Some(published), Some(head)) = (published.get(image), heads.get(tag_id)) else {
                return Err(Error::Inconsistent("a forgotten tag has no row"));
            };
            let published: Vec<&Revision> = published.iter().collect();
            let push_ids =
                store::facts::add_published(&mut tx, *tag_id, &published, recorded_at).await?;
            let known = |number: u64| {
                number <= head.issued || published.iter().any(|other| other.revision == number)
            };
            let mut new = NewHead {
                tag_id: *tag_id,
                issued: head.issued,
                head: head.head.clone(),
                latest_at: None,
            };
            for (revision, push_id) in published.iter().zip(push_ids) {
                to.recorded += 1;
                let mut event = (*revision).clone();
                event.recorded_at = recorded_at;
                // The stream holds a hundred of a tag: what came before may be lost for good, a head among it.
                if !known(event.head.revision) {
                    event.head.revision = event.revision;
                }
                let numbered = Numbered {
                    at: event.occurred_at,
                    number: event.revision,
                    digest: event.digest.clone(),
                };
                new.issued = new.issued.max(event.revision);
                new.latest_at = new.latest_at.max(Some(event.occurred_at));
                if new
                    .head
                    .as_ref()
                    .is_none_or(|head| (head.at, head.number) < (numbered.at, numbered.number))
                {
                    new.head = Some(numbered);
                }
                revisions.push(Recorded {
                    tag_id: *tag_id,
                    ordinal: to.recorded,
                    push_id,
                    previous_at: None,
                    head_at: event.occurred_at,
                    time_source: TimeSource::Event,
                    event,
                });
            }
            new_heads.push(new);
        }
        let rows: Vec<&Recorded> = revisions.iter().collect();
        store::revisions::add_revisions(&mut tx, self.number, &rows).await?;
        store::tags::update_tags(&mut tx, &new_heads).await?;
        tx.commit().await?;
        self.progress = to;
        for image in &images {
            self.ahead.0.remove(image);
        }
        Ok(revisions.len() as u64)
    }
}
