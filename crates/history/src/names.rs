//! The repositories that have a history.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Registry, Repository, Tag};

use crate::instant::Instant;

/// A repository that has a history.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Repository")]
pub struct KnownRepository {
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// Tags that have a digest now.
    pub tags: u64,
    /// Tags that were deleted.
    pub deleted: u64,
    /// The greatest effective time of the present heads.
    pub changed_at: Instant,
}

/// Returns the repositories that have a history, by registry and name. With `prefix`, only those
/// whose name with or without the registry begins with it. Tags that hold signatures count only
/// with `signatures`. Key: row id of the repository.
pub async fn repositories(
    db: &mut PgConnection,
    prefix: Option<&str>,
    signatures: bool,
    after: Option<[i64; 1]>,
    limit: i64,
) -> Result<Vec<([i64; 1], KnownRepository)>, sqlx::Error> {
    let rows = sqlx::query(
        "select r.id, r.registry, r.name as repository, c.tags, c.deleted, c.changed_at
         from repository r
         cross join lateral (
             select count(*) filter (where t.head_digest is not null) as tags, count(*) filter (where t.head_digest is null) as deleted,
                    max(t.head_at) as changed_at
             from tag t where t.repository_id = r.id and t.head is not null and ($4 or t.name !~ $5)) c
         where ($1::text is null or starts_with(r.registry || '/' || r.name, $1) or starts_with(r.name, $1))
           and ($2::bigint is null or (r.registry, r.name) > (select a.registry, a.name from repository a where a.id = $2))
           and c.changed_at is not null
         order by r.registry, r.name limit $3",
    )
    .bind(prefix)
    .bind(after.map(|[id]| id))
    .bind(limit)
    .bind(signatures)
    .bind(Tag::SIGNATURE)
    .fetch_all(db)
    .await?;
    let repository = |row: &PgRow| {
        let repository = KnownRepository {
            registry: row::parsed(row.try_get("registry")?)?,
            repository: row::parsed(row.try_get("repository")?)?,
            tags: row::unsigned(row.try_get("tags")?),
            deleted: row::unsigned(row.try_get("deleted")?),
            changed_at: Instant(row.try_get("changed_at")?),
        };
        Ok(([row.try_get("id")?], repository))
    };
    rows.iter().map(repository).collect()
}

/// Returns whether a tag of the repository has a history.
pub async fn is_known(
    db: &mut PgConnection,
    registry: &Registry,
    repository: &Repository,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (
             select from repository r join tag t on t.repository_id = r.id
             where r.registry = $1 and r.name = $2 and t.head is not null)",
    )
    .bind(registry.as_ref())
    .bind(repository.as_ref())
    .fetch_one(db)
    .await
}
