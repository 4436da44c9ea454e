//! The trigger service turns revisions into rollouts and brings each rollout to its target.
//!
//! In scope: reading the heads of a trigger's images, recording the rollouts that follow from the
//! heads, attempts at targets with their retries, and publishing each change of a rollout's state.
//! Any number of instances share the work: one instance plans, all instances act.
//!
//! Out of scope: the rules that decide ([`tagtrail_policy`]), numbering revisions (the indexer),
//! listing rollouts and pausing triggers (the api).
//!
//! Delivery: the planner compares the heads with the last rollout, and records the new rollout and
//! its position in REVISIONS in one transaction. So a lost or repeated message starts no second
//! rollout and delays none for long. A worker holds the advisory lock of a trigger in the same
//! session that records the outcome of an attempt. When a worker dies, Postgres ends its session
//! and frees the lock, and another worker repeats the attempt under the same rollout id.

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
pub use target::{TargetProblem, TargetReport, inspect_target, supervise};

use crate::shared::Shared;

/// Parses the triggers of the file, reads their secrets, and returns one line of description for
/// each trigger, and a line for each warning.
///
/// # Errors
/// The first wrong setting, with its line and the cure.
pub fn check(file: &File) -> Result<Vec<String>, ConfigError> {
    let line = |trigger: &config::TriggerSpec| {
        let images: Vec<String> = trigger.images.values().map(ToString::to_string).collect();
        format!(
            "trigger {}: rolls out {} by {}",
            trigger.name,
            images.join(", "),
            trigger.target
        )
    };
    let mut lines: Vec<String> = config::triggers(file).iter().map(line).collect();
    lines.extend(target::warnings(file)?);
    Ok(lines)
}

/// Runs the service until `ctx.shutdown` is cancelled.
///
/// # Errors
/// Only errors that time cannot cure: a wrong `tagtrail.toml`, refused credentials, streams with
/// other settings, a schema newer than this program.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("nats");
    ctx.health.register("postgres");
    let file = File::load(&config.config)?;
    let targets = Arc::new(target::targets(&file)?);
    let triggers = config::triggers(&file);
    let asked = config::asked(&file);
    config
        .db
        .wait_for_schema("trigger", Some(&ctx.health), &ctx.shutdown)
        .await?;
    let bus = Bus::connect(&config.bus, "trigger", &ctx.shutdown).await?;
    let metrics = metrics::Metrics::new(&ctx.metrics);
    for trigger in &triggers {
        metrics.expect_trigger(&trigger.name);
    }
    let shared = Shared {
        db: config.db,
        session_timeout: config.session_seconds,
        opening: Arc::default(),
        pace: config.pace,
        health: ctx.health.clone(),
        metrics,
        shutdown: ctx.shutdown.clone(),
        started_over: Arc::default(),
        work_recorded: Arc::new(Notify::new()),
        queued: Arc::default(),
        entries_recorded: Arc::new(Notify::new()),
    };
    tracing::info!(
        triggers = triggers.len(),
        workers = config.workers,
        "starting planner, workers and ledger"
    );
    let (mut tasks, shutdown) = (Tasks::new(), ctx.shutdown.clone());
    for _ in 0..config.workers {
        tasks.spawn("worker", act::worker(shared.clone(), Arc::clone(&targets)));
    }
    tasks.spawn("ledger", ledger::ledger(shared.clone(), bus.clone()));
    tasks.spawn(
        "planner",
        plan::planner(shared, bus.clone(), triggers, asked),
    );
    tasks.spawn("health of the bus", async move {
        Ok(bus.report_health(ctx.health, ctx.shutdown).await?)
    });
    tasks.join(&shutdown).await
}
