//! Manifests.

use sqlx::PgConnection;
pub use tagtrail_postgres::manifests;
use tagtrail_proto::{Digest, Manifest};

/// Returns the manifest of a digest. `None`: the resolver has not read it yet.
pub async fn manifest(
    db: &mut PgConnection,
    digest: &Digest,
) -> Result<Option<Manifest>, sqlx::Error> {
    Ok(manifests(db, &[digest]).await?.remove(digest))
}
