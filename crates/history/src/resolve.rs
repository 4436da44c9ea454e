//! The revision of an image in force: now, at a time, or by its number.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Kind};
use time::OffsetDateTime;

/// A revision, without the push behind it.
#[derive(Debug)]
pub struct RevisionInForce {
    /// Its number.
    pub revision: u64,
    /// The difference from the previous revision.
    pub kind: Kind,
    /// `None`: the tag was deleted.
    pub digest: Option<Digest>,
    /// The time from which on it holds, by the registry's clock.
    pub occurred_at: OffsetDateTime,
    /// The time at which the indexer recorded it.
    pub recorded_at: OffsetDateTime,
}

/// A statement that selects the revision `v` of the image `$1/$2:$3`, joined as the literal says.
///
/// The statement finds the tag by itself instead of by [`tag_id`](crate::tag_id), so that an answer
/// takes one round trip.
macro_rules! select_revision {
    ($join:literal) => {
        concat!(
            "select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
             from repository r
             join tag t on t.repository_id = r.id ",
            $join,
            " where r.registry = $1 and r.name = $2 and t.name = $3"
        )
    };
}

/// Returns the revision in force now: the head.
pub async fn head(
    db: &mut PgConnection,
    image: &Image,
) -> Result<Option<RevisionInForce>, sqlx::Error> {
    let statement = select_revision!("join revision v on v.tag_id = t.id and v.number = t.head");
    one(db, for_image(statement, image)).await
}

/// Returns the revision in force at `at`, without revisions recorded after `known_at`. `None` is no
/// bound.
pub async fn as_of(
    db: &mut PgConnection,
    image: &Image,
    at: Option<OffsetDateTime>,
    known_at: Option<OffsetDateTime>,
) -> Result<Option<RevisionInForce>, sqlx::Error> {
    let statement = select_revision!(
        "cross join lateral (
             select * from revision v
             where v.tag_id = t.id
               and v.effective_at <= coalesce($4::timestamptz, 'infinity')
               and v.recorded_at <= coalesce($5::timestamptz, 'infinity')
             order by v.effective_at desc, v.number desc limit 1) v"
    );
    one(db, for_image(statement, image).bind(at).bind(known_at)).await
}

/// Returns the revision of this number.
pub async fn numbered(
    db: &mut PgConnection,
    image: &Image,
    number: u64,
) -> Result<Option<RevisionInForce>, sqlx::Error> {
    let statement = select_revision!("join revision v on v.tag_id = t.id and v.number = $4");
    one(db, for_image(statement, image).bind(row::signed(number))).await
}

fn for_image<'q>(statement: &'static str, image: &Image) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(statement)
        .bind(image.registry.as_ref())
        .bind(image.repository.as_ref())
        .bind(image.tag.as_ref())
}

async fn one(
    db: &mut PgConnection,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Option<RevisionInForce>, sqlx::Error> {
    let found = query.fetch_optional(db).await?;
    found.as_ref().map(of_row).transpose()
}

fn of_row(row: &PgRow) -> Result<RevisionInForce, sqlx::Error> {
    Ok(RevisionInForce {
        revision: row::unsigned(row.try_get("number")?),
        kind: row::parsed(row.try_get("kind")?)?,
        digest: row::digest(row.try_get("digest")?)?,
        occurred_at: row.try_get("effective_at")?,
        recorded_at: row.try_get("recorded_at")?,
    })
}
