//! The API against a real Postgres, with rows written straight into the tables: what it says about them, and when it can't.

#![expect(
    clippy::unwrap_used,
    reason = "in tests a panic is the report, in their helpers too"
)]

mod digests;
mod faults;
mod history;
mod questions;
mod resolve;
mod rollouts;
mod rows;
mod server;
mod triggers;
