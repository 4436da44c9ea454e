//! Indexes of large tables, built before the migration that needs them, while services write.
//!
//! A migration is a transaction, and an index that is built in a transaction keeps writers waiting
//! until its end. So [`build`] makes the same changes before, each as a statement by itself, and
//! the migration only makes those that are missing, as on an empty store. A build that was cut off
//! leaves an invalid index, which the next attempt replaces.

use sqlx::{AssertSqlSafe, PgConnection};

/// A change of an index.
#[derive(Debug)]
enum Change {
    /// Builds the index: name, then table, columns and condition.
    Build(&'static str, &'static str),
    /// Drops the index.
    Drop(&'static str),
}

/// The changes before each migration, as in its file. New indexes come first, so that no question
/// is without an index.
const CHANGES: &[(i64, &[Change])] = &[
    (
        59,
        &[
            Change::Build(
                "manifest_by_commit",
                "manifest (revision text_pattern_ops) where revision is not null",
            ),
            Change::Drop("manifest_by_revision"),
        ],
    ),
    (
        19,
        &[
            Change::Build(
                "push_from_receipt",
                "push (tag_id, effective_at) where tag_id is not null and effective_at <> occurred_at",
            ),
            Change::Build(
                "revision_of_digest",
                "revision (digest, tag_id, effective_at) where digest is not null",
            ),
            Change::Drop("push_in_order"),
            Change::Drop("revision_by_digest"),
        ],
    ),
];

/// Makes the changes of indexes of a migration that is not applied yet, if the store has pushes.
/// The caller holds the lock of [`lock`].
///
/// # Errors
/// [`sqlx::Error`] of a statement. A later call goes on with the rest.
pub async fn build(db: &mut PgConnection, migration: i64) -> Result<(), sqlx::Error> {
    let changes = CHANGES.iter().find(|(version, _)| *version == migration);
    let Some((_, changes)) = changes else {
        return Ok(());
    };
    if !is_store(db).await? || is_applied(db, migration).await? {
        return Ok(());
    }
    for change in *changes {
        match change {
            Change::Build(name, definition) => build_one(db, name, definition).await?,
            Change::Drop(name) => {
                let sql = format!("drop index concurrently if exists {name}");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *db).await?;
            }
        }
    }
    Ok(())
}

/// Takes the lock of the session that migrates, if it is free. A session that waited for the lock
/// in Postgres would keep indexes from being finished, so the caller asks again.
///
/// # Errors
/// [`sqlx::Error`] of the statement.
pub async fn lock(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // "tag2", as the locks of services in crates/postgres/src/lock.rs.
    sqlx::query_scalar("select pg_try_advisory_lock(1952540466, 6)")
        .fetch_one(db)
        .await
}

async fn is_store(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let there: bool = sqlx::query_scalar("select to_regclass('push') is not null")
        .fetch_one(&mut *db)
        .await?;
    if !there {
        return Ok(false);
    }
    sqlx::query_scalar("select exists (select from push)")
        .fetch_one(db)
        .await
}

async fn is_applied(db: &mut PgConnection, migration: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from _sqlx_migrations where version = $1)")
        .bind(migration)
        .fetch_one(db)
        .await
}

async fn build_one(db: &mut PgConnection, name: &str, definition: &str) -> Result<(), sqlx::Error> {
    let valid: Option<bool> =
        sqlx::query_scalar("select indisvalid from pg_index where indexrelid = to_regclass($1)")
            .bind(name)
            .fetch_optional(&mut *db)
            .await?;
    if valid == Some(true) {
        return Ok(());
    }
    if valid == Some(false) {
        let sql = format!("drop index concurrently {name}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *db).await?;
    }
    let sql = format!("create index concurrently {name} on {definition}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await?;
    Ok(())
}
