//! All SQL of the api, with what it gives: a file for each resource. Every question is one statement, and so sees one snapshot;
//! lists are read by key, never by offset.

pub(crate) mod rollouts;
pub(crate) mod triggers;
