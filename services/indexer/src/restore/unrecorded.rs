//! Unrecorded revisions: REVISIONS has these revisions, but Postgres, restored from an older
//! backup, lacks them.
//!
//! As a rule no repair is needed: PUSHES is read again from the older position, and the same pushes
//! give the same revisions with the same numbers. But PUSHES may have lost these pushes by then,
//! and a new push would get a number that subscribers know with another digest. So Postgres keeps
//! places in REVISIONS up to which no revision is unrecorded: each holder moves its own on with the
//! ordinal that it has published, and the sweeper one for all. Each indexer reads REVISIONS from
//! there before publishing anything (`find.rs`). If a new revision contradicts the published
//! revision of the same number, or PUSHES is read to the end, the unrecorded revisions are
//! inserted, with the pushes that these revisions imply (`adopt.rs`).
//!
//! A process searches once and relies on the result as long as the sessions live: revisions
//! published later were committed to this Postgres before.

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

/// The unrecorded revisions of a partition, by image and number, with the digest and time of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unrecorded(
    pub(crate) HashMap<Image, BTreeMap<u64, (Option<Digest>, OffsetDateTime)>>,
);

impl Unrecorded {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the images with unrecorded revisions.
    pub(crate) fn images(&self) -> BTreeSet<Image> {
        self.0.keys().cloned().collect()
    }

    /// Removes images, whose revisions are recorded now.
    pub(crate) fn remove(&mut self, images: &BTreeSet<Image>) {
        self.0.retain(|image, _| !images.contains(image));
    }

    /// Checks that new revisions equal the published revisions of the same numbers.
    ///
    /// # Errors
    /// [`Error::Forgotten`] with the images whose revisions differ.
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

    /// Returns the new revisions without those that REVISIONS already has.
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

    /// Returns the unrecorded revisions of these images from REVISIONS, at most the last hundred of
    /// each.
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
            // By number, so that a revision that was published twice counts once.
            let revisions: BTreeMap<u64, Revision> = messages
                .iter()
                .filter_map(revision)
                .filter(|found| {
                    missing.is_some_and(|missing| missing.contains_key(&found.revision))
                })
                .map(|found| (found.revision, found))
                .collect();
            published.insert(image.clone(), revisions.into_values().collect());
        }
        Ok(published)
    }
}

/// The unrecorded revisions that a process found, by partition; `None` before the first search.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnrecordedCache(pub(crate) Arc<Mutex<Option<HashMap<u16, Unrecorded>>>>);

impl UnrecordedCache {
    /// Empties the cache, for a restored Postgres may have fewer revisions.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// Parses the revision in a message, if the message is on the subject of its image.
pub(crate) fn revision(message: &Delivery) -> Option<Revision> {
    let event: Event<Revision> = serde_json::from_slice(&message.payload).ok()?;
    let subject = Subject::of_revisions(&event.data.image()).to_string();
    (subject == message.subject).then_some(event.data)
}
