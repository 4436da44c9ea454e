//! The heads of watched tags beside the revisions that run.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::Digest;
use time::OffsetDateTime;

/// The head of a tag.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The row id of the tag.
    pub(crate) tag: i64,
    /// `None`: the tag is deleted.
    pub(crate) digest: Option<Digest>,
    pub(crate) revision: u64,
    /// The time from which on the first revision holds.
    pub(crate) first: OffsetDateTime,
    /// Time of the first revision after the one that runs.
    pub(crate) behind_since: Option<OffsetDateTime>,
}

/// Returns the heads of these images by name, in one statement. With each image, the number of the
/// revision that runs; 0 if none is known.
pub(crate) async fn of(
    db: &mut PgConnection,
    watched: &[(&str, u64)],
) -> Result<BTreeMap<(String, u64), Head>, sqlx::Error> {
    if watched.is_empty() {
        return Ok(BTreeMap::new());
    }
    let images: Vec<&str> = watched.iter().map(|(image, _)| *image).collect();
    let run: Vec<i64> = watched.iter().map(|(_, run)| row::signed(*run)).collect();
    let rows = sqlx::query(
        "select w.image, w.run, g.id, g.head, g.head_digest, f.effective_at as first, n.effective_at as behind_since
         from (select distinct image, run from unnest($1::text[], $2::bigint[]) as w (image, run)) w
         join repository r on r.registry = split_part(w.image, '/', 1) and r.name = substring(w.image from '^[^/]+/(.*):[^:]+$')
         join tag g on g.repository_id = r.id and g.name = substring(w.image from '[^:]+$')
         join lateral (
             select v.effective_at from revision v
             where v.tag_id = g.id order by v.effective_at, v.number limit 1) f on true
         left join lateral (
             select v.effective_at from revision v
             where w.run > 0 and v.tag_id = g.id and v.number > w.run order by v.number limit 1) n on true
         where g.head is not null",
    )
    .bind(images)
    .bind(run)
    .fetch_all(db)
    .await?;
    let head = |row: &PgRow| {
        let key = (
            row.try_get("image")?,
            row::unsigned(row.try_get::<i64, _>("run")?),
        );
        let head = Head {
            tag: row.try_get("id")?,
            digest: row::digest(row.try_get("head_digest")?)?,
            revision: row::unsigned(row.try_get("head")?),
            first: row.try_get("first")?,
            behind_since: row.try_get("behind_since")?,
        };
        Ok((key, head))
    };
    rows.iter().map(head).collect()
}
