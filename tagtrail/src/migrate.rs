//! `tagtrail migrate`: brings the schema up to date. The only program that does, besides `tagtrail up`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::{ConnectOptions as _, Connection as _};
use tagtrail_migrations::MIGRATOR;
use tagtrail_postgres::DbArgs;

/// Settings.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Config {
    #[command(flatten)]
    db: DbArgs,
    /// Seconds to wait for Postgres to answer.
    #[arg(long, default_value_t = 60)]
    wait: u64,
}

/// Runs the command.
pub(crate) fn main(config: &Config) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            runtime.block_on(migrate(&config.db, Duration::from_secs(config.wait)))
        });
    let mut stderr = std::io::stderr();
    // Nobody reads what can't be written.
    match outcome {
        Ok(version) => {
            let _ = writeln!(stderr, "the schema is at version {version}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(stderr, "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for the server and runs what is missing. Gives the version of the schema.
pub(crate) async fn migrate(db: &DbArgs, wait: Duration) -> anyhow::Result<i64> {
    let options = db.options("migrate")?;
    let deadline = tokio::time::Instant::now() + wait;
    let mut attempt = 0;
    let mut connection = loop {
        match tokio::time::timeout(Duration::from_secs(5), options.connect()).await {
            Ok(Ok(connection)) => break connection,
            // Whatever the server says in words will not change by waiting.
            Ok(Err(error @ sqlx::Error::Database(_)))
                if tokio::time::Instant::now() >= deadline || !starting(&error) =>
            {
                return Err(error).context("Postgres refuses the connection: check DATABASE_URL");
            }
            Ok(Err(error)) if tokio::time::Instant::now() >= deadline => {
                return Err(error)
                    .context("can't reach Postgres: check DATABASE_URL, and that it runs");
            }
            Err(_) if tokio::time::Instant::now() >= deadline => {
                anyhow::bail!("can't reach Postgres: no answer; check DATABASE_URL")
            }
            Ok(Err(_)) | Err(_) => {
                attempt += 1;
                tokio::time::sleep(tagtrail_daemon::backoff(attempt)).await;
            }
        }
    };
    MIGRATOR
        .run(&mut connection)
        .await
        .context("can't migrate the schema")?;
    // Roles belong to the server: they may have been made, or lost in a restore, since the schema was.
    sqlx::query("select grant_to_services()")
        .execute(&mut connection)
        .await
        .context("can't give the services' roles what they need")?;
    connection.close().await?;
    Ok(MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0))
}

/// `cannot_connect_now`: the server is starting up or shutting down.
fn starting(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("57P03"))
}
