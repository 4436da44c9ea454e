//! Connections to Postgres, opened the same way by every service that has a database.
//!
//! In scope: the setting, waiting for the server and for the schema, **sessions** (direct
//! connections that hold an advisory lock and end when their holder does), the list of those locks,
//! the row in which a process states that it runs,
//! and columns whose values have no type in Postgres.
//!
//! Out of scope: SQL that reads history (`tagtrail-history`), other SQL of the services (their
//! `store`) and running migrations (`tagtrail migrate`).

mod connection;
mod lock;
mod manifests;
pub mod position;
pub mod presence;
pub mod row;
pub mod session;

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tagtrail_daemon::Health;
use tokio_util::sync::CancellationToken;

pub use connection::{check_writable, connect, too_old};
pub use lock::Lock;
pub use manifests::manifests;
pub use session::{keep_plans, ping, within};

/// The setting of the database.
#[derive(Clone, clap::Args)]
pub struct DbArgs {
    /// URL of Postgres with its credentials, such as
    /// `postgres://tagtrail:password@127.0.0.1:5432/tagtrail`: one host, and Postgres itself, not a
    /// pooler.
    #[arg(
        id = "database_url",
        long = "database-url",
        env = "DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://127.0.0.1:5432/tagtrail"
    )]
    pub url: String,
}

impl std::fmt::Debug for DbArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DbArgs { url: … }") // It holds a password.
    }
}

/// The reason for which a service can't use the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The setting is wrong; waiting can't help.
    #[error(
        "DATABASE_URL (--database-url) is not a URL of Postgres, such as postgres://user:password@host:5432/tagtrail"
    )]
    Url(#[source] sqlx::Error),
    /// The server refuses the connection; waiting can't help.
    #[error(
        "Postgres refuses the connection: check the user, password and database in DATABASE_URL"
    )]
    Refused(#[source] sqlx::Error),
    /// The version of the server is too old.
    #[error("{0}")]
    TooOld(String),
    /// The schema is newer than this program.
    #[error(
        "the database schema is newer than this program (it has migration {0}): upgrade this service too"
    )]
    Newer(i64),
    /// The program was asked to stop while waiting.
    #[error("stopped while waiting for Postgres")]
    Stopped,
}

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

impl DbArgs {
    /// Returns the options of the connections of the service `name`, which `pg_stat_activity`
    /// shows.
    ///
    /// # Errors
    /// [`DbError::Url`].
    pub fn options(&self, name: &str) -> Result<PgConnectOptions, DbError> {
        let options = PgConnectOptions::from_str(&self.url).map_err(DbError::Url)?;
        Ok(options
            .application_name(&format!("tagtrail-{name}"))
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1)))
    }

    /// Waits for the server, and until `tagtrail migrate` has brought the schema to this program's
    /// version. Meanwhile the part `postgres` of `health`, if given, has the cause.
    ///
    /// # Errors
    /// [`DbError`], where waiting can't help.
    pub async fn wait_for_schema(
        &self,
        name: &str,
        health: Option<&Health>,
        shutdown: &CancellationToken,
    ) -> Result<(), DbError> {
        let options = self.options(name)?;
        let mut attempt = 0;
        loop {
            let cause = match tokio::time::timeout(CONNECT, schema(&options)).await {
                Ok(Ok(Schema::Current)) => return Ok(()),
                Ok(Ok(Schema::Newer(version))) => return Err(DbError::Newer(version)),
                Ok(Ok(Schema::TooOld(text))) => return Err(DbError::TooOld(text)),
                Ok(Ok(Schema::Older)) => {
                    "waiting for the database schema: run `tagtrail migrate`".to_owned()
                }
                Ok(Err(err)) if refused(&err) => return Err(DbError::Refused(err)),
                Ok(Err(err)) => format!("waiting for Postgres: {err:#}"),
                Err(_) => format!("waiting for Postgres: no answer in {CONNECT:?}"),
            };
            tracing::warn!("{cause}");
            if let Some(health) = health {
                health.set("postgres", Err(cause));
            }
            attempt += 1;
            tokio::select! {
                () = shutdown.cancelled() => return Err(DbError::Stopped),
                () = tokio::time::sleep(tagtrail_daemon::backoff(attempt)) => {}
            }
        }
    }
}

/// Logs the settings of the server under which it may lose committed transactions.
async fn report_weak_settings(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let off = sqlx::raw_sql(
        "select name from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting = 'off' order by name",
    )
    .fetch_all(connection)
    .await?;
    for row in off {
        let name: &str = row.try_get("name")?;
        tracing::warn!(
            "Postgres has {name} = off: a power cut loses or damages committed data, history and rollouts included; set {name} = on, the default"
        );
    }
    Ok(())
}

enum Schema {
    Current,
    Older,
    Newer(i64),
    TooOld(String),
}

async fn schema(options: &PgConnectOptions) -> Result<Schema, sqlx::Error> {
    let mut connection = options.connect().await?;
    if let Some(text) = too_old(&mut connection).await? {
        return Ok(Schema::TooOld(text));
    }
    // No statement here is prepared: behind a transaction pooler the cause would stay hidden.
    let applied = sqlx::raw_sql(
        "select coalesce(max(version), 0) as version from _sqlx_migrations where success",
    )
    .fetch_one(&mut connection)
    .await;
    report_weak_settings(&mut connection).await?;
    connection.close().await?;
    let applied = match applied {
        Ok(row) => row.try_get("version")?,
        // undefined_table: no migration was ever applied.
        Err(sqlx::Error::Database(err)) if err.code().as_deref() == Some("42P01") => 0,
        Err(err) => return Err(err),
    };
    let known = tagtrail_migrations::MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0);
    Ok(match applied.cmp(&known) {
        std::cmp::Ordering::Less => Schema::Older,
        std::cmp::Ordering::Equal => Schema::Current,
        std::cmp::Ordering::Greater => Schema::Newer(applied),
    })
}

/// Returns whether the server refuses us for good: wrong password, no such role or database.
fn refused(err: &sqlx::Error) -> bool {
    matches!(err, sqlx::Error::Database(err) if matches!(err.code().as_deref(), Some("28P01" | "28000" | "3D000")))
}
