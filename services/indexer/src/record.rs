//! Recording: holds partitions of PUSHES, numbers the revisions of their pushes, and publishes them.

pub(crate) mod apply;
mod batch;
pub(crate) mod claim;
mod partition;
mod publish;
mod recheck;
pub(crate) mod tag_ids;
mod takeover;
