//! Settings of the trigger service.

use std::path::PathBuf;
use std::time::Duration;

use tagtrail_bus::BusArgs;
use tagtrail_postgres::DbArgs;

pub use tagtrail_policy::retry::Pace;

/// Settings, as flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The database.
    #[command(flatten)]
    pub db: DbArgs,
    /// The bus.
    #[command(flatten)]
    pub bus: BusArgs,
    /// The file with the triggers.
    #[arg(long, env = "TAGTRAIL_CONFIG", default_value = "tagtrail.toml")]
    pub config: PathBuf,
    /// Rollouts carried out at once.
    #[arg(long, env = "TAGTRAIL_WORKERS", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Seconds after which Postgres ends a silent session, so that another instance takes over what it was doing.
    #[arg(long, env = "TAGTRAIL_SESSION_SECONDS", default_value = "10", value_parser = seconds)]
    pub session_seconds: Duration,
    /// How retries are spaced.
    #[arg(skip)]
    pub pace: Pace,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=600) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a number of seconds from 1 to 600".to_owned()),
    }
}
