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
    /// URL of Postgres with its credentials, such as
    /// `postgres://tagtrail:password@127.0.0.1:5432/tagtrail`: for comparing registries with
    /// history [default: registries are not reconciled].
    #[arg(long = "database-url", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Seconds after which NATS hands the unanswered questions of a crashed instance to another.
    /// Longer than the slowest request to a registry.
    #[arg(long, env = "TAGTRAIL_ACK_SECONDS", default_value = "120", value_parser = ack_seconds)]
    pub ack_seconds: Duration,
    /// The times to wait.
    #[arg(skip)]
    pub pace: Pace,
}

fn ack_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 5..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a number of seconds from 5 to 3600".to_owned()),
    }
}

/// The times to wait.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Quiet time of a tag before the lookup: of several events of a push only the
    /// last is right, and Distribution sends the event before linking the tag.
    pub quiet: Duration,
    /// Time after an answer until the second look: registries send the events of a multi-platform
    /// image while the push is under way.
    pub second: Duration,
    /// Longest wait for a tag whose events do not stop.
    pub longest: Duration,
    /// Pause after the first failed attempt; doubles with each further attempt.
    pub first: Duration,
    /// Pauses before a manifest is read again that its registry did not have. Then the registry is
    /// asked for the tag.
    pub absent: [Duration; 4],
    /// The longest pause between attempts.
    pub last: Duration,
    /// Time from the start to the first pass of the reconciler; at most the interval of the
    /// registry.
    pub before_first: Duration,
    /// Time before the second check of a difference, whose event may still be on the way; at most
    /// half the interval of the registry.
    pub grace: Duration,
    /// As `grace`, for an image of a trigger; at most a twelfth of the registry's
    /// `watch_triggers`.
    pub watch_grace: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            quiet: Duration::from_secs(2),
            second: Duration::from_secs(10),
            longest: Duration::from_secs(30),
            first: Duration::from_secs(5),
            absent: [1, 3, 10, 30].map(Duration::from_secs),
            last: Duration::from_secs(5 * 60),
            before_first: Duration::from_secs(10),
            grace: Duration::from_secs(30),
            watch_grace: Duration::from_secs(5),
        }
    }
}
