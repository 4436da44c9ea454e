//! The registries that have a history, and the images that two of them share: one registry under
//! two names has two histories.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;

/// Most pairs of registries that are returned, with the most images first.
const MOST: i64 = 100;
/// Images of a pair that are named.
const NAMED: i64 = 5;

/// A registry with a history.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Registry")]
pub struct KnownRegistry {
    /// The registry.
    pub registry: String,
    /// Images that have a history.
    pub images: u64,
}

/// Two registries that have images of the same repository and tag.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SharedImages {
    /// A registry.
    pub registry: String,
    /// Another registry, later in the alphabet.
    pub other: String,
    /// Images that have a history in both.
    pub images: u64,
    /// Those of them that have one digest in both now.
    pub same_digest: u64,
    /// The first of them in the alphabet, as `repository:tag`.
    pub first: Vec<String>,
}

/// Returns the registries that have a history.
pub async fn known(db: &mut PgConnection) -> Result<Vec<KnownRegistry>, sqlx::Error> {
    let rows = sqlx::query(
        "select r.registry, count(*) as images
         from tag t join repository r on r.id = t.repository_id where t.head is not null
         group by r.registry order by r.registry",
    )
    .fetch_all(db)
    .await?;
    let known = |row: &PgRow| -> Result<KnownRegistry, sqlx::Error> {
        Ok(KnownRegistry {
            registry: row.try_get("registry")?,
            images: row::unsigned(row.try_get("images")?),
        })
    };
    rows.iter().map(known).collect()
}

/// Returns the pairs of registries that share images, the pair with the most images first.
pub async fn shared(db: &mut PgConnection) -> Result<Vec<SharedImages>, sqlx::Error> {
    let rows = sqlx::query(
        "with image as (
             select r.registry, r.name as repository, t.name as tag, t.head_digest
             from tag t join repository r on r.id = t.repository_id where t.head is not null
         ), pair as (
             select a.registry, b.registry as other, a.repository || ':' || a.tag as name,
                    a.head_digest = b.head_digest as same,
                    row_number() over (partition by a.registry, b.registry order by a.repository, a.tag) as place
             from image a join image b on b.repository = a.repository and b.tag = a.tag and a.registry < b.registry
         )
         select registry, other, count(*) as images, count(*) filter (where same) as same_digest,
                array_agg(name order by place) filter (where place <= $2) as first
         from pair group by registry, other order by images desc, registry, other limit $1",
    )
    .bind(MOST)
    .bind(NAMED)
    .fetch_all(db)
    .await?;
    let pair = |row: &PgRow| -> Result<SharedImages, sqlx::Error> {
        Ok(SharedImages {
            registry: row.try_get("registry")?,
            other: row.try_get("other")?,
            images: row::unsigned(row.try_get("images")?),
            same_digest: row::unsigned(row.try_get("same_digest")?),
            first: row.try_get("first")?,
        })
    };
    rows.iter().map(pair).collect()
}
