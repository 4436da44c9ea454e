//! All SQL of the indexer. Every function takes the connection that holds the partition (the sweeper's own, in `sweep`; that of
//! whoever has the lock, in `manifests`), inside the batch's transaction where it writes. Sets in, sets out: no statement is run once
//! per fact.

pub(crate) mod manifests;
pub(crate) mod position;
pub(crate) mod pushes;
pub(crate) mod revisions;
pub(crate) mod sweep;
pub(crate) mod tags;
