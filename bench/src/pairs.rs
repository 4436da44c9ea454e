//! Two builds of the program in turn, in one run: the effect of a change on this machine. Each
//! build has its own nats-servers and databases, made by its own `migrate`, and the order of the
//! two is reversed in every other round.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::Request;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tagtrail_testkit::{TestPostgres, binary, free_address};

use crate::drain::{self, Pids};
use crate::http::{Clients, load};
use crate::latency::{Delivery, one_by_one};
use crate::report::{Goal, Report, Row, Series, percentile};
use crate::serve::{goal_of_synced, hook, start_gateway};
use crate::stack::{self, Stack};

/// The size of a comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rounds: usize,
    /// Pushes of a backlog.
    pub(crate) pushes: usize,
    /// Single events.
    pub(crate) events: usize,
    /// Seconds of each load.
    pub(crate) seconds: u64,
}

/// One of the two builds, with its servers.
struct Side {
    folder: PathBuf,
    stack: Stack,
    /// With a nats-server that syncs each message.
    synced: Stack,
}

/// A figure of both builds.
#[derive(Default)]
struct Pair {
    before: Series,
    after: Series,
}

impl Pair {
    fn push(&mut self, side: usize, value: f64) {
        let series = if side == 0 {
            &mut self.before
        } else {
            &mut self.after
        };
        series.push(value);
    }

    /// Returns the line of the report: the new build, and the old one as its ceiling.
    fn row(self, name: impl Into<String>, unit: &'static str, goal: Goal) -> Row {
        Row::against(name, unit, self.after, self.before, goal)
    }
}

/// Compares the program with an older build.
pub(crate) async fn compare(before: &Path, folder: &Path, size: Size) -> anyhow::Result<Report> {
    let postgres = TestPostgres::start_in(&folder.join("postgres")).await;
    let sides = [
        Side::start("before", before, &postgres, folder).await?,
        Side::start("after", &binary(), &postgres, folder).await?,
    ];
    let mut report = Report::default();
    report.add(drains(&sides, &postgres, size).await?);
    report.add(sizes(&sides, size).await?);
    report.add(revisions(&sides, size).await?);
    report.add(deliveries(&sides, size).await?);
    report.add(questions(&sides, size).await?);
    for connections in [32, 128] {
        report.add(webhooks(&sides, connections, size).await?);
    }
    Ok(report)
}

/// Returns the sides of each round, in turn.
fn turns(rounds: usize) -> impl Iterator<Item = usize> {
    (0..rounds).flat_map(|round| if round % 2 == 0 { [0, 1] } else { [1, 0] })
}

impl Side {
    async fn start(
        name: &str,
        program: &Path,
        postgres: &TestPostgres,
        folder: &Path,
    ) -> anyhow::Result<Side> {
        let folder = folder.join(name);
        let start = async |durable: bool, kind: &str| {
            let database = empty(postgres, &format!("{name}_{kind}")).await?;
            Stack::start_with(program, &folder.join(kind), durable, database, &[]).await
        };
        Ok(Side {
            stack: start(false, "default").await?,
            synced: start(true, "synced").await?,
            folder,
        })
    }
}

/// Creates an empty database. Returns its URL.
pub(crate) async fn empty(postgres: &TestPostgres, name: &str) -> anyhow::Result<String> {
    let db = postgres.db();
    let (server, _) = db.url().rsplit_once('/').context("a URL without a name")?;
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
    let sql = format!("create database {name}");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut admin)
        .await?;
    Ok(format!("{server}/{name}"))
}

async fn drains(
    sides: &[Side; 2],
    postgres: &TestPostgres,
    size: Size,
) -> anyhow::Result<Vec<Row>> {
    let [mut rate, mut cost, mut memory] = [(); 3].map(|()| Pair::default());
    for side in turns(size.rounds) {
        let stack = &sides[side].stack;
        eprintln!("pairs: drain, {}", sides[side].folder.display());
        stack.prefill(size.pushes).await?;
        let pids = Pids::of(stack, postgres).await?;
        let drained = drain::drain(stack, pids, size.pushes, true).await?;
        rate.push(side, drained.rate);
        let seconds: f64 = drained.seconds.iter().sum();
        cost.push(side, seconds * 1e6 / size.pushes as f64);
        memory.push(side, drained.resident);
    }
    Ok(vec![
        rate.row("drain", "pushes/s", Goal::AtLeast(1.4)),
        cost.row("processor time of a push", "us", Goal::None),
        memory.row(
            "memory of the indexer, at most, draining",
            "MiB",
            Goal::AtMost(1.0),
        ),
    ])
}

