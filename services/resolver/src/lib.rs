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

mod check;
mod config;
mod debounce;
mod fact;
mod manifests;
mod metrics;
mod question;
mod reconcile;
mod settle;

use std::sync::Arc;

use tagtrail_bus::topology::Stream;
use tagtrail_bus::{Bus, BusError};
use tagtrail_config::{ConfigError, File, RegistryAccess};
use tagtrail_daemon::{Context, Tasks, backoff};
use tagtrail_postgres::DbArgs;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use check::{CheckError, check_registry};
pub use config::{Config, Pace};
use debounce::Debounce;
use question::Question;
use settle::Settler;
pub use tagtrail_registry::{AskError, Ping};

/// Looks at everything that the resolver needs of the file, secrets included, and says what it found there, a line each.
///
/// # Errors
/// What is wrong, with its line and the cure.
pub fn check(file: &File) -> Result<Vec<String>, ConfigError> {
    settle::registries(file)?;
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

/// Name of the consumer that all instances share.
const NAME: &str = "resolver";

/// Runs until a stop is asked for.
///
/// # Errors
/// Only what waiting can't heal: a wrong `tagtrail.toml`, refused credentials, streams that do not fit.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("nats");
    let file = File::load(&File::find(config.config.as_deref()))?;
    let registries = settle::registries(&file)?;
    tracing::info!(registries = registries.len(), "asking registries");
    let bus = match Bus::connect(&config.bus, "resolver", &ctx.shutdown).await {
        Err(BusError::Stopped) => return Ok(()),
        connected => connected?,
    };
    let registries = Arc::new(registries);
    let metrics = metrics::Metrics::new(&ctx.metrics);
    let mut tasks = Tasks::new();
    match &config.database_url {
        Some(url) => {
            let db = DbArgs { url: url.clone() };
            let (pace, shutdown) = (config.pace, &ctx.shutdown);
            for one in reconcile::all(&file, &bus, &db, &registries, pace, &metrics, shutdown) {
                tasks.spawn("comparing a registry", one.run());
            }
        }
        None if !registries.is_empty() => tracing::warn!(
            "registries are not compared with history, so what no event tells is not found: DATABASE_URL (--database-url) is not set"
        ),
        None => {}
    }
    let settler = Arc::new(Settler {
        bus: bus.clone(),
        registries,
        pace: config.pace,
        metrics,
    });
    let (health, shutdown) = (ctx.health.clone(), ctx.shutdown.clone());
    let watched = bus.clone();
    tasks.spawn("health of the bus", async move {
        Ok(watched.report_health(health, shutdown).await?)
    });
    tasks.spawn(
        "manifests",
        manifests::manifests(Arc::clone(&settler), ctx.clone()),
    );
    tasks.spawn("questions", ask(bus, settler, ctx.clone()));
    tasks.join(&ctx.shutdown).await
}

/// Takes questions until a stop is asked for. Whatever goes wrong, the consumer is opened again.
async fn ask(bus: Bus, settler: Arc<Settler>, ctx: Context) -> anyhow::Result<()> {
    let mut debounce = Debounce::new(settler.pace);
    let mut asking: JoinSet<()> = JoinSet::new();
    let mut failures = 0;
    while !ctx.shutdown.is_cancelled() {
        let mut jobs = match bus
            .jobs(Stream::Unresolved, NAME, settler.pace.unheard)
            .await
        {
            Ok(jobs) => jobs,
            Err(error) => {
                failures += 1;
                tracing::warn!("opening UNRESOLVED again: {error}");
                tokio::select! {
                    () = ctx.shutdown.cancelled() => {}
                    () = tokio::time::sleep(backoff(failures)) => {}
                }
                continue;
            }
        };
        loop {
            let due = debounce.next();
            tokio::select! {
                biased;
                () = ctx.shutdown.cancelled() => {
                    jobs.release().await;
                    break;
                }
                Some(ended) = asking.join_next() => {
                    if let Err(panic) = ended {
                        tracing::error!("asking a registry panicked, the question will be given out again: {panic}");
                    }
                }
                () = until(due) => {
                    for (_, questions) in debounce.due(Instant::now()) {
                        let settler = Arc::clone(&settler);
                        asking.spawn(async move { settler.settle(questions).await });
                    }
                }
                job = jobs.next() => match job {
                    Ok(job) => {
                        failures = 0;
                        match Question::read(job) {
                            Ok(question) => debounce.take(question, Instant::now()),
                            Err(misfit) => settler.put_aside(*misfit).await,
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        tracing::warn!("reading UNRESOLVED again: {error}");
                        tokio::time::sleep(backoff(failures)).await;
                        break;
                    }
                }
            }
        }
    }
    // Others take over at once what was not begun; what is under way is finished.
    for question in debounce.rest() {
        question.job.nak(std::time::Duration::ZERO).await;
    }
    while asking.join_next().await.is_some() {}
    bus.flush().await;
    Ok(())
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
