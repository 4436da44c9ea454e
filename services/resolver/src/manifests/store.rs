//! Records the manifests that a registry does not have, for the planner of rollouts: it waits for
//! the next attempt.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_postgres::{DbArgs, within};
use tagtrail_proto::Pinned;

/// Bound of opening a session, and of the statement.
const LIMIT: Duration = Duration::from_secs(2);

/// Records missing manifests. Missing manifests of new revisions are rare, so each one opens a
/// session of its own.
#[derive(Debug)]
pub(super) struct MissingManifests {
    /// `None`: the resolver runs without a database, so the planner waits only a short time.
    pub(super) db: Option<DbArgs>,
}

impl MissingManifests {
    /// Records that the registry does not have a manifest. With `given_up` no attempt follows.
    pub(super) async fn record(&self, pinned: &Pinned, given_up: bool) {
        let Some(db) = &self.db else { return };
        let recorded = async {
            let mut session = within(LIMIT, db.session("resolver", LIMIT * 5)).await?;
            within(LIMIT, missing(&mut session, pinned, given_up)).await?;
            session.close().await
        };
        if let Err(error) = recorded.await {
            tracing::warn!(digest = %pinned.digest, "could not record that {pinned} is missing, so triggers do not wait for the next attempt: {error}");
        }
    }
}

async fn missing(
    db: &mut PgConnection,
    pinned: &Pinned,
    given_up: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with old as (delete from missing_manifest where looked_at < now() - interval '1 day' and digest <> $1)
         insert into missing_manifest (digest, registry, repository, looked_at, given_up) values ($1, $2, $3, now(), $4)
         on conflict (digest, registry, repository) do update set looked_at = excluded.looked_at, given_up = excluded.given_up",
    )
    .bind(pinned.digest.as_bytes())
    .bind(pinned.registry.as_ref())
    .bind(pinned.repository.as_ref())
    .bind(given_up)
    .execute(db)
    .await
    .map(|_| ())
}