/// Measures the bytes that the drained pushes take in the database.
async fn sizes(sides: &[Side; 2], size: Size) -> anyhow::Result<Vec<Row>> {
    let mut bytes = Pair::default();
    let facts = (size.rounds * size.pushes) as f64;
    for (side, of) in sides.iter().enumerate() {
        let total: i64 = sqlx::query_scalar(
            "select (pg_total_relation_size('push') + pg_total_relation_size('revision'))::bigint",
        )
        .fetch_one(&mut of.stack.db().await?)
        .await?;
        bytes.push(side, total as f64 / facts);
    }
    let row = bytes.row("bytes of a push in Postgres", "B", Goal::AtMost(0.77));
    Ok(vec![row])
}

async fn revisions(sides: &[Side; 2], size: Size) -> anyhow::Result<Vec<Row>> {
    let [mut p50, mut p99] = [(); 2].map(|()| Pair::default());
    for side in turns(size.rounds) {
        let stack = &sides[side].stack;
        eprintln!("pairs: push to revision, {}", sides[side].folder.display());
        let indexer = stack.service("indexer", &[]);
        indexer.ready().await?;
        // Time for the indexer to claim all partitions.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let times = one_by_one(stack, size.events).await?;
        p50.push(side, percentile(&times, 0.5));
        p99.push(side, percentile(&times, 0.99));
        indexer.stop().await;
    }
    Ok(vec![
        p50.row("push to revision, p50", "ms", Goal::AtMost(0.8)),
        p99.row("push to revision, p99", "ms", Goal::None),
    ])
}

async fn deliveries(sides: &[Side; 2], size: Size) -> anyhow::Result<Vec<Row>> {
    let mut p50 = Pair::default();
    for side in turns(size.rounds) {
        let of = &sides[side];
        eprintln!("pairs: revision to webhook, {}", of.folder.display());
        let mut delivery = Delivery::start(&of.stack, &of.folder).await?;
        p50.push(side, percentile(&delivery.times(size.events).await?, 0.5));
        delivery.stop().await;
    }
    let row = p50.row("revision to webhook, p50", "ms", Goal::AtMost(0.75));
    Ok(vec![row])
}

async fn questions(sides: &[Side; 2], size: Size) -> anyhow::Result<Vec<Row>> {
    let [mut head, mut at_a_time] = [(); 2].map(|()| Pair::default());
    for side in turns(size.rounds) {
        let stack = &sides[side].stack;
        eprintln!("pairs: resolve, {}", sides[side].folder.display());
        let address = free_address();
        let api = stack.service("api", &[("TAGTRAIL_API_LISTEN", &address)]);
        api.ready().await?;
        let now = tagtrail_proto::instant::format(time::OffsetDateTime::now_utc())?;
        let clients = Clients::during(size.seconds);
        let ask = |at: String| {
            let host = address.clone();
            move |number: usize| {
                let image = stack::any_image(number.wrapping_mul(7919));
                Ok(Request::get(format!("/v1/resolve?image={image}{at}"))
                    .header("host", host.as_str())
                    .body(Full::default())?)
            }
        };
        let heads = load(&address, clients, 200, ask(String::new())).await?;
        head.push(side, heads.rate);
        let then = load(&address, clients, 200, ask(format!("&at={now}"))).await?;
        at_a_time.push(side, then.rate);
        api.stop().await;
    }
    Ok(vec![
        head.row("resolve", "req/s", Goal::AtLeast(1.5)),
        at_a_time.row("resolve at a time", "req/s", Goal::None),
    ])
}

/// Measures webhooks where each push is synced before its 202.
async fn webhooks(sides: &[Side; 2], connections: usize, size: Size) -> anyhow::Result<Vec<Row>> {
    let [mut rate, mut p99] = [(); 2].map(|()| Pair::default());
    for (turn, side) in turns(size.rounds).enumerate() {
        let of = &sides[side];
        eprintln!(
            "pairs: webhooks, {connections} connections, {}",
            of.folder.display()
        );
        let (gateway, address) = start_gateway(&of.synced, &of.folder, &[]).await?;
        let clients = Clients {
            connections,
            ..Clients::during(size.seconds)
        };
        let round = connections * 1000 + turn;
        let stored = load(&address, clients, 202, hook(&address, "/hooks/ci", round)).await?;
        rate.push(side, stored.rate);
        p99.push(side, stored.p99);
        gateway.stop().await;
    }
    Ok(vec![
        rate.row(
            format!("webhook to 202, each push synced, {connections} connections"),
            "req/s",
            goal_of_synced(connections),
        ),
        p99.row(
            format!("webhook to 202, p99, each push synced, {connections} connections"),
            "ms",
            Goal::None,
        ),
    ])
}
