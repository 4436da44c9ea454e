//! All SQL of the indexer. Every function takes the connection that holds the partition, inside the batch's transaction where it
//! writes. Sets in, sets out: no statement is run once per fact.

pub(crate) mod facts;
pub(crate) mod position;
pub(crate) mod revisions;
pub(crate) mod tags;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tagtrail_postgres::row;
use tagtrail_proto::Origin;

use crate::facts::Meta;

/// Origin, source, actor, media type and size, from five columns in a row.
fn meta(row: &PgRow, first: usize) -> Result<Meta, sqlx::Error> {
    Ok(Meta {
        origin: row::parsed::<Origin>(row.try_get(first)?)?,
        source: row.try_get(first + 1)?,
        actor: row.try_get(first + 2)?,
        media_type: row.try_get(first + 3)?,
        size: row.try_get::<Option<i64>, _>(first + 4)?.map(row::unsigned),
    })
}
