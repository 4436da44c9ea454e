//! Positions in streams, as several tables keep them in the columns `stream_created_ns`,
//! `applied_seq` and `applied_time_ns`.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tagtrail_proto::Position;

use crate::row;

/// Reads a position from its three columns.
///
/// # Errors
/// [`sqlx::Error`] if a column is missing.
pub fn of_row(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        stream_created_ns: row.try_get("stream_created_ns")?,
        sequence: row::unsigned(row.try_get("applied_seq")?),
        time_ns: row.try_get("applied_time_ns")?,
    })
}
