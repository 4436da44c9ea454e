//! The trigger service turns revisions into rollouts and brings each rollout to its target.
//!
//! In scope: reading the heads of a trigger's images, recording the rollouts that follow from the
//! heads, attempts at targets with their retries, publishing each change of a rollout's state, and
//! messages about these changes.
//! Any number of instances share the work: one instance plans, all instances act.
//!
//! Out of scope: the rules that decide ([`tagtrail_policy`]), numbering revisions (the indexer),
//! listing rollouts and pausing triggers (the api).
//!
//! Delivery: the planner compares the heads with the last rollout, and records the new rollout and
//! its position in REVISIONS in one transaction. So a lost or repeated message starts no second
//! rollout and delays none for long. An attempt is a row that names its process, and no two
//! attempts of a trigger are open at the same time. A process holds an advisory lock as long as it
//! lives. When it dies, Postgres frees the lock, and another process repeats the attempt under the
//! same rollout id.

mod act;
mod config;
mod connections;
mod discover;
mod error;
mod lead;
mod ledger;
mod metrics;
mod notify;
mod plan;
mod settings;
mod shared;
mod store;
mod target;

use std::sync::Arc;

use tagtrail_bus::Bus;
use tagtrail_config::{Checked, File, Follower, Table};
use tagtrail_daemon::{Context, Tasks};
use tagtrail_postgres::presence::presence;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{Config, Limits, LookPace, Outlive, Pace, Replaced, Supervisor};
pub use discover::inspect_cluster;
pub use notify::{NotifyReport, inspect_notify, test_notify};
pub use target::{TargetProblem, TargetReport, inspect_target, supervise};

use crate::settings::Settings;
use crate::shared::Shared;

/// Parses the triggers and the receivers of messages, reads their secrets, and returns one line of
/// description for each, and a line for each warning.
#[must_use]
pub fn check(file: &File) -> Checked {
    let (targets, wrong) = target::targets(file, &target::Clusters::of(file, None), |_| None);
    let line = |trigger: &config::TriggerSpec| {
        let images: Vec<String> = trigger.images.values().map(ToString::to_string).collect();
        let does = match &trigger.gates.follow {
            None => format!("rolls out {}", images.join(", ")),
            Some(follow) => {
                let which = if follow.all { "all of " } else { "" };
                let soak = follow.soak;
                let names = follow.upstream.join(", ");
                format!(
                    "takes over the images of {which}{names} after {soak:?}, and rolls them out"
                )
            }
        };
        let settle = trigger.default_settle.as_ref().zip(trigger.settle);
        let settle = settle.map(|(why, settle)| {
            let first = match settle.first == settle.quiet {
                true => String::new(),
                false => format!(", {:?} for a new tag", settle.first),
            };
            format!(
                " after {:?} without a change{first} (settle, by default: {why})",
                settle.quiet
            )
        });
        format!(
            "trigger {}: {does} by {}{}",
            trigger.name,
            trigger.target,
            settle.unwrap_or_default()
        )
    };
    let mut lines: Vec<String> = config::triggers(file).iter().map(line).collect();
    let (verifies, unverified) = target::verifies(file, |_| None);
    lines.extend(target::warnings(&targets, &verifies));
    lines.extend(config::warnings(file, &targets, &verifies));
    let (entries, unusable) = notify::entries(file, |_| None);
    lines.extend(notify::describe(file));
    lines.extend(notify::warnings(&entries));
    let broken = file.broken_of(Table::Trigger).chain(&wrong);
    lines.extend(discover::describe(file));
    let clusters = target::unusable(file);
    let broken = broken
        .chain(file.broken_of(Table::Cluster))
        .chain(&clusters);
    let broken = broken.chain(file.broken_of(Table::Notify)).chain(&unusable);
    let broken = broken.chain(&unverified);
    Checked {
        lines,
        mistakes: broken.map(|one| one.problem.clone()).collect(),
    }
}

/// Runs the service until `ctx.shutdown` is cancelled.
///
/// # Errors
/// Only errors that time cannot cure: a wrong `tagtrail.toml`, refused credentials, streams with
/// other settings, a schema newer than this program.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("nats");
    ctx.health.register("postgres");
    let files = Follower::start(&config.config)?;
    config
        .db
        .wait_for_schema("trigger", Some(&ctx.health), &ctx.shutdown)
        .await?;
    let Some(recorded) = settings::recorded(&config.db, &ctx).await else {
        return Ok(());
    };
    let settings = Settings::read(&files.file(), &recorded, None);
    settings.report(None);
    let bus = Bus::connect(&config.bus, "trigger", &ctx.shutdown).await?;
    let metrics = metrics::Metrics::new(&ctx.metrics);
    metrics.triggers(&settings);
    let triggers = settings.triggers.len();
    let (sender, settings) = watch::channel(Arc::new(settings));
    if config.limits.workers.is_some() {
        tracing::warn!(
            "TAGTRAIL_WORKERS is an old name and will be refused: set TAGTRAIL_COMMANDS, the most commands at the same time"
        );
    }
    let connections = connections::Connections::new(config.db.clone());
    let clones = target::Clones::new(config.clones, config.db.clone(), config.session_seconds);
    let present = presence("trigger", config.db.clone(), ctx.clone());
    let shared = Shared {
        db: config.db,
        session_timeout: config.session_seconds,
        opening: Arc::default(),
        pace: config.pace,
        look_pace: config.look_pace,
        replaced: config.replaced,
        outlive: config.outlive,
        supervisor: config.supervisor,
        clones: Arc::new(clones),
        settings,
        instance: Arc::new(act::Instance::new()),
        alone: config.alone,
        takeover: config.takeover_seconds,
        slots: act::Slots::new(config.limits),
        watching_recorded: Arc::new(Notify::new()),
        in_flight: Arc::default(),
        attempts: TaskTracker::new(),
        attempts_ended: CancellationToken::new(),
        connections: Arc::new(connections),
        health: ctx.health.clone(),
        metrics,
        shutdown: ctx.shutdown.clone(),
        stop_time: ctx.stop_time.clone(),
        started_over: Arc::default(),
        work_recorded: Arc::new(Notify::new()),
        queued: Arc::default(),
        configured: Arc::new(Notify::new()),
        entries_recorded: Arc::new(Notify::new()),
        news: Arc::default(),
    };
    tracing::info!(
        triggers,
        attempts = config.limits.attempts,
        commands = config.limits.commands,
        "starting planner, dispatcher and ledger"
    );
    let mut tasks = Tasks::new();
    tasks.spawn("lock of the process", act::hold_instance(shared.clone()));
    tasks.spawn("presence", present);
    tasks.spawn("dispatcher", act::dispatcher(shared.clone()));
    tasks.spawn("observer", act::observer(shared.clone()));
    tasks.spawn("changes by others", act::drift(shared.clone()));
    tasks.spawn("watches of targets", act::watches(shared.clone()));
    tasks.spawn("annotated objects", discover::discovery(shared.clone()));
    tasks.spawn("keeper of attempts", act::keeper(shared.clone()));
    tasks.spawn("ledger", ledger::ledger(shared.clone(), bus.clone()));
    let following = settings::follow(files, sender, recorded, shared.clone());
    tasks.spawn("files", following);
    tasks.spawn("messages", notify::notifier(shared.clone(), bus.clone()));
    tasks.spawn("planner", plan::planner(shared, bus.clone()));
    let (health, shutdown) = (ctx.health.clone(), ctx.shutdown.clone());
    tasks.spawn("health of the bus", async move {
        Ok(bus.report_health(health, shutdown).await?)
    });
    tasks.join(&ctx).await
}
