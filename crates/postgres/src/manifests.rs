//! Manifests by their digests.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use tagtrail_proto::{Digest, Manifest};

use crate::row;

/// Returns the manifests of these digests. A missing one is not read yet.
///
/// # Errors
/// [`sqlx::Error`] of the server, or of a value that no service writes.
pub async fn manifests(
    db: &mut PgConnection,
    digests: &[&Digest],
) -> Result<BTreeMap<Digest, Manifest>, sqlx::Error> {
    let rows = sqlx::query(
        "select digest, registry, repository, media_type, size_bytes, artifact_type, platforms, created,
             labels, annotations, revision, source, version, tombstone, read_at
         from manifest where digest = any ($1)",
    )
    .bind(digests.iter().map(|digest| digest.as_bytes()).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    let manifest = |row: &PgRow| {
        let manifest = row::manifest(row)?;
        Ok((manifest.digest.clone(), manifest))
    };
    rows.iter().map(manifest).collect()
}
