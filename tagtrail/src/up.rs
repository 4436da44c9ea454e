//! `tagtrail up`: all services in one process, with a private Postgres and nats-server as
//! supervised child processes.

mod screen;

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tagtrail_bus::BusArgs;
use tagtrail_bus::pushes::suitable;
use tagtrail_config::File;
use tagtrail_daemon::{Context, Progress, Tasks};
use tagtrail_embedded::{Embedded, Settings, become_user, runs_as_root, write_private};
use tagtrail_postgres::DbArgs;

use crate::migrate;

/// Settings of `tagtrail up`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Config {
    /// Folder for the data of Postgres and NATS, and for their passwords. Made if missing; only one
    /// `tagtrail up` can use it at a time.
    #[arg(long, env = "TAGTRAIL_DATA", default_value = ".tagtrail")]
    data: PathBuf,
    /// File with sources, registries, triggers and tokens [default: tagtrail.toml if present].
    #[arg(long, env = "TAGTRAIL_CONFIG")]
    config: Option<PathBuf>,
    /// Address on which the gateway receives webhooks.
    #[arg(
        long,
        env = "TAGTRAIL_GATEWAY_LISTEN",
        default_value = "127.0.0.1:8400"
    )]
    gateway: SocketAddr,
    /// Address on which the API listens.
    #[arg(long, env = "TAGTRAIL_API_LISTEN", default_value = "127.0.0.1:8401")]
    api: SocketAddr,
    /// User that runs everything, if root starts the program. The user gets the data folder, and
    /// must be able to read `tagtrail.toml` and its secrets.
    #[arg(long, env = "TAGTRAIL_USER", value_name = "NAME")]
    user: Option<String>,
    /// The most attempts at the same time.
    #[command(flatten)]
    limits: tagtrail_trigger::Limits,
    /// Print no line for each revision and each ended rollout.
    #[arg(long)]
    quiet: bool,
}

impl Config {
    /// Goes on as the user of `--user`, if given. Root without it goes on as root.
    pub(crate) fn become_user(&self) -> anyhow::Result<()> {
        match &self.user {
            Some(name) => become_user(name, &self.data),
            None => Ok(()),
        }
    }
}

/// Longest wait for both servers.
const START: Duration = Duration::from_secs(60);
/// The default of the services' `TAGTRAIL_SESSION_SECONDS`.
const SESSION: Duration = Duration::from_secs(10);

/// Runs Postgres, nats-server and all services until a stop is requested.
pub(crate) async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    if runs_as_root() {
        tracing::warn!(
            "the services run as root, and so do the commands of triggers: start with --user NAME, or by the systemd unit deploy/systemd/tagtrail.service"
        );
    }
    let file = file(&config);
    check(&config, &file).await?;
    let settings = Settings::new(&config.data);
    let embedded = tokio::select! {
        started = Embedded::start(&settings) => started?,
        // A server may not come up, or take long. Dropping the start stops its processes.
        () = ctx.shutdown.cancelled() => return Ok(()),
    };
    let outcome = tokio::select! {
        outcome = services(&config, file, &ctx, &embedded) => outcome,
        error = embedded.failed() => Err(error),
        never = revive_nats(&ctx, &embedded) => match never {},
    };
    embedded.stop().await;
    outcome
}

/// Restarts nats-server once a full disk has room again. Without a restart, the server stores
/// nothing.
async fn revive_nats(ctx: &Context, embedded: &Embedded) -> Infallible {
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        tokio::time::sleep(EVERY).await;
        let mut parts = ctx.health.parts().into_iter();
        if let Some((_, Err(why))) = parts.find(|(part, _)| *part == "nats")
            && embedded.revive_nats().await
        {
            tracing::warn!("restarted nats-server: {why}");
        }
    }
}

