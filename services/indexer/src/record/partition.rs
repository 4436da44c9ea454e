//! What the holder of a partition remembers between batches.

use crate::record::tag_ids::TagIds;
use crate::restore::unrecorded::Unrecorded;
use crate::store::position::Progress;

/// The partition's state in memory, as of the last commit.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) number: u16,
    /// Of so many.
    pub(crate) partitions: u16,
    /// When PUSHES was created, as it is read now.
    pub(crate) stream_created_ns: i64,
    pub(crate) progress: Progress,
    /// Pushes of the last batch were known already.
    pub(crate) repeats: bool,
    pub(crate) tag_ids: TagIds,
    pub(crate) unrecorded: Unrecorded,
}
