//! Settings of the trigger service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tagtrail_bus::BusArgs;
use tagtrail_config::File;
use tagtrail_postgres::DbArgs;
use tagtrail_postgres::session::parse_silence;
use tagtrail_proto::{Image, Registry};

pub use tagtrail_policy::retry::Pace;

/// Settings from flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The Postgres database.
    #[command(flatten)]
    pub db: DbArgs,
    /// The NATS server.
    #[command(flatten)]
    pub bus: BusArgs,
    /// Path of the file that lists the triggers.
    #[arg(long, env = "TAGTRAIL_CONFIG", default_value = "tagtrail.toml")]
    pub config: PathBuf,
    /// Number of workers: attempts made at the same time by this process.
    #[arg(long, env = "TAGTRAIL_WORKERS", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Seconds of silence after which Postgres ends a session, so that another instance can take
    /// over its locks.
    #[arg(long, env = "TAGTRAIL_SESSION_SECONDS", default_value = "10", value_parser = parse_silence)]
    pub session_seconds: Duration,
    /// The pauses between attempts; tests shorten them.
    #[arg(skip)]
    pub pace: Pace,
}

/// A trigger as configured in `tagtrail.toml`.
#[derive(Debug, Clone)]
pub(crate) struct TriggerSpec {
    pub(crate) name: String,
    /// The watched images, by their names in the trigger.
    pub(crate) images: BTreeMap<String, Image>,
    /// The kind of the target, as in `target.<kind>`.
    pub(crate) target: String,
    /// The time without a new head after which the planner starts a rollout, if configured.
    pub(crate) settle: Option<Duration>,
}

/// Reads the triggers of the file.
pub(crate) fn triggers(file: &File) -> Vec<TriggerSpec> {
    file.trigger
        .iter()
        .map(|trigger| TriggerSpec {
            name: trigger.name.get_ref().to_string(),
            images: trigger
                .images
                .iter()
                .map(|(name, image)| (name.get_ref().clone(), image.clone()))
                .collect(),
            target: trigger.target().kind.to_owned(),
            settle: trigger.settle,
        })
        .collect()
}

/// Returns the registries that can be asked.
pub(crate) fn asked(file: &File) -> BTreeSet<Registry> {
    let names = file.registry.iter().map(|access| access.name.get_ref());
    names.cloned().collect()
}
