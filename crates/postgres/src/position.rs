//! Positions in streams, as several tables keep them in the columns `stream_created_ns`,
//! `applied_seq` and `applied_time_ns`.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
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

/// Returns the stream of pushes that each partition is read from, if it is not PUSHES itself.
///
/// # Errors
/// [`sqlx::Error`].
pub async fn sources(db: &mut PgConnection) -> Result<HashMap<u16, String>, sqlx::Error> {
    let rows = sqlx::query(
        "select partition, source from position where stream = 'PUSHES' and source is not null",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            Ok((
                row::partition(found, "partition")?,
                found.try_get("source")?,
            ))
        })
        .collect()
}
