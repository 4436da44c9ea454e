//! Measures the product against ceilings: the speed of simple programs on the same servers. Product
//! and ceilings take turns in each round, since absolute times of a shared machine mean little.
//!
//! The product is measured as shipped: release binaries, its own streams, its own schema. The
//! ceilings are in `ceiling.rs` and `http.rs`. docs/performance.md explains every line of the
//! report.

mod ceiling;
mod cells;
mod cpu;
mod drain;
mod growth;
mod http;
mod kubernetes;
mod latency;
mod load;
mod many;
mod memory;
mod pairs;
mod policies;
mod pulls;
mod quiet;
mod replicated;
mod report;
mod serve;
mod stack;
mod streams;
mod up;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tagtrail_testkit::TestPostgres;

use crate::drain::Pids;
use crate::load::Store;
use crate::report::{Goal, Report, Row, Series};
use crate::stack::Stack;

/// Measures Tagtrail against the ceilings of its servers.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures every goal.
    Run {
        /// Takes two minutes: fewer rounds, fewer pushes, a smaller store, less exact figures.
        #[arg(long)]
        quick: bool,
        /// Measures only these parts.
        #[arg(long, value_delimiter = ',')]
        only: Vec<Measurement>,
        /// File of the report.
        #[arg(long, default_value = "target/bench/report.json")]
        report: PathBuf,
    },
    /// Measures stores of several sizes.
    Growth {
        /// Millions of pushes in each store.
        #[arg(long, alias = "facts", value_delimiter = ',', default_values_t = [1, 5, 20])]
        pushes: Vec<u64>,
        /// File of the report.
        #[arg(long, default_value = "target/bench/growth.json")]
        report: PathBuf,
    },
    /// Measures this build and an older one in turn: the effect of the changes between them.
    Pairs {
        /// The older program, a release build of `tagtrail`.
        #[arg(long)]
        before: PathBuf,
        /// Rounds, of which the first does not count.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Pushes of a backlog.
        #[arg(long, default_value_t = 100_000)]
        pushes: usize,
        /// File of the report.
        #[arg(long, default_value = "target/bench/pairs.json")]
        report: PathBuf,
    },
    /// Simulates the capacity of several cells.
    Cells {
        /// Pushes per second of a single cell, as measured by `run`.
        #[arg(long, default_value_t = 10_000.0)]
        one: f64,
    },
    /// Serves the HTTP ceilings; started by `run`.
    #[command(hide = true)]
    Plain {
        #[arg(long)]
        database: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Measurement {
    Drain,
    Large,
    Latency,
    Webhook,
    /// A Deployment on a real API server.
    Kubernetes,
    Gateway,
    /// Groups and several streams of pushes.
    Streams,
    /// Revisions on three nats-servers.
    Replicated,
    Api,
    /// Policies over a large repository, and dead targets.
    Policies,
    /// A thousand triggers in as many files.
    Triggers,
    Memory,
    Quiet,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Run {
            quick,
            only,
            report,
        } => run(quick, &only, &report).await,
        Command::Growth { pushes, report } => growth(&pushes, &report).await,
        Command::Pairs {
            before,
            rounds,
            pushes,
            report,
        } => {
            let folder = folder()?;
            let size = pairs::Size {
                rounds,
                pushes,
                events: 300,
                seconds: 3,
            };
            let comparing = Box::pin(pairs::compare(&before, folder.path(), size));
            let compared = comparing.await?;
            finish(&compared, &report)
        }
        Command::Cells { one } => Ok(print(&format!("{}\n", cells::table(one)?))?),
        Command::Plain { database } => match http::plain(&database).await? {},
    }
}

/// The sizes of the measurements.
#[derive(Debug, Clone, Copy)]
struct Size {
    rounds: usize,
    pushes: usize,
    /// Pushes on a server that syncs each message.
    synced_pushes: usize,
    events: usize,
    store: Store,
    /// Tags in the repository of the policies.
    versions: usize,
    backlog: usize,
    seconds: u64,
}

const FULL: Size = Size {
    rounds: 4,
    pushes: 200_000,
    synced_pushes: 15_000,
    events: 1000,
    store: Store {
        tags: 1_000_000,
        pushes: 5_000_000,
    },
    versions: 100_000,
    backlog: 1_000_000,
    seconds: 4,
};
const QUICK: Size = Size {
    rounds: 2,
    pushes: 60_000,
    synced_pushes: 10_000,
    events: 200,
    store: Store {
        tags: 100_000,
        pushes: 500_000,
    },
    versions: 100_000,
    backlog: 100_000,
    seconds: 2,
};

