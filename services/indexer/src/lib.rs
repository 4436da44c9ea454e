//! The indexer records: it reads PUSHES, applies the rule of history, and publishes numbered revisions.
//!
//! In scope: which facts are new, which changes they make ([`timeline`](self), pure), their place in Postgres, their ordered,
//! fenced way to REVISIONS, and which of them leave a doubt that the registry is asked about; and what the resolver read of each digest.
//! Any number of instances share the partitions.
//!
//! Out of scope: what registries send (the gateway), what a revision starts (the trigger service), answering questions (the
//! api). Nothing here deletes or rewrites history.
//!
//! How it never loses, repeats or reorders: a partition belongs to the Postgres session that holds its advisory lock, and that
//! one session also commits the partition's batches; the position in PUSHES moves in the same transaction as what was read;
//! whoever takes over first fences the bus, then publishes what was recorded but not published.

mod config;
mod error;
mod manifests;
mod metrics;
mod readiness;
mod received;
mod record;
mod republish;
mod restore;
mod shared;
mod store;
mod sweep;

use std::num::NonZeroUsize;
use std::sync::Arc;

use tagtrail_bus::Bus;
use tagtrail_daemon::{Context, Tasks};
use tokio::sync::Semaphore;

pub use config::Config;
pub use republish::{Republish, RepublishCounts, RepublishError, republish};

/// Runs until a stop is asked for.
///
/// # Errors
/// Only what waiting can't heal: refused credentials, streams that do not fit, a schema that is too new.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("nats");
    ctx.health.register("postgres");
    config.db.wait_for_schema("indexer", &ctx.shutdown).await?;
    let bus = Bus::connect(&config.bus, "indexer", &ctx.shutdown).await?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let shared = shared::Shared {
        bus: bus.clone(),
        silence: config.session_seconds,
        appliers: Arc::new(Semaphore::new(
            config.appliers.map_or(cores + 1, NonZeroUsize::get),
        )),
        shutdown: ctx.shutdown.clone(),
        metrics: metrics::Metrics::new(&ctx.metrics),
        readiness: readiness::Readiness::default(),
    };
    let mut tasks = Tasks::new();
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
        "partitions",
        record::partitions(
            config.db,
            shared,
            config.claim_interval_ms,
            ctx.health.clone(),
        ),
    );
    tasks.join(&ctx.shutdown).await
}
