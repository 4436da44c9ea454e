//! Row ids of tags, remembered between batches.

use std::collections::HashMap;

use tagtrail_proto::{Image, Registry, Repository, Tag};

use crate::received::ReceivedPush;

/// What all partitions of a process together remember at most: about 10 MB.
const MOST: usize = 100_000;

/// Filled only from what was committed; thrown away with the session. Nested, so that a look needs no copy of a name.
#[derive(Debug, Default)]
pub(crate) struct TagIds {
    ids: HashMap<Registry, HashMap<Repository, HashMap<Tag, i64>>>,
    count: usize,
}

impl TagIds {
    /// The row of the tag that a push is about, if it is known.
    pub(crate) fn of(&self, push: &ReceivedPush) -> Option<i64> {
        let tags = self.ids.get(&push.registry)?.get(&push.repository)?;
        tags.get(push.tag.as_ref()?).copied()
    }

    /// Learns more.
    pub(crate) fn learn(&mut self, ids: HashMap<Image, i64>) {
        for (image, id) in ids {
            let repositories = self.ids.entry(image.registry).or_default();
            let tags = repositories.entry(image.repository).or_default();
            self.count += usize::from(tags.insert(image.tag, id).is_none());
        }
    }

    /// Forgets all, where it is more than one of so many partitions may remember.
    pub(crate) fn bound(&mut self, partitions: u16) {
        if self.count > MOST / usize::from(partitions.max(1)) {
            *self = TagIds::default();
        }
    }
}
