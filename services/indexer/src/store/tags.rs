//! Repositories and tags: row ids and heads.

use std::collections::{BTreeSet, HashMap, hash_map};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Registry, Repository};
use tagtrail_timeline::Entry;
use time::OffsetDateTime;

use crate::error::Error;

/// Returns the image of a tag, by its row id.
pub(crate) async fn image(
    db: &mut PgConnection,
    tag_id: i64,
) -> Result<Option<Image>, sqlx::Error> {
    let row = sqlx::query(
        "select r.registry, r.name as repository, t.name as tag from tag t join repository r on r.id = t.repository_id where t.id = $1",
    )
    .bind(tag_id)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(image_of).transpose()
}

/// Reads an image from the columns `registry, repository, tag`.
pub(crate) fn image_of(row: &PgRow) -> Result<Image, sqlx::Error> {
    Ok(Image {
        registry: row::parsed(row.try_get("registry")?)?,
        repository: row::parsed(row.try_get("repository")?)?,
        tag: row::parsed(row.try_get("tag")?)?,
    })
}

/// Returns the greatest number issued for each image, in the same order; 0 for unknown images.
pub(crate) async fn issued(
    db: &mut PgConnection,
    images: impl Iterator<Item = &Image> + Clone,
) -> Result<Vec<u64>, sqlx::Error> {
    let registries: Vec<&str> = images
        .clone()
        .map(|image| image.registry.as_ref())
        .collect();
    let repositories: Vec<&str> = images
        .clone()
        .map(|image| image.repository.as_ref())
        .collect();
    let tags: Vec<&str> = images.map(|image| image.tag.as_ref()).collect();
    let numbers: Vec<i64> = sqlx::query_scalar(
        "select coalesce(t.issued, 0)
         from unnest($1::text[], $2::text[], $3::text[]) with ordinality as w (registry, repository, tag, place)
         left join repository r on r.registry = w.registry and r.name = w.repository
         left join tag t on t.repository_id = r.id and t.name = w.tag
         order by w.place",
    )
    .bind(registries)
    .bind(repositories)
    .bind(tags)
    .fetch_all(db)
    .await?;
    Ok(numbers.into_iter().map(row::unsigned).collect())
}

/// Returns the row ids of tags, and inserts missing tags and repositories. Queries do not show a
/// tag without pushes.
pub(crate) async fn tag_ids(
    db: &mut PgConnection,
    images: &BTreeSet<Image>,
) -> Result<HashMap<Image, i64>, Error> {
    let repositories = repository_ids(
        db,
        &images
            .iter()
            .map(|image| (image.registry.clone(), image.repository.clone()))
            .collect(),
    )
    .await?;
    let mut wanted: Vec<(i64, &Image)> = Vec::with_capacity(images.len());
    for image in images {
        let key = (image.registry.clone(), image.repository.clone());
        wanted.push((
            *repositories
                .get(&key)
                .ok_or(Error::Inconsistent("a repository just made is not there"))?,
            image,
        ));
    }
    let ids: Vec<i64> = wanted.iter().map(|(id, _)| *id).collect();
    let names: Vec<&str> = wanted.iter().map(|(_, image)| image.tag.as_ref()).collect();
    // Look up before inserting: an insert that meets a conflict still uses up an id.
    let rows = sqlx::query(
        "with wanted as (
             select * from unnest($1::bigint[], $2::text[]) as w (repository_id, name)
         ), present as (
             select t.repository_id, t.name, t.id from wanted w join tag t using (repository_id, name)
         ), made as (
             insert into tag (repository_id, name)
             select w.repository_id, w.name from wanted w where not exists (select from present p where (p.repository_id, p.name) = (w.repository_id, w.name))
             returning repository_id, name, id
         )
         select * from present union all select * from made",
    )
    .bind(&ids)
    .bind(&names)
    .fetch_all(db)
    .await?;
    let mut by_name: HashMap<(i64, String), i64> = HashMap::with_capacity(rows.len());
    for row in rows {
        let key = (row.try_get("repository_id")?, row.try_get("name")?);
        by_name.insert(key, row.try_get("id")?);
    }
    wanted
        .into_iter()
        .map(|(repository, image)| {
            let id = by_name
                .get(&(repository, image.tag.to_string()))
                .ok_or(Error::Inconsistent("a tag just made is not there"))?;
            Ok((image.clone(), *id))
        })
        .collect()
}

