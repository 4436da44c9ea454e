//! The indexer records history: it reads PUSHES, applies the rule of history, and publishes
//! numbered revisions.
//!
//! In scope: new pushes, the revisions that follow from them (the pure rule is `rules/timeline`),
//! their storage in Postgres, their ordered and fenced publication on REVISIONS, re-checks of
//! images whose order of pushes is doubtful, the manifests that the resolver read, and the
//! numbers of the coverage report. Any number of instances share the partitions.
//!
//! Out of scope: the bodies of registries (the gateway), rollouts (the trigger service), queries
//! (the api). Nothing here deletes or rewrites history.
//!
//! How nothing is lost, repeated or reordered: a partition belongs to the Postgres session that
//! holds its advisory lock, and the same session commits the partition's batches. The position in
//! PUSHES moves in the transaction that records the pushes up to there. A new holder first fences
//! the bus, and then publishes the revisions that were recorded and not published.

mod backlog;
mod config;
mod coverage;
mod days;
mod error;
mod manifests;
mod metrics;
mod readiness;
mod received;
mod recheck;
mod record;
mod republish;
mod restore;
mod shared;
mod store;
mod sweep;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use tagtrail_bus::Bus;
use tagtrail_config::{ConfigError, File, Follower};

use tagtrail_daemon::{Context, Tasks};
use tagtrail_postgres::presence::presence;
use tagtrail_proto::Registry;
use tokio::sync::Semaphore;

pub use config::Config;
use recheck::AskedRegistries;
pub use republish::{Republish, RepublishCounts, RepublishError, republish};

/// Runs until a stop is requested.
///
/// # Errors
/// Errors that waiting can't cure: a wrong `tagtrail.toml`, refused credentials, unsuitable
/// streams, a schema that is too new.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    let (asked, files) = asked(config.config.as_deref())?;
    if let Some(files) = &files {
        show(&files.file(), &ctx.metrics);
    }
    ctx.health.register("nats");
    ctx.health.register("postgres");
    config
        .db
        .wait_for_schema("indexer", Some(&ctx.health), &ctx.shutdown)
        .await?;
    let bus = Bus::connect(&config.bus, "indexer", &ctx.shutdown).await?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let shared = shared::Shared {
        bus: bus.clone(),
        silence: config.session_seconds,
        appliers: Arc::new(Semaphore::new(
            config.appliers.map_or(cores + 1, NonZeroUsize::get),
        )),
        asked: asked.clone(),
        shutdown: ctx.shutdown.clone(),
        metrics: metrics::Metrics::new(&ctx.metrics),
        readiness: readiness::Readiness::default(),
    };
    let mut tasks = Tasks::new();
    if let Some(files) = files {
        tasks.spawn("files", follow(files, asked, ctx.clone()));
    }
    let (health, shutdown) = (ctx.health.clone(), ctx.shutdown.clone());
    tasks.spawn("health of the bus", async move {
        Ok(bus.report_health(health, shutdown).await?)
    });
    tasks.spawn(
        "sweeper",
        sweep::sweeper(config.db.clone(), shared.clone(), config.sweep_seconds),
    );
    tasks.spawn(
        "manifests",
        manifests::manifests(config.db.clone(), shared.clone()),
    );
    tasks.spawn(
        "coverage",
        coverage::coverage(config.db.clone(), shared.clone()),
    );
    tasks.spawn(
        "presence",
        presence("indexer", config.db.clone(), ctx.clone()),
    );
    tasks.spawn("report about a backlog", backlog::report(shared.clone()));
    tasks.spawn(
        "partitions",
        record::partitions(
            config.db,
            shared,
            config.claim_interval_ms,
            ctx.health.clone(),
        ),
    );
    tasks.join(&ctx).await
}

/// Returns the registries of the files, which the follower reads again. Without a file every
/// registry may be one that the resolver asks.
fn asked(config: Option<&Path>) -> Result<(AskedRegistries, Option<Follower>), ConfigError> {
    let path = File::find(config);
    if path == Path::new(tagtrail_config::NONE) {
        return Ok((AskedRegistries::new(None), None));
    }
    let files = Follower::start(&path)?;
    let asked = AskedRegistries::new(Some(registries(&files.file())));
    Ok((asked, Some(files)))
}

fn registries(file: &File) -> HashSet<Registry> {
    let names = file.registry.iter().map(|access| access.name.get_ref());
    names.cloned().collect()
}

/// Shows the mistakes in the files.
fn show(file: &File, metrics: &tagtrail_daemon::Metrics) {
    metrics.config_errors("indexer", file.mistakes([]));
}

/// Follows the files until shutdown.
async fn follow(mut files: Follower, asked: AskedRegistries, ctx: Context) -> anyhow::Result<()> {
    loop {
        let file = tokio::select! {
            () = ctx.shutdown.cancelled() => return Ok(()),
            file = files.changed() => file,
        };
        show(&file, &ctx.metrics);
        let names = registries(&file);
        tracing::info!(registries = names.len(), "read the changed files again");
        asked.set(names);
    }
}
