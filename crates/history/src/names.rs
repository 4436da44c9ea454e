//! The repositories that have a history.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Registry, Repository, Tag};
use time::OffsetDateTime;

use crate::counted::fresh;
use crate::instant::{Instant, of_key, to_micros};
use crate::slots::first_half_hour;

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
    /// Changes recorded in the 48 half hours that end with the present one, without those of tags
    /// that hold signatures.
    pub recent_changes: u64,
}

/// The order of a list of repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By registry and name.
    Name,
    /// The repository with the newest revision in force first. All tags are read.
    Newest,
    /// The repository with the most changes of the last 24 hours first.
    Changes,
}

impl Order {
    /// All orders.
    pub const EVERY: [Order; 3] = [Order::Name, Order::Newest, Order::Changes];

    /// Returns the name in addresses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Name => "name",
            Order::Newest => "newest",
            Order::Changes => "changes",
        }
    }
}

/// Which repositories are returned, and in which order.
#[derive(Debug, Clone, Copy)]
pub struct RepositoriesQuery<'a> {
    /// Begin of the name with or without the registry.
    pub prefix: Option<&'a str>,
    /// Part of the name with the registry, in any case.
    pub part: Option<&'a str>,
    /// Set to count tags that hold signatures, too.
    pub signatures: bool,
    /// The order.
    pub order: Order,
    /// The present.
    pub now: OffsetDateTime,
}

impl RepositoriesQuery<'_> {
    /// Writes the statement. Its parts are constants; all values are parameters.
    fn statement(&self) -> String {
        // Ordered by a column of `n`, the tags are counted for as many rows as the page has.
        let (after, order) = match self.order {
            Order::Name => (
                "(n.registry, n.repository) > (select a.registry, a.name from repository a where a.id = $6)",
                "registry, repository",
            ),
            Order::Newest => (
                "(c.changed_at, n.id) < ($5::timestamptz, $6)",
                "changed_at desc, id desc",
            ),
            Order::Changes => (
                "(n.recent, n.id) < ($7::bigint, $6)",
                "recent desc, id desc",
            ),
        };
        let first = match self.order {
            Order::Newest => String::new(),
            Order::Name | Order::Changes => format!("order by {order}"),
        };
        format!(
            "with {}, counted as materialized (
                 select repository_id, sum(changes)::bigint as changes
                 from (select repository_id, changes from half_hour_stats where half_hour >= $8
                       union all select repository_id, 1 from fresh where image and half_hour >= $8) s
                 group by repository_id
             ), named as materialized (
                 select r.id, r.registry, r.name as repository, coalesce(d.changes, 0) as recent
                 from repository r left join counted d on d.repository_id = r.id
                 where ($1::text is null or starts_with(r.registry || '/' || r.name, $1) or starts_with(r.name, $1))
                   and ($2::text is null or strpos(lower(r.registry || '/' || r.name), lower($2)) > 0)
             )
             select n.*, c.tags, c.deleted, c.changed_at
             from (select * from named {first} offset 0) n
             cross join lateral (
                 select count(*) filter (where t.head_digest is not null) as tags, count(*) filter (where t.head_digest is null) as deleted,
                        max(t.head_at) as changed_at
                 from tag t
                 where t.repository_id = n.id and t.head is not null
                   and ($3 or not (t.name like 'sha___-%' and t.name ~ $4))) c
             where c.changed_at is not null and ($6::bigint is null or {after})
             order by {order} limit $9",
            fresh()
        )
    }
}

/// Returns the repositories that have a history. Key: effective time or number of changes, by the
/// order, or nothing; and the row id of the repository.
pub async fn repositories(
    db: &mut PgConnection,
    query: RepositoriesQuery<'_>,
    after: Option<[i64; 2]>,
    limit: i64,
) -> Result<Vec<([i64; 2], KnownRepository)>, sqlx::Error> {
    let at = match (query.order, after) {
        (Order::Newest, Some([at, _])) => Some(of_key(at)?),
        _ => None,
    };
    let rows = sqlx::query(AssertSqlSafe(query.statement()))
        .bind(query.prefix)
        .bind(query.part)
        .bind(query.signatures)
        .bind(Tag::SIGNATURE)
        .bind(at)
        .bind(after.map(|[_, id]| id))
        .bind(after.map(|[changes, _]| changes))
        .bind(first_half_hour(query.now))
        .bind(limit)
        .fetch_all(db)
        .await?;
    let repository = |row: &PgRow| {
        let changed_at: OffsetDateTime = row.try_get("changed_at")?;
        let recent: i64 = row.try_get("recent")?;
        let repository = KnownRepository {
            registry: row::parsed(row.try_get("registry")?)?,
            repository: row::parsed(row.try_get("repository")?)?,
            tags: row::unsigned(row.try_get("tags")?),
            deleted: row::unsigned(row.try_get("deleted")?),
            changed_at: Instant(changed_at),
            recent_changes: row::unsigned(recent),
        };
        let first = match query.order {
            Order::Name => 0,
            Order::Newest => to_micros(changed_at),
            Order::Changes => recent,
        };
        Ok(([first, row.try_get("id")?], repository))
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