/// Runs the services that production runs as separate processes, with the settings that each would
/// read from their environment.
async fn services(
    config: &Config,
    file: PathBuf,
    ctx: &Context,
    embedded: &Embedded,
) -> anyhow::Result<()> {
    let owner = DbArgs {
        url: embedded.postgres_url().to_owned(),
    };
    // The accounts of a server install: no service has more rights here than there.
    let account = |service| {
        let url = embedded.postgres_url_of(service)?;
        Ok::<_, anyhow::Error>(DbArgs { url })
    };
    let bus = |service| {
        let url = embedded.nats_url_of(service)?;
        let sync_always = Some(true);
        Ok::<_, anyhow::Error>(BusArgs {
            sync_always,
            ..BusArgs::new(&url)
        })
    };
    let progress = Progress::of_service(migrate::MIGRATING, migrate::MIGRATIONS);
    migrate::migrate(&owner, START, progress).await?;
    // No service may make streams.
    let mut streams = bus("migrate")?;
    streams.push_streams = Some(suitable(streams.partitions, streams.replicas));
    migrate::streams(&streams, &owner, START).await?;
    let api = tagtrail_api::Config {
        listen: config.api,
        config: Some(file.clone()),
        db: account("api")?,
        bus: bus("api")?,
        pace: tagtrail_api::Pace::default(),
        gateway: Some(config.gateway),
    };
    let mut tasks = Tasks::new();
    let gateway = tagtrail_gateway::Config {
        listen: config.gateway,
        config: file.clone(),
        bus: bus("gateway")?,
    };
    tasks.spawn("gateway", tagtrail_gateway::run(gateway, ctx.clone()));
    let resolver = tagtrail_resolver::Config {
        config: Some(file.clone()),
        bus: bus("resolver")?,
        database_url: Some(account("resolver")?.url),
        ack_seconds: Duration::from_secs(120),
        pace: tagtrail_resolver::Pace::default(),
    };
    tasks.spawn("resolver", tagtrail_resolver::run(resolver, ctx.clone()));
    let indexer = tagtrail_indexer::Config {
        db: account("indexer")?,
        bus: bus("indexer")?,
        config: Some(file.clone()),
        appliers: None,
        session_seconds: SESSION,
        // Fast: no other indexer uses this data folder, so there is nobody to share partitions
        // with.
        claim_interval_ms: Duration::from_millis(20),
        sweep_seconds: Duration::from_secs(600),
    };
    tasks.spawn("indexer", tagtrail_indexer::run(indexer, ctx.clone()));
    let trigger = tagtrail_trigger::Config {
        db: account("trigger")?,
        bus: bus("trigger")?,
        config: file,
        limits: config.limits,
        clones: Some(std::path::absolute(config.data.join("clones"))?),
        takeover_seconds: Duration::from_secs(20),
        replaced: tagtrail_trigger::Replaced::default(),
        outlive: tagtrail_trigger::Outlive::default(),
        alone: true,
        session_seconds: SESSION,
        pace: tagtrail_trigger::Pace::default(),
        look_pace: tagtrail_trigger::LookPace::default(),
        supervisor: tagtrail_trigger::Supervisor::default(),
    };
    tasks.spawn("trigger", tagtrail_trigger::run(trigger, ctx.clone()));
    tasks.spawn("api", tagtrail_api::run(api, ctx.clone()));
    let announce = announce(
        config.clone(),
        ctx.clone(),
        embedded.nats_url(),
        embedded.nats_url_of("subscriber")?,
        embedded.postgres_url().to_owned(),
    );
    tasks.spawn("announcement", announce);
    tasks.join(ctx).await
}

/// Checks the file and the addresses before anything is created or started, so that a mistake costs
/// no time and leaves nothing behind. The services check both again.
async fn check(config: &Config, file: &Path) -> anyhow::Result<()> {
    let file = File::load(file)?;
    tagtrail_api::check_start(&file, config.api)?;
    // The listeners are dropped: until the services listen, a client must not wait for an answer.
    tagtrail_gateway::bind(config.gateway, "--gateway").await?;
    tagtrail_api::bind(config.api, "--api").await?;
    Ok(())
}

/// The path of the configuration file. Logs a warning if there is none.
fn file(config: &Config) -> PathBuf {
    let file = File::find(config.config.as_deref());
    if file == Path::new(tagtrail_config::NONE) {
        tracing::warn!(
            "there is no tagtrail.toml here: starting without sources and triggers; the README has an example"
        );
    }
    file
}

/// Writes the addresses into `endpoints.json` and to standard output, once all services are ready.
async fn announce(
    config: Config,
    ctx: Context,
    nats: String,
    subscriber: String,
    postgres: String,
) -> anyhow::Result<()> {
    let path = config.data.join("endpoints.json");
    // A file left by an earlier run would name stale addresses.
    let _ = std::fs::remove_file(&path);
    tokio::select! {
        () = ctx.shutdown.cancelled() => return Ok(()),
        () = ctx.health.wait_ready() => {}
    }
    let endpoints = serde_json::json!({
        "gateway": format!("http://{}", config.gateway),
        "api": format!("http://{}", config.api),
        "admin": ctx.admin.map(|address| format!("http://{address}")),
        "nats": nats,
        "subscriber": &subscriber,
        "postgres": postgres,
    });
    write_private(&path, &format!("{endpoints}\n"))?;
    tracing::info!("ready; addresses and passwords are in {}", path.display());
    // For the person who started `up`; the log goes to standard error.
    let _ = writeln!(
        std::io::stdout(),
        "{}",
        screen::first(&endpoints, &config.data)
    );
    if !config.quiet
        && let Err(error) = screen::follow(&subscriber, &ctx.shutdown).await
    {
        tracing::warn!("can't print revisions and rollouts: {error:#}");
    }
    ctx.shutdown.cancelled().await;
    let _ = std::fs::remove_file(&path);
    Ok(())
}
