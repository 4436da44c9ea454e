//! The row id of a tag.

use sqlx::PgConnection;
use tagtrail_proto::Image;

/// Returns the row id of an image that has a history.
///
/// A tag gets its row before its first revision is recorded. Without a revision it counts as
/// unknown.
pub async fn tag_id(db: &mut PgConnection, image: &Image) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select t.id from repository r join tag t on t.repository_id = r.id
         where r.registry = $1 and r.name = $2 and t.name = $3 and t.head is not null",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .fetch_optional(db)
    .await
}