async fn run(quick: bool, only: &[Measurement], path: &Path) -> anyhow::Result<()> {
    let size = if quick { QUICK } else { FULL };
    let wanted = |part: Measurement| only.is_empty() || only.contains(&part);
    let folder = folder()?;
    let mut report = Report::default();

    let postgres = TestPostgres::start_in(&folder.path().join("postgres")).await;
    let empty = postgres.db();
    let synced_database = database(&empty, "synced").await?;
    let large_database = database(&empty, "large").await?;
    let policies_database = database(&empty, "policies").await?;
    let triggers_database = database(&empty, "triggers").await?;
    let stack = Stack::start(&folder.path().join("nats"), false, empty.url().to_owned()).await?;
    let synced = Stack::start(&folder.path().join("synced"), true, synced_database).await?;
    let large = Stack::start(&folder.path().join("large"), false, large_database).await?;
    if wanted(Measurement::Drain) {
        let (name, servers) = ("empty store", Pids::of(&stack, &postgres).await?);
        report.add(drain::rounds(&stack, servers, name, size.rounds, size.pushes).await?);
        let (name, servers) = ("each push synced", Pids::of(&synced, &postgres).await?);
        report.add(drain::rounds(&synced, servers, name, size.rounds, size.synced_pushes).await?);
    }
    if wanted(Measurement::Latency) {
        report.add(latency::revisions(&stack, "empty store", size.rounds, size.events).await?);
        report
            .add(latency::revisions(&synced, "each push synced", size.rounds, size.events).await?);
    }
    if wanted(Measurement::Webhook) {
        report.add(
            latency::rollouts(
                &stack,
                folder.path(),
                "empty store",
                size.rounds,
                size.events / 5,
            )
            .await?,
        );
    }
    if wanted(Measurement::Kubernetes) {
        let (rounds, count) = (size.rounds, size.events / 10);
        report.add(kubernetes::rollouts(&stack, folder.path(), rounds, count).await?);
    }
    if wanted(Measurement::Gateway) {
        for (stack, name) in [(&stack, "server's sync"), (&synced, "each push synced")] {
            report
                .add(serve::gateway(stack, folder.path(), name, size.rounds, size.seconds).await?);
        }
    }
    if wanted(Measurement::Streams) {
        let (rounds, seconds) = (size.rounds, size.seconds);
        report.add(streams::measure(&postgres, folder.path(), rounds, seconds).await?);
    }
    if wanted(Measurement::Replicated) {
        report.add(replicated::measure(size.rounds, size.seconds).await?);
    }
    if wanted(Measurement::Large) || wanted(Measurement::Api) {
        size.store.fill(&mut large.db().await?).await?;
        let name = format!("{} M pushes", size.store.pushes as f64 / 1e6);
        if wanted(Measurement::Large) {
            let servers = Pids::of(&large, &postgres).await?;
            report.add(drain::rounds(&large, servers, &name, size.rounds, size.pushes).await?);
        }
        if wanted(Measurement::Api) {
            report.add(serve::api(&large, size.store, &name, size.rounds, size.seconds).await?);
        }
    }

    if wanted(Measurement::Policies) {
        let place = folder.path().join("policies");
        let stack = Stack::start(&place, false, policies_database).await?;
        let (rounds, count) = (size.rounds, size.events / 10);
        let path = folder.path();
        report.add(policies::measure(&stack, path, size.versions, rounds, count).await?);
    }
    if wanted(Measurement::Triggers) {
        let place = folder.path().join("many");
        let stack = Stack::start(&place, false, triggers_database).await?;
        report.add(many::measure(&stack, folder.path(), size.rounds + 1).await?);
    }
    if wanted(Measurement::Quiet) {
        report.add(quiet::measure(folder.path(), size.rounds, size.seconds * 10).await?);
    }
    if wanted(Measurement::Memory) {
        report.add([help()?]);
        let servers = Pids::of(&stack, &postgres).await?;
        report.add(memory::all(&stack, servers, folder.path(), size.backlog, size.seconds).await?);
    }
    finish(&report, path)
}

async fn growth(pushes: &[u64], path: &Path) -> anyhow::Result<()> {
    let folder = folder()?;
    let (mut report, mut rows) = (Report::default(), Vec::new());
    for millions in pushes {
        rows.extend(growth::measure(folder.path(), *millions).await?);
    }
    rows.extend(growth::compared(&rows));
    report.add(rows);
    finish(&report, path)
}

/// Prints a report and writes it to a file.
fn finish(report: &Report, path: &Path) -> anyhow::Result<()> {
    report.write(path)?;
    print(&format!(
        "{}\nThe same as JSON: {}\n",
        report.table(),
        path.display()
    ))?;
    let missed: Vec<&str> = report.missed().map(|row| row.name.as_str()).collect();
    if !missed.is_empty() {
        print(&format!("Missed: {}\n", missed.join("; ")))?;
    }
    Ok(())
}

/// Measures `tagtrail --help`.
fn help() -> anyhow::Result<Row> {
    let mut series = Series::default();
    for _ in 0..20 {
        let begun = std::time::Instant::now();
        let done = std::process::Command::new(tagtrail_testkit::binary())
            .arg("--help")
            .output()?;
        anyhow::ensure!(done.status.success(), "tagtrail --help failed");
        series.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(Row::alone(
        "tagtrail --help",
        "ms",
        series,
        Goal::AtMost(20.0),
    ))
}

/// Makes a temporary folder that other users may enter, because the servers run as another user.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("tagtrail-bench-")
        .tempdir()?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open)?;
    Ok(folder)
}

/// Copies a database that has no other sessions. Returns the URL of the copy.
async fn database(of: &tagtrail_testkit::TestDb, name: &str) -> anyhow::Result<String> {
    let (server, template) = of
        .url()
        .rsplit_once('/')
        .context("a URL without a database")?;
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
    let sql = format!("create database {name} template {template}");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut admin)
        .await?;
    Ok(format!("{server}/{name}"))
}

/// Prints a text on standard output.
fn print(text: &str) -> std::io::Result<()> {
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())
}
