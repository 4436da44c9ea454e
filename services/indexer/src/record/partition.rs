//! The state of a partition that its holder keeps in memory.

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
}
