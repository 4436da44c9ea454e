//! The statement about images that targets run already.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Pinned, Tag};
use time::OffsetDateTime;

/// Most tags with the digest of an image that are looked at.
const MOST: i64 = 1000;

/// An image that a target runs.
#[derive(Debug)]
pub(crate) struct Runs<'a> {
    /// Name of the image in the trigger.
    pub(crate) name: &'a str,
    /// The tag, if the trigger names it.
    pub(crate) tag: Option<&'a Tag>,
    pub(crate) pinned: &'a Pinned,
}

/// A tag that has or had the digest of such an image.
#[derive(Debug)]
pub(crate) struct Had {
    /// Name of the image in the trigger.
    pub(crate) name: String,
    pub(crate) tag_id: i64,
    pub(crate) tag: Tag,
    /// The newest revision with the digest.
    pub(crate) revision: u64,
    /// Its effective time.
    pub(crate) effective_at: OffsetDateTime,
}

/// Returns the tags that have or had the digests of these images, of each image the latest first.
pub(crate) async fn tags(
    db: &mut PgConnection,
    images: &[Runs<'_>],
) -> Result<Vec<Had>, sqlx::Error> {
    let each = |of: fn(&Runs<'_>) -> String| images.iter().map(of).collect::<Vec<_>>();
    let tags = images.iter().map(|one| one.tag.map(AsRef::as_ref));
    let digests = images.iter().map(|one| one.pinned.digest.as_bytes());
    let rows = sqlx::query(
        "select w.name, f.* from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[]) as w (name, registry, repository, tag, digest)
         cross join lateral (
             select v.tag_id, g.name as tag, max(v.number) as number, max(v.effective_at) as effective_at
             from revision v join tag g on g.id = v.tag_id join repository r on r.id = g.repository_id
             where v.digest = w.digest and r.registry = w.registry and r.name = w.repository and (w.tag is null or g.name = w.tag)
             group by v.tag_id, g.name order by effective_at desc, tag desc limit $6) f
         order by w.name, f.effective_at desc, f.tag desc",
    )
    .bind(each(|one| one.name.to_owned()))
    .bind(each(|one| one.pinned.registry.to_string()))
    .bind(each(|one| one.pinned.repository.to_string()))
    .bind(tags.collect::<Vec<_>>())
    .bind(digests.collect::<Vec<_>>())
    .bind(MOST)
    .fetch_all(db)
    .await?;
    let had = |row: &PgRow| {
        Ok(Had {
            name: row.try_get("name")?,
            tag_id: row.try_get("tag_id")?,
            tag: row::parsed(row.try_get("tag")?)?,
            revision: row::unsigned(row.try_get("number")?),
            effective_at: row.try_get("effective_at")?,
        })
    };
    rows.iter().map(had).collect()
}
