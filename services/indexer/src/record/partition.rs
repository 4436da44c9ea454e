//! The state of a partition that its holder keeps in memory.

use tagtrail_bus::fence::{Fence, Known};

use crate::recheck::AskedRegistries;
use crate::record::tag_ids::TagIds;
use crate::restore::unrecorded::Unrecorded;
use crate::store::position::Progress;

/// The state of a partition, as of the last commit.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) number: u16,
    /// The number of all partitions.
    pub(crate) partitions: u16,
    /// The creation time of the stream PUSHES that is being read, in nanoseconds since 1970.
    pub(crate) stream_created_ns: i64,
    pub(crate) progress: Progress,
    /// Some pushes of the last batch were recorded already.
    pub(crate) repeats: bool,
    pub(crate) tag_ids: TagIds,
    pub(crate) unrecorded: Unrecorded,
    pub(crate) asked: AskedRegistries,
    pub(crate) fence: Fence,
}

impl Partition {
    /// Returns the place in REVISIONS up to which Postgres has every message of the partition. The
    /// place moves on with all that the process publishes, except while Postgres lacks published
    /// revisions.
    pub(crate) fn known(&self) -> Option<Known> {
        if self.unrecorded.is_empty() {
            Some(self.fence.known())
        } else {
            self.progress.known
        }
    }
}
