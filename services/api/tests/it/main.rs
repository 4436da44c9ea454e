//! The API on a real Postgres, with rows that the tests write into the tables: the answers about
//! these rows, and the errors.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in tests a panic is the report, in their helpers too"
)]

mod acts;
mod api_triggers;
mod approvals;
mod audit;
mod contents;
mod coverage;
mod digests;
mod events;
mod explain;
mod faults;
mod feed;
mod forgery;
mod formats;
mod history;
mod listing;
mod manifests;
mod names;
mod newest;
mod openapi;
mod orders;
mod outcome;
mod pages_acts;
mod pages_crawled;
mod pages_folders;
mod pages_forms;
mod pages_holds;
mod pages_home;
mod pages_identity;
mod pages_reports;
mod pages_repository;
mod pages_rollouts;
mod pages_search;
mod pages_session;
mod pages_sources;
mod pages_tag;
mod pages_triggers;
mod pages_unchanged;
mod prefixes;
mod quarantine;
mod questions;
mod reasons;
mod renames;
mod replay;
mod report;
mod reports_direct;
mod reports_whole;
mod resolve;
mod rollouts;
mod rows;
mod server;
mod signatures;
mod together;
mod tokens;
mod triggers;
