//! Row ids of tags, kept between batches.

use std::collections::HashMap;

use tagtrail_proto::{Image, Registry, Repository, Tag};

use crate::received::ReceivedPush;

/// Most row ids in memory for all partitions of a process: about 10 MB.
const MOST: usize = 100_000;

/// Row ids of committed tags, dropped with the session. The maps are nested, so that a lookup needs
/// no copy of a name.
#[derive(Debug, Default)]
pub(crate) struct TagIds {
    ids: HashMap<Registry, HashMap<Repository, HashMap<Tag, i64>>>,
    count: usize,
}

impl TagIds {
    /// Returns the row id of the tag of a push, if known.
    pub(crate) fn of(&self, push: &ReceivedPush) -> Option<i64> {
        let tags = self.ids.get(&push.registry)?.get(&push.repository)?;
        tags.get(push.tag.as_ref()?).copied()
    }

    /// Adds row ids.
    pub(crate) fn learn(&mut self, ids: HashMap<Image, i64>) {
        for (image, id) in ids {
            let repositories = self.ids.entry(image.registry).or_default();
            let tags = repositories.entry(image.repository).or_default();
            self.count += usize::from(tags.insert(image.tag, id).is_none());
        }
    }

    /// Empties the map when it exceeds the share of one partition.
    pub(crate) fn bound(&mut self, partitions: u16) {
        if self.count > MOST / usize::from(partitions.max(1)) {
            *self = TagIds::default();
        }
    }
}
