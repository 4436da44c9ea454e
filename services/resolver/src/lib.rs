//! The resolver asks: events that name no digest, and doubts of the indexer, become facts by asking the registry. And it reads what
//! each digest is, once.
//!
//! In scope: waiting until a tag is quiet ([`debounce`](self), pure), asking the configured registries, retrying, and what is put on
//! PUSHES and MANIFESTS; and comparing whole registries with history, for what no event told ([`reconcile`](self)). Any number of
//! instances share the work. Only comparing needs a database, which it reads.
//!
//! Out of scope: how a registry is asked (`tagtrail-registry`), what the answer changes (the indexer).
//!
//! The answer is a fact of the moment of asking, with origin `resolved`: it says what the tag is now, not what the event meant.
//! So an event that is given out twice, answered late, or asked by two instances does no harm.

mod answer;
mod ask;
mod check;
mod config;
mod manifests;
mod metrics;
mod reconcile;
mod shared;

use std::sync::Arc;

use tagtrail_bus::{Bus, BusError};
use tagtrail_config::{ConfigError, File, RegistryAccess};
use tagtrail_daemon::{Context, Tasks};
use tagtrail_postgres::DbArgs;

pub use check::{CheckError, check_registry};
pub use config::{Config, Pace};
use shared::Shared;
pub use tagtrail_registry::{AskError, Ping};

/// Looks at everything that the resolver needs of the file, secrets included, and says what it found there, a line each.
///
/// # Errors
/// What is wrong, with its line and the cure.
pub fn check(file: &File) -> Result<Vec<String>, ConfigError> {
    shared::registries(file)?;
    let line = |access: &RegistryAccess| {
        let user = match &access.username {
            Some(user) => format!("as {user}"),
            None => "without a password".to_owned(),
        };
        format!(
            "registry {}: asked at {} {user}",
            access.name.get_ref(),
            access.url.get_ref()
        )
    };
    Ok(file.registry.iter().map(line).collect())
}

/// Runs until a stop is asked for.
///
/// # Errors
/// Only what waiting can't heal: a wrong `tagtrail.toml`, refused credentials, streams that do not fit.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("nats");
    let file = File::load(&File::find(config.config.as_deref()))?;
    let registries = shared::registries(&file)?;
    tracing::info!(registries = registries.len(), "asking registries");
    let bus = match Bus::connect(&config.bus, "resolver", &ctx.shutdown).await {
        Err(BusError::Stopped) => return Ok(()),
        connected => connected?,
    };
    let shared = Arc::new(Shared {
        bus,
        registries,
        pace: config.pace,
        metrics: metrics::Metrics::new(&ctx.metrics),
        shutdown: ctx.shutdown.clone(),
    });
    let mut tasks = Tasks::new();
    match &config.database_url {
        Some(url) => {
            let db = DbArgs { url: url.clone() };
            for reconciler in reconcile::all(&file, &db, &shared) {
                tasks.spawn("comparing a registry", reconciler.run());
            }
        }
        None if !shared.registries.is_empty() => tracing::warn!(
            "registries are not compared with history, so what no event tells is not found: DATABASE_URL (--database-url) is not set"
        ),
        None => {}
    }
    let (health, shutdown) = (ctx.health.clone(), ctx.shutdown.clone());
    let bus = shared.bus.clone();
    tasks.spawn("health of the bus", async move {
        Ok(bus.report_health(health, shutdown).await?)
    });
    tasks.spawn(
        "manifests",
        manifests::run(Arc::clone(&shared), manifests::Metrics::new(&ctx.metrics)),
    );
    tasks.spawn("questions", ask::run(shared));
    tasks.join(&ctx.shutdown).await
}
