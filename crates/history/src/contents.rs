//! Contents of digests, in short: as much as a list shows of each.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Platform};

/// The content of a digest, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Version of the packaged software.
    pub version: Option<String>,
    /// Source commit.
    pub revision: Option<String>,
    /// Address of the source code.
    pub source: Option<String>,
    /// Platforms of the image.
    pub platforms: Vec<Platform>,
}

/// Returns the contents of these digests whose manifests have been read.
pub async fn contents(
    db: &mut PgConnection,
    digests: &[&Digest],
) -> Result<BTreeMap<Digest, Content>, sqlx::Error> {
    let rows = sqlx::query(
        "select digest, version, revision, source, platforms from manifest where digest = any ($1)",
    )
    .bind(
        digests
            .iter()
            .map(|digest| digest.as_bytes())
            .collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    let content = |row: &PgRow| {
        let digest = row::digest(row.try_get("digest")?)?.ok_or(sqlx::Error::RowNotFound)?;
        let Json(platforms) = row.try_get("platforms")?;
        let content = Content {
            version: row.try_get("version")?,
            revision: row.try_get("revision")?,
            source: row.try_get("source")?,
            platforms,
        };
        Ok((digest, content))
    };
    rows.iter().map(content).collect()
}
