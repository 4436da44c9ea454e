//! Settings of the api.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tagtrail_bus::BusArgs;
use tagtrail_postgres::DbArgs;

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

/// How the feed behaves over time.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Silence after which a heartbeat is sent.
    pub heartbeat: Duration,
    /// A follower that takes nothing for so long, while there is something, is dropped.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            heartbeat: Duration::from_secs(15),
            patience: Duration::from_secs(30),
        }
    }
}
