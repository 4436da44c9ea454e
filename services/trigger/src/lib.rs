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

mod config;
mod error;
mod feed;
mod ledger;
mod metrics;
mod plan;
mod session;
mod store;
mod target;
mod work;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use tagtrail_bus::Bus;
use tagtrail_config::{ConfigError, File};
use tagtrail_daemon::{Context, Health, Tasks};
use tagtrail_postgres::DbArgs;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

pub use config::{Config, Pace};

/// What planner, workers and ledger share.
#[derive(Debug, Clone)]
struct Shared {
    db: DbArgs,
    /// The server ends a session that is silent for this long.
    silence: std::time::Duration,
    /// Whose turn it is to open a session.
    opening: Arc<Mutex<()>>,
    pace: Pace,
    health: Health,
    metrics: metrics::Metrics,
    shutdown: CancellationToken,
    /// There may be a rollout to carry out.
    work: Arc<Notify>,
    /// Triggers that were just given one: a worker need not look for them.
    fresh: Arc<std::sync::Mutex<BTreeSet<i32>>>,
    /// There may be changes to publish.
    changes: Arc<Notify>,
}

impl Shared {
    /// Tells the workers of triggers that were given a rollout.
    fn give(&self, triggers: impl Iterator<Item = i32>) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.extend(triggers);
        self.work.notify_one();
    }

    /// One of those, for the worker that asks.
    fn take(&self) -> Option<i32> {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.pop_first()
    }
}

/// Looks at everything that the trigger service needs of the file, secrets included, and says what it found there, a line each.
///
/// # Errors
/// What is wrong, with its line and the cure.
pub fn check(file: &File) -> Result<Vec<String>, ConfigError> {
    target::targets(file)?;
    let line = |trigger: &plan::Configured| {
        let images: Vec<String> = trigger.images.values().map(ToString::to_string).collect();
        format!(
            "trigger {}: rolls out {} by {}",
            trigger.name,
            images.join(", "),
            trigger.target
        )
    };
    Ok(plan::configured(file).iter().map(line).collect())
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
    let triggers = plan::configured(&file);
    config.db.wait_for_schema("trigger", &ctx.shutdown).await?;
    let bus = Bus::connect(&config.bus, "trigger", &ctx.shutdown).await?;
    let shared = Shared {
        db: config.db,
        silence: config.session_seconds,
        opening: Arc::default(),
        pace: config.pace,
        health: ctx.health.clone(),
        metrics: metrics::Metrics::new(&ctx.metrics),
        shutdown: ctx.shutdown.clone(),
        work: Arc::new(Notify::new()),
        fresh: Arc::default(),
        changes: Arc::new(Notify::new()),
    };
    tracing::info!(
        triggers = triggers.len(),
        workers = config.workers,
        "watching"
    );
    let (mut tasks, shutdown) = (Tasks::new(), ctx.shutdown.clone());
    for _ in 0..config.workers {
        tasks.spawn("worker", work::worker(shared.clone(), Arc::clone(&targets)));
    }
    tasks.spawn("ledger", ledger::ledger(shared.clone(), bus.clone()));
    tasks.spawn("planner", plan::planner(shared, bus.clone(), triggers));
    tasks.spawn("health of the bus", async move {
        Ok(bus.report_health(ctx.health, ctx.shutdown).await?)
    });
    tasks.join(&shutdown).await
}