/// Returns the row ids of repositories, and inserts missing repositories.
pub(crate) async fn repository_ids(
    db: &mut PgConnection,
    wanted: &BTreeSet<(Registry, Repository)>,
) -> Result<HashMap<(Registry, Repository), i64>, Error> {
    let registries: Vec<&str> = wanted
        .iter()
        .map(|(registry, _)| registry.as_ref())
        .collect();
    let names: Vec<&str> = wanted.iter().map(|(_, name)| name.as_ref()).collect();
    let rows = sqlx::query(
        "with wanted as (
             select * from unnest($1::text[], $2::text[]) as w (registry, name)
         ), present as (
             select r.registry, r.name, r.id from wanted w join repository r using (registry, name)
         ), made as (
             insert into repository (registry, name)
             select w.registry, w.name from wanted w where not exists (select from present p where (p.registry, p.name) = (w.registry, w.name))
             returning registry, name, id
         )
         select * from present union all select * from made",
    )
    .bind(&registries)
    .bind(&names)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok((
                (
                    row::parsed(row.try_get("registry")?)?,
                    row::parsed(row.try_get("name")?)?,
                ),
                row.try_get("id")?,
            ))
        })
        .collect()
}

/// The row of a tag.
#[derive(Debug, Clone)]
pub(crate) struct TagRow {
    pub(crate) image: Image,
    pub(crate) repository_id: i64,
    pub(crate) issued: u64,
    pub(crate) head: Option<Entry>,
    /// The greatest effective time of the pushes of the tag and its repository: a later push is on
    /// time.
    pub(crate) latest_at: Option<OffsetDateTime>,
    /// The greatest effective time of the tag's own pushes.
    pub(crate) own_latest_at: Option<OffsetDateTime>,
    /// The first effective time of the requested digests that the tag ever had.
    pub(crate) first_had: HashMap<Digest, OffsetDateTime>,
}

/// Reads the rows of tags, with the first effective time of each digest in `pushed`. No lock: one
/// session alone writes the tags of a partition.
pub(crate) async fn heads(
    db: &mut PgConnection,
    ids: &[i64],
    pushed: &BTreeSet<(i64, &Digest)>,
) -> Result<HashMap<i64, TagRow>, Error> {
    let tags: Vec<i64> = pushed.iter().map(|(tag, _)| *tag).collect();
    let digests: Vec<&[u8]> = pushed.iter().map(|(_, digest)| digest.as_bytes()).collect();
    let rows = sqlx::query(
        // Only a tag that has changed before can return to a digest.
        "with head as (
             select t.id, r.registry, r.name as repository, t.name as tag, t.repository_id, t.issued, t.head, t.head_digest, t.head_at,
                    t.latest_at as own_latest_at, greatest(t.latest_at, r.latest_at) as latest_at
             from tag t join repository r on r.id = t.repository_id
             where t.id = any($1)
         )
         select h.*, f.digest as first_digest, f.effective_at as first_at
         from head h
         left join unnest($2::bigint[], $3::bytea[]) as w (tag_id, digest) on w.tag_id = h.id and h.issued > 0
         left join lateral (
             select r.digest, r.effective_at from revision r
             where r.digest = w.digest and r.tag_id = w.tag_id order by r.effective_at limit 1) f on true",
    )
    .bind(ids)
    .bind(&tags)
    .bind(&digests)
    .fetch_all(db)
    .await?;
    let mut heads = HashMap::with_capacity(ids.len());
    for row in &rows {
        let head = match heads.entry(row.try_get("id")?) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(new) => new.insert(head(row)?),
        };
        if let Some(digest) = row::digest(row.try_get("first_digest")?)? {
            head.first_had.insert(digest, row.try_get("first_at")?);
        }
    }
    Ok(heads)
}

fn head(row: &PgRow) -> Result<TagRow, Error> {
    let number: Option<i64> = row.try_get("head")?;
    let head = match (number, row.try_get("head_at")?) {
        (Some(number), Some(at)) => Some(Entry {
            at,
            number: row::unsigned(number),
            digest: row::digest(row.try_get("head_digest")?)?,
        }),
        _ => None,
    };
    Ok(TagRow {
        image: image_of(row)?,
        repository_id: row.try_get("repository_id")?,
        issued: row::unsigned(row.try_get("issued")?),
        head,
        latest_at: row.try_get("latest_at")?,
        own_latest_at: row.try_get("own_latest_at")?,
        first_had: HashMap::new(),
    })
}

/// The new values of a tag's row.
#[derive(Debug)]
pub(crate) struct NewTagRow {
    pub(crate) tag_id: i64,
    pub(crate) issued: u64,
    pub(crate) head: Option<Entry>,
    /// The greatest effective time of the tag's own pushes in this batch.
    pub(crate) latest_at: Option<OffsetDateTime>,
}

#[cfg(test)]
mod tests;
