//! Settings of the api.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tagtrail_bus::BusArgs;
use tagtrail_postgres::DbArgs;

/// Settings, as flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address of the API. An address that other machines can reach requires a `[[token]]` in the
    /// file.
    #[arg(long, env = "TAGTRAIL_API_LISTEN", default_value = "127.0.0.1:8401")]
    pub listen: SocketAddr,
    /// The file with the tokens and the aliases of registries [default: tagtrail.toml if there is
    /// one].
    #[arg(long, env = "TAGTRAIL_CONFIG")]
    pub config: Option<PathBuf>,
    /// The database.
    #[command(flatten)]
    pub db: DbArgs,
    /// The bus, which wakes the live feed.
    #[command(flatten)]
    pub bus: BusArgs,
    /// Times of the live feed.
    #[arg(skip)]
    pub pace: Pace,
    /// Address of a gateway in the same process, which the home page names before the first push.
    #[arg(skip)]
    pub gateway: Option<SocketAddr>,
}

/// Times of the live feed.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time without a revision after which a heartbeat is sent.
    pub heartbeat: Duration,
    /// Time after which a follower is dropped that does not read waiting revisions.
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
