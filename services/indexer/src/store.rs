//! All SQL of the indexer. Every function takes the connection that holds the partition (the sweeper's own, in `sweep`), inside the batch's
//! transaction where it writes. Sets in, sets out: no statement is run once per fact.

pub(crate) mod facts;
pub(crate) mod position;
pub(crate) mod revisions;
pub(crate) mod sweep;
pub(crate) mod tags;
