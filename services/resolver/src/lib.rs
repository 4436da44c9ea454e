//! The resolver asks registries: for the digests of events without one, for re-checks of the
//! indexer, and for the manifest of each digest. It also reconciles whole registries.
//!
//! In scope: waiting until a tag is quiet (`ask/debounce.rs`, pure), asking the configured
//! registries, retrying, and publishing the answers to PUSHES and the manifests to MANIFESTS;
//! comparing whole registries with history, to find changes without an event (`reconcile.rs`). Any
//! number of instances share the work. Reconciling needs a database; answers take effect after the
//! head that the database has.
//!
//! Out of scope: requests to a registry (`tagtrail-registry`), the effect of an answer (the
//! indexer).
//!
//! An answer is a push with origin `resolved`: the digest of the tag now, not the digest of the
//! event. Its time is the moment of asking, or shortly after the head that the question was about,
//! whichever is later. So a repeated, late or duplicate answer does no harm.

mod answer;
mod ask;
mod check;
mod config;
mod follow;
mod manifests;
mod metrics;
mod postponed;
mod reconcile;
mod shared;
mod store;
mod task;

use std::sync::Arc;

use tagtrail_bus::{Bus, BusError};
use tagtrail_config::{Checked, File, Follower, RegistryAccess};
use tagtrail_daemon::{Context, Tasks};
use tagtrail_postgres::DbArgs;
use tagtrail_postgres::presence::presence;
use tokio::sync::watch;

pub use check::{CheckError, check_list, check_registry};
pub use config::{Config, Pace};
use shared::{Registries, Shared};
pub use tagtrail_registry::{AskError, Ping};

/// Checks the entries of the file that the resolver needs, secrets included. Returns a line about
/// each registry.
#[must_use]
pub fn check(file: &File) -> Checked {
    let broken = shared::registries(file, None).broken;
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
    let warnings = file.registry.iter().flat_map(RegistryAccess::warnings);
    Checked {
        lines: file.registry.iter().map(line).chain(warnings).collect(),
        mistakes: broken.into_iter().map(|one| one.problem).collect(),
    }
}

/// Runs until a stop is requested.
///
/// # Errors
/// Only errors that no retry can fix: a wrong `tagtrail.toml`, refused credentials, streams with
/// other settings.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("nats");
    let files = Follower::start(&File::find(config.config.as_deref()))?;
    let file = files.file();
    let configured = shared::registries(&file, None);
    follow::report(&configured, None);
    for warning in file.registry.iter().flat_map(RegistryAccess::warnings) {
        tracing::warn!("{}", warning.trim_start_matches("warning: "));
    }
    ctx.metrics
        .config_errors("resolver", file.mistakes(&configured.broken));
    let count = configured.clients.len();
    tracing::info!(registries = count, "asking registries");
    let registries = Arc::new(Registries::new(configured.clients.clone()));
    let bus = match Bus::connect(&config.bus, "resolver", &ctx.shutdown).await {
        Err(BusError::Stopped) => return Ok(()),
        connected => connected?,
    };
    let metrics = metrics::Metrics::new(&ctx.metrics);
    for name in configured.clients.keys() {
        metrics.expect_registry(name.as_ref());
    }
    let times = postponed::Times {
        poll: config.pace.first / 5,
        lease: config.ack_seconds * 2,
    };
    let (postponed, returned, keeper) = postponed::start(
        database(&config),
        &registries,
        times,
        &metrics,
        &ctx.shutdown,
    );
    let shared = Arc::new(Shared {
        bus,
        registries,
        postponed,
        heads: Arc::new(store::Heads::new(database(&config))),
        pace: config.pace,
        ack_wait: config.ack_seconds,
        metrics,
        shutdown: ctx.shutdown.clone(),
        health: ctx.health.clone(),
    });
    let mut tasks = Tasks::new();
    let (news, changed) = watch::channel(file);
    tasks.spawn(
        "files",
        follow::follow(
            files,
            configured,
            news,
            Arc::clone(&shared),
            ctx.metrics.clone(),
        ),
    );
    match database(&config) {
        Some(db) => tasks.spawn(
            "reconciling registries",
            reconcile::all(changed, db, Arc::clone(&shared)),
        ),
        None if !shared.registries.is_empty() => tracing::warn!(
            "registries are not reconciled, so changes without an event stay unknown, and answers do not take effect after the head of a sender whose clock is ahead: DATABASE_URL (--database-url) is not set"
        ),
        None => {}
    }
    if let Some(db) = database(&config) {
        tasks.spawn("presence", presence("resolver", db, ctx.clone()));
    }
    let (health, shutdown) = (ctx.health.clone(), ctx.shutdown.clone());
    let bus = shared.bus.clone();
    tasks.spawn("health of the bus", async move {
        Ok(bus.report_health(health, shutdown).await?)
    });
    tasks.spawn(
        "manifests",
        manifests::run(
            Arc::clone(&shared),
            database(&config),
            manifests::ManifestMetrics::new(&ctx.metrics),
            returned.manifests,
        ),
    );
    tasks.spawn("questions", ask::run(shared, returned.questions));
    if let Some(keeper) = keeper {
        tasks.spawn("postponed tasks", keeper.run());
    }
    tasks.join(&ctx).await
}

fn database(config: &Config) -> Option<DbArgs> {
    let url = config.database_url.clone()?;
    Some(DbArgs { url })
}
