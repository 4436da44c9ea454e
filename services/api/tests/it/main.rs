//! The API against a real Postgres, with rows written straight into the tables: what it says about them, and when it can't.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in tests a panic is the report, in their helpers too"
)]

mod digests;
mod faults;
mod feed;
mod history;
mod manifests;
mod openapi;
mod questions;
mod report;
mod resolve;
mod rollouts;
mod rows;
mod server;
mod tokens;
mod triggers;
