//! How far a partition is applied and published.

use sqlx::{PgConnection, Row as _};
use tagtrail_bus::consume::Position;
use tagtrail_postgres::row;
use time::OffsetDateTime;

use crate::error::Error;

const STREAM: &str = "PUSHES";

/// Ends a transaction that may have been left open; harmless if there is none.
pub(crate) async fn rollback(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("rollback").execute(db).await.map(|_| ())
}

/// How far a partition is applied and published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) position: Position,
    /// Ordinal of the last revision that REVISIONS acknowledged.
    pub(crate) published: u64,
    /// Ordinal of the last revision recorded.
    pub(crate) recorded: u64,
    /// Time of the last batch.
    pub(crate) recorded_at: Option<OffsetDateTime>,
}

/// Reads the progress of a partition; the first time makes its row.
pub(crate) async fn progress(
    db: &mut PgConnection,
    partition: u16,
) -> Result<Progress, sqlx::Error> {
    sqlx::query("insert into position (stream, partition) values ($1, $2) on conflict do nothing")
        .bind(STREAM)
        .bind(row::small(partition))
        .execute(&mut *db)
        .await?;
    let row = sqlx::query(
        "select stream_created_ns, applied_seq, applied_time_ns, recorded_at, published,
                coalesce((select max(ordinal) from revision r where r.partition = p.partition), 0) as recorded
         from position p where stream = $1 and partition = $2",
    )
    .bind(STREAM)
    .bind(row::small(partition))
    .fetch_one(db)
    .await?;
    Ok(Progress {
        position: Position {
            stream_created_ns: row.try_get("stream_created_ns")?,
            sequence: row::unsigned(row.try_get("applied_seq")?),
            time_ns: row.try_get("applied_time_ns")?,
        },
        published: row::unsigned(row.try_get("published")?),
        recorded: row::unsigned(row.try_get("recorded")?),
        recorded_at: row.try_get("recorded_at")?,
    })
}

/// Moves the position on, in the transaction of what was read. Fails if it is not where this holder left it.
pub(crate) async fn advance(
    db: &mut PgConnection,
    partition: u16,
    from: Position,
    to: Position,
    published: u64,
    recorded_at: OffsetDateTime,
) -> Result<(), Error> {
    let moved = sqlx::query(
        "update position
         set stream_created_ns = $3, applied_seq = $4, applied_time_ns = $5, published = greatest(published, $6), recorded_at = $7
         where stream = $1 and partition = $2 and applied_seq = $8 and stream_created_ns is not distinct from $9",
    )
    .bind(STREAM)
    .bind(row::small(partition))
    .bind(to.stream_created_ns)
    .bind(row::signed(to.sequence))
    .bind(to.time_ns)
    .bind(row::signed(published))
    .bind(recorded_at)
    .bind(row::signed(from.sequence))
    .bind(from.stream_created_ns)
    .execute(db)
    .await?;
    if moved.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::PositionMoved {
            partition,
            sequence: from.sequence,
        })
    }
}

/// Starts the position over, where the stream is not the one it speaks of. What is read a second time changes nothing.
pub(crate) async fn restart_position(
    db: &mut PgConnection,
    partition: u16,
    stream_created_ns: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("update position set stream_created_ns = $3, applied_seq = 0, applied_time_ns = null where stream = $1 and partition = $2")
        .bind(STREAM)
        .bind(row::small(partition))
        .bind(stream_created_ns)
        .execute(db)
        .await
        .map(|_| ())
}

/// Notes up to where REVISIONS has acknowledged. May be lower than before, where that stream lost its end.
pub(crate) async fn set_published(
    db: &mut PgConnection,
    partition: u16,
    published: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query("update position set published = $3 where stream = $1 and partition = $2")
        .bind(STREAM)
        .bind(row::small(partition))
        .bind(row::signed(published))
        .execute(db)
        .await
        .map(|_| ())
}
