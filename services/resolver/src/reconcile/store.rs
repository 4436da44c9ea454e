//! The SQL of reconciling: reads history, and writes the table of reconciled repositories.

use std::collections::HashMap;

use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Registry, Repository, Tag};

/// Rows read at once.
pub(super) const PAGE: i64 = 500;

/// Returns repositories of a registry in history, by row id, after the id `after`.
pub(super) async fn repositories(
    db: &mut PgConnection,
    registry: &Registry,
    after: i64,
) -> Result<Vec<(i64, Repository)>, sqlx::Error> {
    let rows = sqlx::query(
        "select id, name from repository where registry = $1 and id > $2 order by id limit $3",
    )
    .bind(registry.as_ref())
    .bind(after)
    .bind(PAGE)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("id")?, row::parsed(row.try_get("name")?)?)))
        .collect()
}

/// Returns the number of repositories of a registry in history.
pub(super) async fn count_repositories(
    db: &mut PgConnection,
    registry: &Registry,
) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar("select count(*) from repository where registry = $1")
        .bind(registry.as_ref())
        .fetch_one(db)
        .await?;
    Ok(row::unsigned(count))
}

/// Returns the row id of a repository, if history has it.
pub(super) async fn repository(
    db: &mut PgConnection,
    registry: &Registry,
    name: &Repository,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("select id from repository where registry = $1 and name = $2")
        .bind(registry.as_ref())
        .bind(name.as_ref())
        .fetch_optional(db)
        .await
}

/// Returns the number of tags of a registry without deleted ones.
pub(super) async fn live_tags(
    db: &mut PgConnection,
    registry: &Registry,
) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar(
        "select count(*) from repository r join tag t on t.repository_id = r.id where r.registry = $1 and t.head_digest is not null",
    )
    .bind(registry.as_ref())
    .fetch_one(db)
    .await?;
    Ok(row::unsigned(count))
}

/// Returns the digests of these tags in history; `None`: deleted. Tags without history are left
/// out.
pub(super) async fn heads(
    db: &mut PgConnection,
    repository: i64,
    tags: &[&Tag],
) -> Result<HashMap<Tag, Option<Digest>>, sqlx::Error> {
    let names: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
    let rows = sqlx::query(
        "select name, head_digest from tag where repository_id = $1 and name = any ($2) and head is not null",
    )
    .bind(repository)
    .bind(names)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok((
                row::parsed(row.try_get("name")?)?,
                row::digest(row.try_get("head_digest")?)?,
            ))
        })
        .collect()
}

/// Returns the tags of a repository that history has as not deleted, by name, after `after`.
pub(super) async fn tags(
    db: &mut PgConnection,
    repository: i64,
    after: &str,
) -> Result<Vec<(Tag, Digest)>, sqlx::Error> {
    let rows = sqlx::query(
        "select name, head_digest from tag where repository_id = $1 and name > $2 and head_digest is not null order by name limit $3",
    )
    .bind(repository)
    .bind(after)
    .bind(PAGE)
    .fetch_all(db)
    .await?;
    let mut tags = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(digest) = row::digest(row.try_get("head_digest")?)? {
            tags.push((row::parsed(row.try_get("name")?)?, digest));
        }
    }
    Ok(tags)
}

/// Returns the tags of a repository that policies of triggers selected, and the best of each.
pub(super) async fn best_tags(
    db: &mut PgConnection,
    registry: &Registry,
    repository: &Repository,
) -> Result<Vec<Tag>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "select t.name from (
             select c.tag_id from policy p cross join lateral (
                 select c.tag_id from candidate c where c.policy_id = p.id order by c.key desc limit 2) c
             where p.registry = $1 and p.repository = $2
             union
             select s.tag_id from selection s where s.registry = $1 and s.repository = $2 and s.policy_id is not null) b
         join tag t on t.id = b.tag_id order by t.name limit 100",
    )
    .bind(registry.as_ref())
    .bind(repository.as_ref())
    .fetch_all(db)
    .await?;
    names.iter().map(|name| row::parsed(name)).collect()
}

/// Returns the source that last reported this tag, or else this repository. The webhook of this
/// source should have reported the change, so the push names the source.
///
/// A push counts from the time that it names (`>=` in place of `=`, which Postgres takes for rare),
/// or from an earlier one, its receipt.
pub(super) async fn source(
    db: &mut PgConnection,
    registry: &Registry,
    repository: &Repository,
    tag: &Tag,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select p.source
         from repository r
         cross join lateral (
             (select t.id, true as same from tag t where t.repository_id = r.id and t.name = $3)
             union all
             (select t.id, false from tag t where t.repository_id = r.id and t.name <> $3 and t.issued > 0 limit 1)) t
         left join lateral (
             select p.source, p.effective_at as at from push p
             where p.tag_id = t.id and p.effective_at <> p.occurred_at
             order by p.effective_at desc limit 1) receipt on true
         left join lateral (
             select p.source from push p
             where p.tag_id = t.id and p.effective_at >= p.occurred_at and p.occurred_at > coalesce(receipt.at, '-infinity')
             order by p.occurred_at desc limit 1) own on true
         cross join lateral (select coalesce(own.source, receipt.source) as source) p
         where r.registry = $1 and r.name = $2 and p.source is not null
         order by t.same desc limit 1",
    )
    .bind(registry.as_ref())
    .bind(repository.as_ref())
    .bind(tag.as_ref())
    .fetch_optional(db)
    .await
}

/// Returns true if a pass has completed this repository before.
pub(super) async fn was_reconciled(
    db: &mut PgConnection,
    registry: &Registry,
    repository: &Repository,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from reconcile where registry = $1 and repository = $2)",
    )
    .bind(registry.as_ref())
    .bind(repository.as_ref())
    .fetch_one(db)
    .await
}

/// The counts of a completed repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Tags that the registry listed.
    pub(super) tags: u64,
    /// Tags checked singly.
    pub(super) asked: u64,
    /// Changes without an event.
    pub(super) found: u64,
}

/// Records that a pass has completed a repository.
pub(super) async fn record_counts(
    db: &mut PgConnection,
    registry: &Registry,
    repository: &Repository,
    counts: &Counts,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into reconcile (registry, repository, tags, asked, found) values ($1, $2, $3, $4, $5)
         on conflict (registry, repository) do update
         set last_at = now(), tags = excluded.tags, asked = excluded.asked, found = reconcile.found + excluded.found",
    )
    .bind(registry.as_ref())
    .bind(repository.as_ref())
    .bind(row::signed(counts.tags))
    .bind(row::signed(counts.asked))
    .bind(row::signed(counts.found))
    .execute(db)
    .await
    .map(|_| ())
}

/// Records that a pass did not reach the end of a repository, and why.
pub(super) async fn record_failure(
    db: &mut PgConnection,
    registry: &Registry,
    repository: &Repository,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into reconcile_failure (registry, repository, reason) values ($1, $2, $3)
         on conflict (registry, repository) do update set failed_at = now(), reason = excluded.reason",
    )
    .bind(registry.as_ref())
    .bind(repository.as_ref())
    .bind(reason)
    .execute(db)
    .await
    .map(|_| ())
}
