//! The progress of a partition: applied pushes, recorded and published revisions.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_bus::consume::Position;
use tagtrail_bus::fence::Known;
use tagtrail_bus::topology::Stream;
use tagtrail_postgres::{position, row};
use time::OffsetDateTime;

use crate::error::Error;

/// The rows of partitions, whichever stream of pushes each of them reads.
const STREAM: &str = "PUSHES";

/// Rolls back an open transaction; does no harm without a transaction.
pub(crate) async fn rollback(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("rollback").execute(db).await.map(|_| ())
}

/// The progress of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// The stream of pushes that is read.
    pub(crate) source: Stream,
    /// The position in this stream.
    pub(crate) position: Position,
    /// Ordinal of the last revision that REVISIONS acknowledged, as recorded in the row.
    pub(crate) published: u64,
    /// Ordinal of the last recorded revision.
    pub(crate) recorded: u64,
    /// Time of the last batch.
    pub(crate) recorded_at: Option<OffsetDateTime>,
    /// The place in REVISIONS up to which Postgres has every message of the partition.
    pub(crate) known: Option<Known>,
}

impl Progress {
    /// Returns the time of the last batch, after which there must be one.
    pub(crate) fn recorded_at(&self) -> Result<OffsetDateTime, Error> {
        self.recorded_at
            .ok_or(Error::Inconsistent("a batch was recorded at no time"))
    }
}

/// Reads the progress of a partition, and inserts its row the first time.
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
        "select source, stream_created_ns, applied_seq, applied_time_ns, recorded_at, published,
                known_created_ns, known_seq, known_fence_seq, known_fence_id,
                coalesce((select max(ordinal) from revision r where r.partition = p.partition), 0) as recorded
         from position p where stream = $1 and partition = $2",
    )
    .bind(STREAM)
    .bind(row::small(partition))
    .fetch_one(db)
    .await?;
    Ok(Progress {
        source: source_of_row(&row)?,
        position: position::of_row(&row)?,
        published: row::unsigned(row.try_get("published")?),
        recorded: row::unsigned(row.try_get("recorded")?),
        recorded_at: row.try_get("recorded_at")?,
        known: known_of_row(&row)?,
    })
}

/// Reads the stream of pushes from the column `source`.
pub(crate) fn source_of_row(row: &PgRow) -> Result<Stream, sqlx::Error> {
    let source: Option<&str> = row.try_get("source")?;
    Ok(source.and_then(Stream::of_pushes).unwrap_or(Stream::Pushes))
}

fn known_of_row(row: &PgRow) -> Result<Option<Known>, sqlx::Error> {
    let Some(sequence) = row.try_get::<Option<i64>, _>("known_seq")? else {
        return Ok(None);
    };
    Ok(Some(Known {
        stream_created_ns: row.try_get("known_created_ns")?,
        sequence: row::unsigned(sequence),
        fence_sequence: row::unsigned(row.try_get("known_fence_seq")?),
        fence_id: row.try_get("known_fence_id")?,
    }))
}

/// Returns the known place in REVISIONS of each partition that has a row.
pub(crate) async fn known(
    db: &mut PgConnection,
) -> Result<BTreeMap<u16, Option<Known>>, sqlx::Error> {
    let rows = sqlx::query(
        "select partition, known_created_ns, known_seq, known_fence_seq, known_fence_id
         from position where stream = $1",
    )
    .bind(STREAM)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| Ok((row::partition(found, "partition")?, known_of_row(found)?)))
        .collect()
}

/// Moves the position of a partition on from `from`, the position that this holder left. Fails if
/// the row has another position, because another holder or the sweeper has changed the row.
pub(crate) async fn advance(
    db: &mut PgConnection,
    partition: u16,
    from: &Progress,
    to: Progress,
) -> Result<Progress, Error> {
    update(db, partition, from, to, false).await
}

/// As [`advance`], in a transaction that records adopted revisions. The time of recording is the
/// clock of the database, one for all instances, and never earlier than the previous one.
pub(crate) async fn advance_and_record(
    db: &mut PgConnection,
    partition: u16,
    from: &Progress,
    to: Progress,
) -> Result<Progress, Error> {
    update(db, partition, from, to, true).await
}

async fn update(
    db: &mut PgConnection,
    partition: u16,
    from: &Progress,
    to: Progress,
    records: bool,
) -> Result<Progress, Error> {
    let moved: Option<Option<OffsetDateTime>> = sqlx::query_scalar(
        "update position
         set stream_created_ns = $3, applied_seq = $4, applied_time_ns = $5, published = $6,
             recorded_at = case when $7 then greatest(recorded_at, now()) else recorded_at end,
             known_created_ns = $11, known_seq = $12, known_fence_seq = $13, known_fence_id = $14, source = nullif($15, 'PUSHES')
         where stream = $1 and partition = $2 and applied_seq = $8 and stream_created_ns is not distinct from $9 and published = $10
         returning recorded_at",
    )
    .bind(STREAM)
    .bind(row::small(partition))
    .bind(to.position.stream_created_ns)
    .bind(row::signed(to.position.sequence))
    .bind(to.position.time_ns)
    .bind(row::signed(to.published))
    .bind(records)
    .bind(row::signed(from.position.sequence))
    .bind(from.position.stream_created_ns)
    .bind(row::signed(from.published))
    .bind(to.known.map(|known| known.stream_created_ns))
    .bind(to.known.map(|known| row::signed(known.sequence)))
    .bind(to.known.map(|known| row::signed(known.fence_sequence)))
    .bind(to.known.map(|known| known.fence_id))
    .bind(to.source.name())
    .fetch_optional(db)
    .await?;
    let recorded_at = moved.ok_or(Error::PositionMoved(partition))?;
    Ok(Progress { recorded_at, ..to })
}

/// Checks that the row of a partition still has the position that this holder left.
pub(crate) async fn check(
    db: &mut PgConnection,
    partition: u16,
    left: &Progress,
) -> Result<(), Error> {
    let there: bool = sqlx::query_scalar(
        "select exists (
             select from position
             where stream = $1 and partition = $2 and applied_seq = $3 and stream_created_ns is not distinct from $4 and published = $5)",
    )
    .bind(STREAM)
    .bind(row::small(partition))
    .bind(row::signed(left.position.sequence))
    .bind(left.position.stream_created_ns)
    .bind(row::signed(left.published))
    .fetch_one(db)
    .await?;
    if there {
        Ok(())
    } else {
        Err(Error::PositionMoved(partition))
    }
}

/// Returns the ordinal of the last revision that is counted, by partition. The statement returns
/// rows of both.
pub(crate) async fn counted(
    db: &mut PgConnection,
    statement: &'static str,
) -> Result<BTreeMap<u16, u64>, sqlx::Error> {
    let rows = sqlx::query(statement).fetch_all(db).await?;
    rows.iter()
        .map(|found| {
            let until = row::unsigned(found.try_get("counted")?);
            Ok((row::partition(found, "partition")?, until))
        })
        .collect()
}
