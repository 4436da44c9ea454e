//! A backlog is drained: read, recorded, published. And what that costs in processor time.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::ceiling::{self, Rows};
use crate::cpu;
use crate::report::{Goal, Row, Series};
use crate::stack::Stack;

/// Pids of the servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pids {
    pub(crate) nats: u32,
    pub(crate) postgres: u32,
}

/// Drains in rounds, with the ceilings in each.
pub(crate) async fn rounds(
    stack: &Stack,
    pids: Pids,
    name: &str,
    rounds: usize,
    count: usize,
) -> anyhow::Result<Vec<Row>> {
    let [mut rates, mut ceilings, mut costs, mut parts] = [(); 4].map(|()| Series::default());
    let [mut publishing, mut writing] = [(); 2].map(|()| Series::default());
    let mut rows = Rows::new(stack).await?;
    let per_push = |seconds: f64| seconds * 1e6 / count as f64;
    let ours = std::process::id();
    for round in 0..rounds {
        eprintln!("{name}: round {} of {rounds}", round + 1);
        stack.prefill(count).await?;
        let drained = drain(stack, pids, count).await?;
        rates.push(drained.rate);
        costs.push(per_push(drained.seconds));

        let used = |pids: &[u32]| -> f64 { pids.iter().map(|pid| cpu::seconds(*pid)).sum() };
        let before = used(&[pids.nats, ours]);
        let published = ceiling::published(stack, count).await?;
        ceiling::fetched(stack, count).await?;
        let messages = used(&[pids.nats, ours]) - before;
        let before = used(&[pids.postgres, ours]);
        let written = rows.written(count).await?;
        parts.push(per_push(messages + used(&[pids.postgres, ours]) - before));
        publishing.push(published);
        writing.push(written);
        ceilings.push(published.min(written));
    }
    Ok(vec![
        Row::against(
            format!("drain, {name}"),
            "pushes/s",
            rates,
            ceilings,
            Goal::AtLeast(0.65),
        ),
        Row::against(
            format!("processor time, {name}"),
            "us/push",
            costs,
            parts,
            Goal::AtMost(1.4),
        ),
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

/// How a backlog was drained.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drained {
    /// Pushes per second.
    pub(crate) rate: f64,
    /// Processor time of all processes together, in seconds.
    pub(crate) seconds: f64,
    /// Resident memory of the indexer at most, in MiB.
    pub(crate) resident: f64,
}

/// Starts an indexer on what waits, each of which makes a revision, and watches until all of it is published.
pub(crate) async fn drain(stack: &Stack, pids: Pids, count: usize) -> anyhow::Result<Drained> {
    let before = stack.last("REVISIONS").await?;
    let used = cpu::seconds(pids.nats) + cpu::seconds(pids.postgres);
    let indexer = stack.service("indexer", &[]);
    // A fence for each partition, and a revision for each push.
    let end = before + u64::from(tagtrail_proto::PARTITIONS) + count as u64;
    let begun = Instant::now();
    let mut resident: f64 = 0.0;
    loop {
        let last = stack.last("REVISIONS").await?;
        resident = resident.max(cpu::resident(indexer.process.pid()).unwrap_or(0.0));
        if last >= end {
            ensure!(last == end, "{} messages too many in REVISIONS", last - end);
            break;
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(300),
            "{} of {count} drained in 300 s; the indexer says:\n{}",
            last - before,
            indexer.process.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seconds = cpu::seconds(pids.nats) + cpu::seconds(pids.postgres) - used
        + cpu::seconds(indexer.process.pid());
    let took =
        stack.stored_at("REVISIONS", end).await? - stack.stored_at("REVISIONS", before + 1).await?;
    indexer.stop().await;
    Ok(Drained {
        rate: count as f64 / took.as_seconds_f64(),
        seconds,
        resident,
    })
}
