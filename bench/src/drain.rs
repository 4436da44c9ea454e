//! Drains a backlog (read, record, publish), and measures the processor time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tagtrail_testkit::TestPostgres;

use crate::ceiling::{self, Rows};
use crate::cpu;
use crate::report::{Goal, Row, Series};
use crate::stack::Stack;

/// Time without a new revision after which a backlog counts as drained, if the number of revisions
/// is unknown.
const QUIET: Duration = Duration::from_secs(3);

/// Process ids of the servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pids {
    pub(crate) nats: u32,
    pub(crate) postgres: u32,
}

impl Pids {
    /// Returns the process ids of the servers of a stack.
    pub(crate) async fn of(stack: &Stack, postgres: &TestPostgres) -> anyhow::Result<Pids> {
        let (nats, postgres) = (stack.nats.pid().await, postgres.pid().await);
        Ok(Pids {
            nats: nats.context("nats-server is not running")?,
            postgres: postgres.context("Postgres is not running")?,
        })
    }

    /// Returns the processor time so far, in seconds, of both servers and of this program. Both
    /// servers are children of this program, and count once.
    fn used(self) -> [f64; 3] {
        let [nats, postgres] = [self.nats, self.postgres].map(cpu::seconds);
        [nats, postgres, cpu::alone(std::process::id())]
    }
}

/// Drains a backlog in each round, and measures the ceilings.
pub(crate) async fn rounds(
    stack: &Stack,
    pids: Pids,
    name: &str,
    rounds: usize,
    count: usize,
) -> anyhow::Result<Vec<Row>> {
    let [
        mut rates,
        mut ceilings,
        mut together,
        mut publishing,
        mut writing,
    ] = [(); 5].map(|()| Series::default());
    // The times of nats-server, of Postgres and of our process, and their sum.
    let [mut costs, mut parts] = [(); 2].map(|()| [(); 4].map(|()| Series::default()));
    let mut rows = Rows::new(stack).await?;
    let note = |series: &mut [Series; 4], seconds: [f64; 3]| {
        let all = [seconds[0], seconds[1], seconds[2], seconds.iter().sum()];
        for (series, seconds) in series.iter_mut().zip(all) {
            series.push(seconds * 1e6 / count as f64);
        }
    };
    for round in 0..rounds {
        eprintln!("{name}: round {} of {rounds}", round + 1);
        stack.prefill(count).await?;
        let drained = drain(stack, pids, count, true).await?;
        rates.push(drained.rate);
        note(&mut costs, drained.seconds);

        let before = pids.used();
        let published = ceiling::published(stack, count).await?;
        ceiling::fetched(stack, count).await?;
        let written = rows.written(count).await?;
        let used = pids.used();
        note(
            &mut parts,
            std::array::from_fn(|place| used[place] - before[place]),
        );
        publishing.push(published);
        writing.push(written);
        ceilings.push(published.min(written));
        together.push(at_once(stack, &mut rows, count).await?);
    }
    let time = |of: &str, place: usize, goal: Goal| {
        Row::against(
            format!("processor time{of}, {name}"),
            "us/push",
            costs[place].clone(),
            parts[place].clone(),
            goal,
        )
    };
    Ok(vec![
        Row::against(
            format!("drain, {name}"),
            "pushes/s",
            rates.clone(),
            ceilings,
            stack.goal(Goal::AtLeast(0.65)),
        ),
        Row::against(
            format!("drain against its parts at once, {name}"),
            "pushes/s",
            rates,
            together,
            Goal::None,
        ),
        time("", 3, stack.goal(Goal::AtMost(1.4))),
        time(" of nats-server", 0, Goal::None),
        time(" of Postgres", 1, Goal::None),
        time(" of the indexer", 2, Goal::None),
        Row::alone(
            format!("ceiling: publish with id, {name}"),
            "msg/s",
            publishing.warmed(),
            Goal::None,
        ),
        Row::alone(
            format!("ceiling: read-modify-write, {name}"),
            "rows/s",
            writing.warmed(),
            Goal::None,
        ),
    ])
}

/// Returns messages per second through all parts at the same time, on the same cores: read from
/// PUSHES, written as rows and published with an identifier. Nothing decides anything.
async fn at_once(stack: &Stack, rows: &mut Rows, count: usize) -> anyhow::Result<f64> {
    let begun = Instant::now();
    tokio::try_join!(
        ceiling::published(stack, count),
        ceiling::fetched(stack, count),
        rows.written(count),
    )?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// The measurements of a drained backlog.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drained {
    /// Pushes per second.
    pub(crate) rate: f64,
    /// Processor time of nats-server, of Postgres and of the indexer, in seconds.
    pub(crate) seconds: [f64; 3],
    /// Greatest resident memory of the indexer, in MiB.
    pub(crate) resident: f64,
    /// Resident memory of the indexer at the end, in MiB.
    pub(crate) idle: f64,
}

/// Starts an indexer on a backlog of `count` pushes, and waits until the indexer has published all
/// revisions. Not `exact`: some pushes change nothing, so it waits until no more revisions come.
pub(crate) async fn drain(
    stack: &Stack,
    pids: Pids,
    count: usize,
    exact: bool,
) -> anyhow::Result<Drained> {
    let before = stack.last("REVISIONS").await?;
    let used = pids.used();
    let indexer = stack.service("indexer", &[]);
    // A fence for each partition, and a revision for each push.
    let end = before + u64::from(tagtrail_proto::PARTITIONS) + count as u64;
    let begun = Instant::now();
    let mut resident: f64 = 0.0;
    let (mut last, mut since) = (before, begun);
    loop {
        let now = stack.last("REVISIONS").await?;
        if now > last {
            (last, since) = (now, Instant::now());
        }
        resident = resident.max(cpu::resident(indexer.process.pid()).unwrap_or(0.0));
        let quiet = last > before + count as u64 / 2 && since.elapsed() > QUIET;
        if if exact { last >= end } else { quiet } {
            break;
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(600),
            "{} of {count} drained in 600 s; the log of the indexer:\n{}",
            last - before,
            indexer.process.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(
        !exact || last == end,
        "{} messages too many in REVISIONS",
        last - end
    );
    let now = pids.used();
    let seconds = [
        now[0] - used[0],
        now[1] - used[1],
        cpu::seconds(indexer.process.pid()),
    ];
    let first = stack.stored_at("REVISIONS", before + 1).await?;
    let took = stack.stored_at("REVISIONS", last).await? - first;
    let idle = cpu::resident(indexer.process.pid()).unwrap_or(0.0);
    indexer.stop().await;
    Ok(Drained {
        rate: count as f64 / took.as_seconds_f64(),
        seconds,
        resident,
        idle,
    })
}
