//! Settings of the api.

use std::net::SocketAddr;
use std::path::PathBuf;

use tagtrail_bus::BusArgs;
use tagtrail_postgres::DbArgs;

pub use crate::revisions::Pace;

/// Settings, as flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address on which questions are answered. Any but one of this machine's own takes a `[[token]]` in the file.
    #[arg(long, env = "TAGTRAIL_API_LISTEN", default_value = "127.0.0.1:8401")]
    pub listen: SocketAddr,
    /// The file with the tokens [default: tagtrail.toml if there is one].
    #[arg(long, env = "TAGTRAIL_CONFIG")]
    pub config: Option<PathBuf>,
    /// The database.
    #[command(flatten)]
    pub db: DbArgs,
    /// The bus: it tells the live feed when to look.
    #[command(flatten)]
    pub bus: BusArgs,
    /// How the live feed behaves over time.
    #[arg(skip)]
    pub pace: Pace,
}
