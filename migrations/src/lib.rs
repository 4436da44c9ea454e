//! The Postgres schema, as forward-only SQL files.
//!
//! In scope: every table, index, constraint and append-only guard. One [`MIGRATOR`] for the binary and all tests, so that
//! a test database is what production runs.
//!
//! Out of scope: queries (each service has a `store.rs`), and who runs the migrations: only `tagtrail migrate` and
//! `tagtrail up` do; two services that migrate would fail each other on a newer version.

/// The migrations of `migrations/sql`, embedded in the binary. Running them twice is harmless.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./sql");
