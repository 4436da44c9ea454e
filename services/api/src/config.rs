//! Settings of the api.

use std::net::SocketAddr;

use tagtrail_postgres::DbArgs;

/// Settings, as flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address on which questions are answered. There are no API tokens yet: whoever reaches it may read everything and pause
    /// and resume triggers.
    #[arg(long, env = "TAGTRAIL_API_LISTEN", default_value = "127.0.0.1:8401")]
    pub listen: SocketAddr,
    /// The database.
    #[command(flatten)]
    pub db: DbArgs,
}
