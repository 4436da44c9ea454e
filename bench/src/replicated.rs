//! The publish stage of the indexer on three nats-servers that sync: revisions in groups behind a
//! fence, against single revisions behind a fence on the same servers, and on one server.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::stream;
use tagtrail_bus::fence::Fence;
use tagtrail_bus::group::MOST;
use tagtrail_bus::publish::Message;
use tagtrail_bus::{Bus, BusArgs};
use tagtrail_proto::Subject;
use tagtrail_testkit::{TestCluster, TestNats};
use tokio_util::sync::CancellationToken;

use crate::report::{Goal, Row, Series};
use crate::stack::{self, REGISTRY};

/// Bytes of a revision.
const BYTES: usize = 700;
/// Single revisions under way on one server.
const AT_ONCE: usize = 1024;

/// Measures revisions per second.
pub(crate) async fn measure(rounds: usize, seconds: u64) -> anyhow::Result<Vec<Row>> {
    let cluster = TestCluster::start(true).await;
    let scratch = tempfile::tempdir()?;
    let server = TestNats::start_in(scratch.path(), true).await;
    let replicated = connect(&cluster.url(), 3).await?.fence(0).await?;
    let single = connect(server.url(), 1).await?;
    without_persist_mode(&server).await?;
    let alone = single.fence(0).await?;
    let during = Duration::from_secs(seconds);
    let [mut groups, mut singles, mut one] = [(); 3].map(|()| Series::default());
    for round in 0..rounds {
        eprintln!(
            "revisions on three servers: round {} of {rounds}",
            round + 1
        );
        groups.push(in_groups(&replicated, during).await?);
        singles.push(one_by_one(&replicated, during).await?);
        one.push(one_by_one(&alone, during).await?);
    }
    Ok(vec![
        Row::against(
            "revisions in groups on three servers, against single ones there",
            "msg/s",
            groups.clone(),
            singles,
            Goal::AtLeast(10.0),
        ),
        Row::against(
            "revisions in groups on three servers, against single ones on one server that syncs each",
            "msg/s",
            groups,
            one,
            Goal::AtLeast(2.0),
        ),
    ])
}

async fn connect(url: &str, replicas: u8) -> anyhow::Result<Bus> {
    let args = BusArgs {
        replicas,
        ..BusArgs::new(url)
    };
    Ok(Bus::connect(&args, "bench", &CancellationToken::new()).await?)
}

/// Makes the server sync each message of REVISIONS, as those of a stream with several copies.
async fn without_persist_mode(server: &TestNats) -> anyhow::Result<()> {
    let context = server.jetstream().await;
    let mut revisions = context.get_stream("REVISIONS").await?;
    let config = stream::Config {
        persist_mode: None,
        ..revisions.info().await?.config.clone()
    };
    context.delete_stream("REVISIONS").await?;
    context.create_stream(config).await?;
    Ok(())
}

fn subjects() -> anyhow::Result<Vec<Subject>> {
    let subject = |number| {
        Ok(Subject::Revision {
            registry: REGISTRY.parse()?,
            repository: stack::repository(number).parse()?,
            tag: "v1".parse()?,
        })
    };
    (0..MOST).map(subject).collect()
}

fn message(subject: &Subject) -> Message<'_> {
    Message {
        subject,
        id: None,
        payload: vec![b'r'; BYTES].into(),
        trace: None,
    }
}

/// Publishes groups of the largest size, one after the other. Returns revisions per second.
async fn in_groups(fence: &Fence, during: Duration) -> anyhow::Result<f64> {
    let subjects = subjects()?;
    let group: Vec<Message<'_>> = subjects.iter().map(message).collect();
    let (begun, mut stored) = (Instant::now(), 0);
    while begun.elapsed() < during {
        stored += fence.publish_group(&group).await?.len();
    }
    Ok(stored as f64 / begun.elapsed().as_secs_f64())
}

/// Publishes single revisions, as many at once as the stream takes. Returns revisions per second.
async fn one_by_one(fence: &Fence, during: Duration) -> anyhow::Result<f64> {
    let subjects = subjects()?;
    let (begun, mut stored, mut under_way) = (Instant::now(), 0, VecDeque::new());
    for subject in subjects.iter().cycle() {
        if begun.elapsed() > during {
            break;
        }
        under_way.push_back(fence.send(message(subject)).await?);
        if under_way.len() >= fence.at_once().min(AT_ONCE) {
            let first = under_way.pop_front().context("nothing under way")?;
            first.acknowledged().await?;
            stored += 1;
        }
    }
    for last in under_way {
        last.acknowledged().await?;
        stored += 1;
    }
    Ok(stored as f64 / begun.elapsed().as_secs_f64())
}
