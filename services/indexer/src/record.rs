//! Recording: holds partitions of PUSHES, numbers the revisions of their pushes, and publishes
//! them.

mod apply;
mod batch;
mod claim;
mod hold;
mod number;
mod partition;
mod publish;
mod source;
mod tag_ids;
mod takeover;

pub(crate) use claim::partitions;
