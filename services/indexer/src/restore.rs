//! Postgres older than REVISIONS: finds the revisions that it lost, and inserts them again.

mod adopt;
pub(crate) mod find;
pub(crate) mod unrecorded;

pub(crate) use adopt::adopt;
