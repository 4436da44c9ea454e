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

/// The answer to the question which revision of an image is in force.
#[derive(Debug)]
pub enum Resolution {
    /// The image has no history.
    Unknown,
    /// The history of the image begins after the time asked for.
    NotYet,
    /// The revision in force.
    InForce(RevisionInForce),
}

/// Returns the head of each image: the revision in force now. One statement answers all.
pub async fn heads(
    db: &mut PgConnection,
    images: &[&Image],
) -> Result<Vec<Resolution>, sqlx::Error> {
    // `lateral` and `limit` make Postgres look up one image after the other by the indexes,
    // also where its statistics are wrong.
    let statement = "select w.place, v.*
         from unnest($1::text[], $2::text[], $3::text[]) with ordinality as w (registry, repository, tag, place)
         cross join lateral (
             select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
             from repository r
             join tag t on t.repository_id = r.id
             join revision v on v.tag_id = t.id and v.number = t.head
             where r.registry = w.registry and r.name = w.repository and t.name = w.tag limit 1) v";
    let rows = for_images(statement, images).fetch_all(db).await?;
    by_place(&rows, images.len())
}

/// Returns the revision of each image in force at a time. One statement answers all.
pub async fn at_times(
    db: &mut PgConnection,
    images: &[&Image],
    times: &[OffsetDateTime],
) -> Result<Vec<Resolution>, sqlx::Error> {
    let statement = "select w.place, v.*
         from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
              with ordinality as w (registry, repository, tag, at, place)
         cross join lateral (
             select t.id from repository r join tag t on t.repository_id = r.id
             where r.registry = w.registry and r.name = w.repository and t.name = w.tag
               and t.head is not null limit 1) t
         left join lateral (
             select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
             from revision v
             where v.tag_id = t.id and v.effective_at <= w.at
             order by v.effective_at desc, v.number desc limit 1) v on true";
    let query = for_images(statement, images).bind(times);
    let rows = query.fetch_all(db).await?;
    by_place(&rows, images.len())
}

/// Returns the revision in force at `at` among those recorded up to `known_at`. Without `at`, the
/// last of them in time.
pub async fn known_at(
    db: &mut PgConnection,
    image: &Image,
    at: Option<OffsetDateTime>,
    known_at: OffsetDateTime,
) -> Result<Resolution, sqlx::Error> {
    let query = sqlx::query(
        "select v.*
         from repository r
         join tag t on t.repository_id = r.id
         left join lateral (
             select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
             from revision v
             where v.tag_id = t.id
               and v.effective_at <= coalesce($4::timestamptz, 'infinity')
               and v.recorded_at <= $5
             order by v.effective_at desc, v.number desc limit 1) v on true
         where r.registry = $1 and r.name = $2 and t.name = $3 and t.head is not null",
    );
    let query = for_image(query, image).bind(at).bind(known_at);
    let row = query.fetch_optional(db).await?;
    row.as_ref().map_or(Ok(Resolution::Unknown), resolution)
}

/// Returns the revision of this number; [`Resolution::NotYet`] if the image has no such revision.
pub async fn numbered(
    db: &mut PgConnection,
    image: &Image,
    number: u64,
) -> Result<Resolution, sqlx::Error> {
    let query = sqlx::query(
        "select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
         from repository r
         join tag t on t.repository_id = r.id
         left join revision v on v.tag_id = t.id and v.number = $4
         where r.registry = $1 and r.name = $2 and t.name = $3 and t.head is not null",
    );
    let query = for_image(query, image).bind(row::signed(number));
    let row = query.fetch_optional(db).await?;
    row.as_ref().map_or(Ok(Resolution::Unknown), resolution)
}

type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

fn for_image<'q>(query: PgQuery<'q>, image: &Image) -> PgQuery<'q> {
    query
        .bind(image.registry.as_ref())
        .bind(image.repository.as_ref())
        .bind(image.tag.as_ref())
}

fn for_images(statement: &'static str, images: &[&Image]) -> PgQuery<'static> {
    let each = |of: fn(&Image) -> &str| images.iter().map(|image| of(image).to_owned()).collect();
    let (registries, repositories, tags): (Vec<String>, Vec<String>, Vec<String>) = (
        each(|image| image.registry.as_ref()),
        each(|image| image.repository.as_ref()),
        each(|image| image.tag.as_ref()),
    );
    sqlx::query(statement)
        .bind(registries)
        .bind(repositories)
        .bind(tags)
}

/// Returns an answer for each place from 1 to `places`. A place without a row is unknown.
fn by_place(rows: &[PgRow], places: usize) -> Result<Vec<Resolution>, sqlx::Error> {
    let mut answers: Vec<Resolution> = (0..places).map(|_| Resolution::Unknown).collect();
    for row in rows {
        let place = usize::try_from(row.try_get::<i64, _>("place")? - 1).unwrap_or(usize::MAX);
        let answer = answers.get_mut(place).ok_or(sqlx::Error::RowNotFound)?;
        *answer = resolution(row)?;
    }
    Ok(answers)
}

/// Reads a row of an image that has a history; without a revision, the history begins later.
fn resolution(row: &PgRow) -> Result<Resolution, sqlx::Error> {
    let Some(number) = row.try_get("number")? else {
        return Ok(Resolution::NotYet);
    };
    Ok(Resolution::InForce(RevisionInForce {
        revision: row::unsigned(number),
        kind: row::parsed(row.try_get("kind")?)?,
        digest: row::digest(row.try_get("digest")?)?,
        occurred_at: row.try_get("effective_at")?,
        recorded_at: row.try_get("recorded_at")?,
    }))
}
