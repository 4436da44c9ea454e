//! `tagtrail migrate`: brings the schema and the rights of the services up to date, and the streams
//! if `NATS_URL` is set. Besides `tagtrail up` no other program changes the schema.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tagtrail_bus::pushes::suitable;
use tagtrail_bus::{Bus, BusArgs};
use tagtrail_daemon::Progress;
use tagtrail_migrations::{MIGRATOR, indexes};
use tagtrail_postgres::DbArgs;

/// The words of the report about migrations.
pub(crate) const MIGRATING: &str = "migrating the schema";
pub(crate) const MIGRATIONS: &str = "migrations";
/// Time-out of connecting, and of the first answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Time between two attempts to take the lock of the migration.
const LOCK: Duration = Duration::from_millis(200);

/// Settings.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Config {
    #[command(flatten)]
    db: DbArgs,
    /// URL of NATS, with credentials that may make streams
    /// [default: leave the streams alone; services make missing streams, if they may].
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// Number of partitions of the stream PUSHES, fixed once the stream exists.
    #[arg(long, env = "TAGTRAIL_PARTITIONS", default_value_t = tagtrail_proto::PARTITIONS, value_parser = clap::value_parser!(u16).range(1..=256))]
    partitions: u16,
    /// Copies of every stream in the cluster: 1 for a single server, 3 for a cluster of three.
    #[arg(long = "nats-replicas", env = "TAGTRAIL_NATS_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
    /// Number of streams of pushes: 1 for all partitions, or several that share the partitions and
    /// are synced at the same time. Existing pushes stay in their streams, and are read first
    /// [default: as it is; at first one for each partition up to 8, or 1 with several copies].
    #[arg(long, env = "TAGTRAIL_PUSH_STREAMS", value_parser = clap::value_parser!(u16).range(1..=256))]
    push_streams: Option<u16>,
    /// Seconds to wait for Postgres and NATS to answer.
    #[arg(long, default_value_t = 60)]
    wait: u64,
}

impl Config {
    async fn run(&self) -> anyhow::Result<String> {
        let wait = Duration::from_secs(self.wait);
        let progress = Progress::of_command(MIGRATING, MIGRATIONS);
        let version = migrate(&self.db, wait, progress).await?;
        let mut done = format!("the schema is at version {version}");
        if let Some(url) = &self.nats_url {
            let args = BusArgs {
                partitions: self.partitions,
                replicas: self.replicas,
                push_streams: self.push_streams,
                ..BusArgs::new(url)
            };
            streams(&args, &self.db, wait).await?;
            done += ", and the streams are as they should be";
        }
        Ok(done)
    }
}

/// Runs the command.
pub(crate) fn main(config: &Config) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(config.run()));
    let mut stderr = std::io::stderr();
    // A failed write to standard error can't be reported anywhere.
    match outcome {
        Ok(done) => {
            let _ = writeln!(stderr, "{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(stderr, "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for the server, runs the missing migrations and grants the rights of the services. Returns
/// the version of the schema.
pub(crate) async fn migrate(
    db: &DbArgs,
    wait: Duration,
    mut progress: Progress,
) -> anyhow::Result<i64> {
    let mut connection = connect(db, wait).await?;
    tagtrail_migrations::quiet(&mut connection).await?;
    progress.during(lock(&mut connection)).await?;
    // One by one, for the report. A migration that was applied before costs a look.
    let total = MIGRATOR.iter().len() as u64;
    for (done, migration) in (0..).zip(MIGRATOR.iter()) {
        progress.set(done, total);
        let step = async {
            indexes::build(&mut connection, migration.version).await?;
            MIGRATOR
                .run_to(migration.version, &mut connection)
                .await
                .map_err(anyhow::Error::from)
        };
        progress
            .during(step)
            .await
            .context("can't migrate the schema")?;
    }
    drop(progress);
    tagtrail_migrations::grant(&mut connection)
        .await
        .context("can't grant the services' roles their rights")?;
    connection.close().await?;
    Ok(MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0))
}

/// Waits until no other session migrates. The lock ends with the connection.
async fn lock(connection: &mut PgConnection) -> anyhow::Result<()> {
    while !indexes::lock(connection)
        .await
        .context("can't take the lock of the migration")?
    {
        tokio::time::sleep(LOCK).await;
    }
    Ok(())
}

/// Waits for the server, makes the missing streams, and moves partitions if `push_streams` names
/// another number of streams of pushes.
pub(crate) async fn streams(bus: &BusArgs, db: &DbArgs, wait: Duration) -> anyhow::Result<()> {
    let at_first = bus
        .push_streams
        .unwrap_or(suitable(bus.partitions, bus.replicas));
    let args = BusArgs {
        push_streams: Some(at_first.min(bus.partitions)),
        ..bus.clone()
    };
    let connected = Bus::connect_within(&args, "migrate", wait)
        .await
        .context("can't make the streams: check NATS_URL, the rights of its account, and the log of nats-server")?;
    let Some(streams) = bus.push_streams.map(|streams| streams.min(bus.partitions)) else {
        if let Some(partition) = connected.partition_without_stream() {
            bail!(
                "the pushes of partition {partition} are refused, because a move to another number of streams was broken off: repeat it with TAGTRAIL_PUSH_STREAMS"
            );
        }
        return Ok(());
    };
    if connected.has_streams_of_pushes(streams) {
        return Ok(());
    }
    // One command moves at a time. The second one then has nothing to do.
    let mut db = connect(db, wait).await?;
    lock(&mut db).await?;
    connected.present_layout().await?;
    if !connected.has_streams_of_pushes(streams) {
        let sources = tagtrail_postgres::position::sources(&mut db).await?;
        let moving = connected.move_pushes(streams, &sources);
        moving
            .await
            .context("can't move the pushes to other streams")?;
    }
    db.close().await?;
    Ok(())
}

/// Waits up to `wait` for the server to answer a statement: a pooler accepts connections without
/// one.
async fn connect(db: &DbArgs, wait: Duration) -> anyhow::Result<PgConnection> {
    // A migration may take long, and its text is long: progress is reported instead.
    let options = db.options("migrate")?.disable_statement_logging();
    let deadline = tokio::time::Instant::now() + wait;
    let mut attempt = 0;
    loop {
        let asking = async {
            let mut connection = options.connect().await?;
            let too_old = tagtrail_postgres::too_old(&mut connection).await?;
            Ok((connection, too_old))
        };
        let late = tokio::time::Instant::now() >= deadline;
        match tokio::time::timeout(ANSWER, asking).await {
            Ok(Ok((_, Some(too_old)))) => bail!(too_old),
            Ok(Ok((connection, None))) => return Ok(connection),
            // A refusal of a running server does not change by waiting.
            Ok(Err(error @ sqlx::Error::Database(_))) if late || !starting(&error) => {
                return Err(error).context("Postgres refuses the connection: check DATABASE_URL");
            }
            Ok(Err(error)) if late => {
                return Err(error)
                    .context("can't reach Postgres: check DATABASE_URL, and that it runs");
            }
            Err(_) if late => bail!("can't reach Postgres: no answer; check DATABASE_URL"),
            Ok(Err(_)) | Err(_) => {
                attempt += 1;
                tokio::time::sleep(tagtrail_daemon::backoff(attempt)).await;
            }
        }
    }
}

/// Returns whether the server is starting up or shutting down (`cannot_connect_now`).
fn starting(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("57P03"))
}
