//! Manifests.

use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Manifest};

/// Returns the manifest of a digest. `None`: the resolver has not read it yet.
pub async fn manifest(
    db: &mut PgConnection,
    digest: &Digest,
) -> Result<Option<Manifest>, sqlx::Error> {
    let row = sqlx::query(
        "select registry, repository, media_type, size_bytes, artifact_type, platforms, created, labels, annotations, revision, source,
                version, tombstone, read_at
         from manifest where digest = $1",
    )
    .bind(digest.as_bytes())
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (Json(platforms), Json(labels), Json(annotations)) = (
        row.try_get("platforms")?,
        row.try_get("labels")?,
        row.try_get("annotations")?,
    );
    Ok(Some(Manifest {
        digest: digest.clone(),
        registry: row::parsed(row.try_get("registry")?)?,
        repository: row::parsed(row.try_get("repository")?)?,
        media_type: row.try_get("media_type")?,
        size: row::unsigned(row.try_get("size_bytes")?),
        artifact_type: row.try_get("artifact_type")?,
        platforms,
        created: row.try_get("created")?,
        labels,
        annotations,
        revision: row.try_get("revision")?,
        source: row.try_get("source")?,
        version: row.try_get("version")?,
        tombstone: row.try_get("tombstone")?,
        read_at: row.try_get("read_at")?,
    }))
}
