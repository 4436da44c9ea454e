//! Manifests with their contents.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Manifest};

/// Returns the manifest of a digest. `None`: the resolver has not read it yet.
pub async fn manifest(
    db: &mut PgConnection,
    digest: &Digest,
) -> Result<Option<Manifest>, sqlx::Error> {
    Ok(manifests(db, &[digest]).await?.remove(digest))
}

/// Returns the manifests of these digests. A missing one is not read yet.
pub async fn manifests(
    db: &mut PgConnection,
    digests: &[&Digest],
) -> Result<BTreeMap<Digest, Manifest>, sqlx::Error> {
    let rows = sqlx::query(
        "select digest, registry, repository, media_type, size_bytes, artifact_type, platforms, created,
             labels, annotations, revision, source, version, tombstone, image, index, read_at
         from manifest where digest = any ($1)",
    )
    .bind(digests.iter().map(|digest| digest.as_bytes()).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    let manifest = |row: &PgRow| {
        let image: Option<Json<_>> = row.try_get("image")?;
        let index: Option<Json<_>> = row.try_get("index")?;
        let manifest = Manifest {
            image: image.map(|Json(image)| image),
            index: index.map(|Json(index)| index),
            ..row::manifest(row)?
        };
        Ok((manifest.digest.clone(), manifest))
    };
    rows.iter().map(manifest).collect()
}
