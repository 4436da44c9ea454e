//! Names and commits that contain, or begin with, a text.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Registry, Repository, Tag};

/// A digest that was built from a commit.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "BuiltFrom")]
pub struct BuiltFrom {
    /// The commit, as the image states it.
    pub commit: String,
    /// The address of the source code.
    pub source: Option<String>,
    /// The digest.
    pub digest: Digest,
    /// The registry that the manifest was read from.
    pub registry: Registry,
    /// The repository that the manifest was read from.
    pub repository: Repository,
    /// Version of the packaged software.
    pub version: Option<String>,
}

/// Returns the digests whose commit begins with these hex digits, by commit; at most `limit`.
pub async fn commits(
    db: &mut PgConnection,
    digits: &str,
    limit: i64,
) -> Result<Vec<BuiltFrom>, sqlx::Error> {
    let rows = sqlx::query(
        "select revision, source, digest, registry, repository, version from manifest
         where revision ~>=~ $1::text and revision ~<~ ($1::text || 'g') order by revision using ~<~, digest limit $2",
    )
    .bind(digits)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let built = |row: &PgRow| {
        Ok(BuiltFrom {
            commit: row.try_get("revision")?,
            source: row.try_get("source")?,
            digest: row::digest(row.try_get("digest")?)?.ok_or(sqlx::Error::RowNotFound)?,
            registry: row::parsed(row.try_get("registry")?)?,
            repository: row::parsed(row.try_get("repository")?)?,
            version: row.try_get("version")?,
        })
    };
    rows.iter().map(built).collect()
}

/// A repository whose name contains a text.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "FoundRepository")]
pub struct FoundRepository {
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
}

/// Returns the repositories with a history whose name, with the registry, contains this text, in
/// any case; at most `limit`. Those whose last part is the text come first, then short names.
pub async fn repositories(
    db: &mut PgConnection,
    part: &str,
    limit: i64,
) -> Result<Vec<FoundRepository>, sqlx::Error> {
    let rows = sqlx::query(
        "select r.registry, r.name from repository r
         where position(lower($1) in lower(r.registry || '/' || r.name)) > 0
           and exists (select from tag t where t.repository_id = r.id and t.head is not null)
         order by lower(substring(r.name from '[^/]*$')) <> lower($1), length(r.name), r.registry, r.name limit $2",
    )
    .bind(part)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let found = |row: &PgRow| {
        Ok(FoundRepository {
            registry: row::parsed(row.try_get("registry")?)?,
            repository: row::parsed(row.try_get("name")?)?,
        })
    };
    rows.iter().map(found).collect()
}

/// Returns the images with this repository and tag in any registry; at most `limit`.
pub async fn images(
    db: &mut PgConnection,
    repository: &Repository,
    tag: &Tag,
    limit: i64,
) -> Result<Vec<Image>, sqlx::Error> {
    let rows = sqlx::query(
        "select r.registry from repository r join tag t on t.repository_id = r.id
         where r.name = $1 and t.name = $2 and t.head is not null order by r.registry limit $3",
    )
    .bind(repository.as_ref())
    .bind(tag.as_ref())
    .bind(limit)
    .fetch_all(db)
    .await?;
    let image = |row: &PgRow| {
        Ok(Image {
            registry: row::parsed(row.try_get("registry")?)?,
            repository: repository.clone(),
            tag: tag.clone(),
        })
    };
    rows.iter().map(image).collect()
}

/// Returns images whose tag contains this text, in any case; at most `limit`. Only 10,000 tags with
/// two revisions or more and the 10,000 newest tags are looked at. Tags that are the text come
/// first, then short ones.
pub async fn tags(
    db: &mut PgConnection,
    part: &str,
    limit: i64,
) -> Result<Vec<Image>, sqlx::Error> {
    let rows = sqlx::query(
        // Without an index on parts of names, each of these tags is read: by its key, since a scan
        // of all tags would cost the more the longer the history is.
        "select r.registry, r.name as repository, o.name as tag
         from (
             select t.id, t.repository_id, t.name
             from (select tag_id from moving limit 10000) m
             cross join lateral (select * from tag t where t.id = m.tag_id offset 0) t
             where t.head is not null and strpos(lower(t.name), lower($1)) > 0
             union
             select n.id, n.repository_id, n.name from (select * from tag order by id desc limit 10000) n
             where n.head is not null and strpos(lower(n.name), lower($1)) > 0) o
         join repository r on r.id = o.repository_id
         where not (o.name like 'sha___-%' and o.name ~ $3)
         order by lower(o.name) <> lower($1), length(o.name), o.id desc limit $2",
    )
    .bind(part)
    .bind(limit)
    .bind(Tag::SIGNATURE)
    .fetch_all(db)
    .await?;
    let image = |row: &PgRow| {
        Ok(Image {
            registry: row::parsed(row.try_get("registry")?)?,
            repository: row::parsed(row.try_get("repository")?)?,
            tag: row::parsed(row.try_get("tag")?)?,
        })
    };
    rows.iter().map(image).collect()
}

/// Returns other digests that were built from the same commit; at most `limit`.
pub async fn same_commit(
    db: &mut PgConnection,
    commit: &str,
    digest: &Digest,
    limit: i64,
) -> Result<Vec<Digest>, sqlx::Error> {
    let found: Vec<Vec<u8>> = sqlx::query_scalar(
        "select digest from manifest where revision = $1 and digest <> $2 order by digest limit $3",
    )
    .bind(commit)
    .bind(digest.as_bytes())
    .bind(limit)
    .fetch_all(db)
    .await?;
    let digests = found.iter().map(|bytes| row::digest(Some(bytes)));
    let digests: Vec<Option<Digest>> = digests.collect::<Result<_, _>>()?;
    Ok(digests.into_iter().flatten().collect())
}
