//! Columns whose values have no type in Postgres, read and written in one way by all services.

use std::str::FromStr;

use sqlx::postgres::PgRow;
use sqlx::types::{Json, Uuid};
use sqlx::{Error, Row as _};
use tagtrail_proto::{ClosedGate, Digest, Manifest, Rollout};

/// Parses a name, or the word of an enum.
///
/// # Errors
/// [`Error::Decode`] if the text does not parse: no service wrote it.
pub fn parsed<T: FromStr>(text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|_| Error::Decode("a name or a word that does not parse".into()))
}

/// Reads a digest: 32 bytes are sha256, 64 are sha512.
///
/// # Errors
/// [`Error::Decode`] for any other length.
pub fn digest(bytes: Option<&[u8]>) -> Result<Option<Digest>, Error> {
    let whole = |bytes| {
        Digest::from_bytes(bytes).ok_or_else(|| Error::Decode("a digest of a wrong length".into()))
    };
    bytes.map(whole).transpose()
}

/// Converts a sequence, number or size for Postgres, which has no unsigned numbers; they stay far
/// below the limit.
#[must_use]
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts a number back from [`signed`].
#[must_use]
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Converts the number of a partition for Postgres.
#[must_use]
pub fn small(partition: u16) -> i16 {
    i16::try_from(partition).unwrap_or(i16::MAX)
}

/// Reads the number of a partition from the named column.
///
/// # Errors
/// [`Error`] if the column is missing or holds a value that no service writes.
pub fn partition(row: &PgRow, column: &str) -> Result<u16, Error> {
    u16::try_from(row.try_get::<i16, _>(column)?)
        .map_err(|_| Error::Decode("a negative partition".into()))
}

/// Reads a rollout from the columns `id`, `trigger` (its name), `number`, `epoch`, `state` (as
/// text), `images`, `cause`, `attempts`, `created_at`, `finished_at`, `error`, `gates` and
/// `opens_at`.
///
/// # Errors
/// [`Error`] if a column is missing or holds a value that no service writes.
pub fn rollout(row: &PgRow) -> Result<Rollout, Error> {
    let (Json(images), Json(cause)) = (row.try_get("images")?, row.try_get("cause")?);
    Ok(Rollout {
        id: row.try_get::<Uuid, _>("id")?.to_string(),
        trigger: row.try_get("trigger")?,
        number: unsigned(row.try_get("number")?),
        epoch: row.try_get("epoch")?,
        state: parsed(row.try_get("state")?)?,
        images,
        cause,
        attempts: u32::try_from(row.try_get::<i32, _>("attempts")?).unwrap_or(0),
        created_at: row.try_get("created_at")?,
        finished_at: row.try_get("finished_at")?,
        error: row.try_get("error")?,
        gates: ClosedGate::known(row.try_get("gates")?),
        opens_at: row.try_get("opens_at")?,
    })
}

/// Reads a manifest from the columns of the table `manifest` that have the names of its fields, and
/// `size_bytes`. Contents of image and index are left out: only pages and people read them.
///
/// # Errors
/// [`Error`] if a column is missing or holds a value that no service writes.
pub fn manifest(row: &PgRow) -> Result<Manifest, Error> {
    let (Json(platforms), Json(labels), Json(annotations)) = (
        row.try_get("platforms")?,
        row.try_get("labels")?,
        row.try_get("annotations")?,
    );
    Ok(Manifest {
        digest: digest(row.try_get("digest")?)?.ok_or(Error::RowNotFound)?,
        registry: parsed(row.try_get("registry")?)?,
        repository: parsed(row.try_get("repository")?)?,
        media_type: row.try_get("media_type")?,
        size: unsigned(row.try_get("size_bytes")?),
        artifact_type: row.try_get("artifact_type")?,
        platforms,
        created: row.try_get("created")?,
        labels,
        annotations,
        revision: row.try_get("revision")?,
        source: row.try_get("source")?,
        version: row.try_get("version")?,
        tombstone: row.try_get("tombstone")?,
        image: None,
        index: None,
        read_at: row.try_get("read_at")?,
    })
}

/// The SQL of a rollout as the JSON of [`tagtrail_proto::Rollout`]: of the row with the given name,
/// with its trigger `t`.
#[macro_export]
macro_rules! rollout_json {
    ($o:literal) => {
        concat!(
            "jsonb_build_object('id', ",
            $o,
            ".id, 'trigger', t.name, 'number', ",
            $o,
            ".number, 'epoch', coalesce(",
            $o,
            ".epoch, t.epoch), 'state', ",
            $o,
            ".state,
             'images', ",
            $o,
            ".images, 'cause', ",
            $o,
            ".cause, 'attempts', ",
            $o,
            ".attempts, 'created_at', ",
            $o,
            ".created_at,
             'finished_at', ",
            $o,
            ".finished_at, 'error', ",
            $o,
            ".error,
             'gates', case when ",
            $o,
            ".finished_at is null then ",
            $o,
            ".gates else '[]' end, 'opens_at', case when ",
            $o,
            ".finished_at is null then ",
            $o,
            ".opens_at end)"
        )
    };
}

/// The SQL condition that a rollout has not ended: another attempt may follow. The index
/// `rollout_live` has the same condition.
#[macro_export]
macro_rules! rollout_is_live {
    ($o:literal) => {
        concat!(
            "(",
            $o,
            ".state in ('held', 'awaiting_approval', 'pending', 'running', 'watching') or ",
            $o,
            ".state = 'failed' and not ",
            $o,
            ".ended)"
        )
    };
}
