//! Manifests.

use sqlx::PgConnection;
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Manifest};

/// Returns the manifest of a digest. `None`: the resolver has not read it yet.
pub async fn manifest(
    db: &mut PgConnection,
    digest: &Digest,
) -> Result<Option<Manifest>, sqlx::Error> {
    let row = sqlx::query(
        "select digest, registry, repository, media_type, size_bytes, artifact_type, platforms, created, labels, annotations, revision, source,
                version, tombstone, read_at
         from manifest where digest = $1",
    )
    .bind(digest.as_bytes())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(row::manifest).transpose()
}
