//! Revisions that were published and that the store does not know, because it was restored from an older backup.
//!
//! As a rule nothing has to be done: PUSHES is read again from the older position, and the same facts give the same revisions the
//! same numbers. But PUSHES may have lost those facts by then, and a new push would be given a number that subscribers know as
//! another digest. So the store notes a place in REVISIONS up to which it knows everything, the sweeper moves that place on, and each
//! indexer looks at what stands behind it before it publishes anything (`find.rs`). Where a new revision contradicts what was published under its
//! number, or PUSHES has no more to tell, what was published is taken into the store, as the facts that it tells of (`adopt.rs`).
//!
//! Once a process has looked, it need not look again as long as its sessions live: all that is published from then on is committed
//! to this store before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tagtrail_bus::consume::Delivery;
use tagtrail_bus::topology::Stream;
use tagtrail_bus::{Bus, BusError};
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Digest, Event, Image, Revision, Subject};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::error::Error;

/// What was published of the images of a partition beyond what the store knows: digest and time by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unrecorded(
    pub(crate) HashMap<Image, BTreeMap<u64, (Option<Digest>, OffsetDateTime)>>,
);

impl Unrecorded {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All images of which anything is missing.
    pub(crate) fn images(&self) -> BTreeSet<Image> {
        self.0.keys().cloned().collect()
    }

    /// Forgets images: the store knows all of them now.
    pub(crate) fn remove(&mut self, images: &BTreeSet<Image>) {
        self.0.retain(|image, _| !images.contains(image));
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
    pub(crate) fn still_to_publish<C>(&mut self, new: Vec<(Recorded, C)>) -> Vec<(Recorded, C)> {
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
pub(crate) struct UnrecordedCache(pub(crate) Arc<Mutex<Option<HashMap<u16, Unrecorded>>>>);

impl UnrecordedCache {
    /// Whatever was found may be wrong from now on.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// The revision that a message tells of, if it stands where it belongs.
pub(crate) fn revision(message: &Delivery) -> Option<Revision> {
    let event: Event<Revision> = serde_json::from_slice(&message.payload).ok()?;
    let subject = Subject::of_revisions(&event.data.image()).to_string();
    (subject == message.subject).then_some(event.data)
}
