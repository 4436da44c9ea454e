//! The Postgres schema, as forward-only SQL files, and the rights of the services to its tables.
//!
//! In scope: every table, index, constraint and append-only guard. One [`MIGRATOR`] for the binary
//! and all tests, so that a test database has the schema of production. [`grant`] for the rights.
//! [`indexes`] for the indexes that are built while services write.
//!
//! Out of scope: queries (`store/` in each service, `crates/history`, `crates/postgres`), and the
//! decision to migrate: only `tagtrail migrate` and `tagtrail up` do, because two services that
//! migrate would fail each other on a newer version.

pub mod indexes;

use sqlx::PgConnection;

/// The migrations of `migrations/sql`, embedded in the binary. Running them twice is harmless.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./sql");

/// Keeps notices of this session, such as "relation already exists, skipping", out of the log.
/// Warnings of Postgres stay.
///
/// # Errors
/// The connection fails.
pub async fn quiet(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("set client_min_messages = warning")
        .execute(connection)
        .await
        .map(|_| ())
}

/// Makes the service roles that are missing, and gives each role the rights listed in
/// `migrations/grants.sql`, in one transaction. Running it twice, or twice at once, is harmless.
///
/// # Errors
/// A row of the list names a missing table, or the connection fails. A role that is missing and
/// that this account may not make is no error.
pub async fn grant(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(include_str!("../grants.sql"))
        .execute(connection)
        .await
        .map(|_| ())
}
