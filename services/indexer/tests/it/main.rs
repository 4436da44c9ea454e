//! The indexer on real servers.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod bench;
mod coverage;
mod days;
mod faults;
mod history;
mod manifests;
mod moves;
mod recheck;
mod republish;
mod sweep;
