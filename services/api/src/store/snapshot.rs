//! The state of the whole store, as a text that is compared.

use sqlx::PgConnection;

/// Returns a text that is the same twice only if no transaction of the server has ended in between:
/// the start of the server, and the transactions whose changes are visible. `None` on a standby,
/// whose list of transactions is not complete.
///
/// # Errors
/// Those of Postgres.
pub(crate) async fn seen(db: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select case when not pg_is_in_recovery() then
             extract(epoch from pg_postmaster_start_time())::text || ' ' || pg_current_snapshot()::text end",
    )
    .fetch_one(db)
    .await
}
