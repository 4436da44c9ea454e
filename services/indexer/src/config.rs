//! Settings of the indexer.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use tagtrail_bus::BusArgs;
use tagtrail_postgres::DbArgs;
use tagtrail_postgres::session::parse_silence;

/// The settings, as flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The database.
    #[command(flatten)]
    pub db: DbArgs,
    /// The bus.
    #[command(flatten)]
    pub bus: BusArgs,
    /// The file with the registries that re-checks ask [default: tagtrail.toml if there is one;
    /// else the resolver decides which registries to ask].
    #[arg(long, env = "TAGTRAIL_CONFIG")]
    pub config: Option<PathBuf>,
    /// Batches applied at once [default: number of cores + 1].
    #[arg(long, env = "TAGTRAIL_APPLIERS")]
    pub appliers: Option<NonZeroUsize>,
    /// Seconds without a statement after which Postgres ends a session, and so releases its
    /// partition. A lower value lets another instance take over faster; a value that is too low
    /// ends the session of a slow but healthy instance.
    #[arg(long, env = "TAGTRAIL_SESSION_SECONDS", default_value = "10", value_parser = parse_silence)]
    pub session_seconds: Duration,
    /// Milliseconds between acquiring one free partition and the next. The pause lets instances
    /// that start together share the partitions.
    #[arg(long, env = "TAGTRAIL_CLAIM_INTERVAL_MS", default_value = "1000", value_parser = milliseconds)]
    pub claim_interval_ms: Duration,
    /// Seconds between sweeps, which compare the streams with Postgres. One instance sweeps for
    /// all.
    #[arg(long, env = "TAGTRAIL_SWEEP_SECONDS", default_value = "600", value_parser = sweep_seconds)]
    pub sweep_seconds: Duration,
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(milliseconds @ 1..=60_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err("must be a number of milliseconds from 1 to 60000".to_owned()),
    }
}

fn sweep_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a number of seconds from 1 to 86400".to_owned()),
    }
}
