//! The SQL that reads history: the revision in force at a time, the revisions of a tag, its figures
//! and its row of time, the images that had a digest, the digests that begin with given digits,
//! names and commits by a text, the number of images that match, registries, repositories, tags,
//! rows of time, manifests, the revisions of a partition in the order recorded, the newest
//! revisions, the changes of the last day, the activity of sources, the changes of repositories for
//! a replay, and reports.
//!
//! In scope: `select` statements over the tables that the indexer writes. Each function takes a
//! connection and returns plain rows, or the [`sqlx::Error`] of its statement. Lists are read by
//! key, never by offset: the caller passes the key of the last row that it has, and a limit.
//!
//! Out of scope: writing (the indexer's `store`), tables of other services (their `store`), and
//! the pages, cursors and problems of HTTP (the api).

pub mod activity;
pub mod changes;
pub mod contents;
pub mod counted;
pub mod coverage;
pub mod days;
pub mod digests;
pub mod folders;
pub mod images;
pub mod instant;
pub mod lane;
pub mod lanes;
pub mod lost;
pub mod manifests;
pub mod names;
pub mod prefix;
pub mod recorded;
pub mod registries;
pub mod replayed;
pub mod reports;
pub mod resolve;
pub mod search;
pub mod slots;
pub mod sources;
pub mod summary;
mod tag;
pub mod tags;

pub use tag::tag_id;
