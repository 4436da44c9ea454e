//! The trigger service acts: it turns revisions into rollouts, and sees each rollout through.
//!
//! In scope: which images a trigger wants ([`wanted`](self), pure), the rollouts that follow from them and their ledger, the
//! attempts at targets and their retries. Any number of instances share the work: one plans, all act.
//!
//! Out of scope: what the history is (the indexer), showing rollouts and pausing triggers (the api).
//!
//! How no rollout starts twice and the last wanted state is always reached: the planner compares the heads with the last
//! rollout, in one transaction with its position in REVISIONS, so it may miss or repeat any event. A worker holds the lock of
//! a trigger in the very session that records what came of an attempt; if it dies, the session dies, and another worker takes
//! the rollout up again under the same id.

mod act;
mod config;
mod error;
mod ledger;
mod metrics;
mod plan;
mod shared;
mod store;
mod target;

use std::sync::Arc;

use tagtrail_bus::Bus;
use tagtrail_config::{ConfigError, File};
use tagtrail_daemon::{Context, Tasks};
use tokio::sync::Notify;

pub use config::{Config, Pace};
pub use target::{TargetReport, inspect_targets};

use crate::shared::Shared;

/// Looks at everything that the trigger service needs of the file, secrets included, and says what it found there, a line each.
///
/// # Errors
/// What is wrong, with its line and the cure.
pub fn check(file: &File) -> Result<Vec<String>, ConfigError> {
    target::targets(file)?;
    let line = |trigger: &config::TriggerSpec| {
        let images: Vec<String> = trigger.images.values().map(ToString::to_string).collect();
        format!(
            "trigger {}: rolls out {} by {}",
            trigger.name,
            images.join(", "),
            trigger.target
        )
    };
    Ok(config::triggers(file).iter().map(line).collect())
}

/// Runs until a stop is asked for.
///
/// # Errors
/// Only what waiting can't heal: a wrong `tagtrail.toml`, refused credentials, streams that do not fit, a schema that is too new.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("nats");
    ctx.health.register("postgres");
    let file = File::load(&config.config)?;
    let targets = Arc::new(target::targets(&file)?);
    let triggers = config::triggers(&file);
    config.db.wait_for_schema("trigger", &ctx.shutdown).await?;
    let bus = Bus::connect(&config.bus, "trigger", &ctx.shutdown).await?;
    let shared = Shared {
        db: config.db,
        session_timeout: config.session_seconds,
        opening: Arc::default(),
        pace: config.pace,
        health: ctx.health.clone(),
        metrics: metrics::Metrics::new(&ctx.metrics),
        shutdown: ctx.shutdown.clone(),
        work_recorded: Arc::new(Notify::new()),
        queued: Arc::default(),
        entries_recorded: Arc::new(Notify::new()),
    };
    tracing::info!(
        triggers = triggers.len(),
        workers = config.workers,
        "watching"
    );
    let (mut tasks, shutdown) = (Tasks::new(), ctx.shutdown.clone());
    for _ in 0..config.workers {
        tasks.spawn("worker", act::worker(shared.clone(), Arc::clone(&targets)));
    }
    tasks.spawn("ledger", ledger::ledger(shared.clone(), bus.clone()));
    tasks.spawn("planner", plan::planner(shared, bus.clone(), triggers));
    tasks.spawn("health of the bus", async move {
        Ok(bus.report_health(ctx.health, ctx.shutdown).await?)
    });
    tasks.join(&shutdown).await
}
