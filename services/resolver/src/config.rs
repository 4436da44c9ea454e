//! Settings of the resolver.

use std::path::PathBuf;
use std::time::Duration;

use tagtrail_bus::BusArgs;

/// Settings, as flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The file with the registries [default: tagtrail.toml if there is one].
    #[arg(long, env = "TAGTRAIL_CONFIG")]
    pub config: Option<PathBuf>,
    /// The bus.
    #[command(flatten)]
    pub bus: BusArgs,
    /// URL of Postgres with its credentials, such as `postgres://tagtrail:password@127.0.0.1:5432/tagtrail`: for comparing
    /// registries with history [default: they are not compared].
    #[arg(long = "database-url", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// How long is waited for what.
    #[arg(skip)]
    pub pace: Pace,
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A tag must have been quiet for so long: of several events of one push only the last is right, and Distribution notifies
    /// before it links the tag.
    pub quiet: Duration,
    /// So long after an answer the question is asked once more: an image of several platforms is told of while it is pushed.
    pub second: Duration,
    /// One that is never quiet is asked about after so long.
    pub longest: Duration,
    /// Pause after the first question that got no answer; it doubles from there.
    pub first: Duration,
    /// The longest pause.
    pub last: Duration,
    /// An instance that is not heard of for so long has its questions taken away. More than asking takes at worst.
    pub unheard: Duration,
    /// Comparing begins so long after the start, or after an interval of the registry's, if that is less.
    pub before_first: Duration,
    /// A difference is believed if it is still there after so long, or after half an interval: its event may be on its way.
    pub grace: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            quiet: Duration::from_secs(2),
            second: Duration::from_secs(10),
            longest: Duration::from_secs(30),
            first: Duration::from_secs(5),
            last: Duration::from_secs(5 * 60),
            unheard: Duration::from_secs(120),
            before_first: Duration::from_secs(10),
            grace: Duration::from_secs(30),
        }
    }
}
