//! All SQL of the indexer. Each function takes a connection: the session that holds the partition
//! (`write` writes all that follows from a segment of pushes); in `sweep` the session of the
//! sweeper; in `manifests`, `coverage` and `days` the session that holds the lock. A statement
//! takes a set and returns a set; none runs once per push.

pub(crate) mod coverage;
pub(crate) mod days;
pub(crate) mod doubts;
pub(crate) mod manifests;
pub(crate) mod position;
pub(crate) mod pushes;
pub(crate) mod revisions;
pub(crate) mod stats;
pub(crate) mod sweep;
pub(crate) mod tags;
pub(crate) mod write;
