//! The images that have a history.

use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Registry, Repository, Tag};

/// Returns the number of images that have a history, whose repository `matches` accepts, and whose
/// tag matches `tag`: a name with `*` for any text, or `None` for every tag. Tags that hold
/// signatures count only with `signatures`.
pub async fn count(
    db: &mut PgConnection,
    matches: impl Fn(&Registry, &Repository) -> bool,
    tag: Option<&str>,
    signatures: bool,
) -> Result<u64, sqlx::Error> {
    let rows = sqlx::query("select id, registry, name from repository")
        .fetch_all(&mut *db)
        .await?;
    let mut repositories: Vec<i64> = Vec::new();
    for row in &rows {
        let (registry, name) = (row.try_get("registry")?, row.try_get("name")?);
        if matches(&row::parsed(registry)?, &row::parsed(name)?) {
            repositories.push(row.try_get("id")?);
        }
    }
    if repositories.is_empty() {
        return Ok(0);
    }
    let count: i64 = sqlx::query_scalar(
        "select count(*) from tag
         where repository_id = any($1) and head is not null and ($2::text is null or name like $2)
           and ($3 or name !~ $4)",
    )
    .bind(&repositories)
    // In `like`, `_` is any character: in tags it stands for itself.
    .bind(tag.map(|tag| tag.replace('_', "\\_").replace('*', "%")))
    .bind(signatures)
    .bind(Tag::SIGNATURE)
    .fetch_one(db)
    .await?;
    Ok(row::unsigned(count))
}
