//! A cluster of three nats-servers, with three replicas of each stream.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::BTreeMap;

use tagtrail_proto::{
    Action, Digest, Event, Image, Origin, Push, Revision, Scope, Subject, TimeSource,
};
use tagtrail_testkit::{Process, SOON, TestCluster, TestPostgres, eventually};
use time::{Duration, OffsetDateTime};

const TAGS: usize = 200;
const PUSHES: usize = 400;

fn push(n: usize) -> Push {
    let image = format!("registry.example.com/shop/web:t{}", n % TAGS);
    let image: Image = image.parse().unwrap();
    Push {
        action: Action::Push,
        scope: Scope::Tag,
        registry: image.registry,
        repository: image.repository,
        tag: Some(image.tag),
        digest: Some(Digest::sha256_of(&n.to_be_bytes())),
        media_type: None,
        size: None,
        actor: None,
        occurred_at: OffsetDateTime::now_utc() - Duration::hours(1)
            + Duration::seconds(i64::try_from(n).unwrap()),
        occurred_at_source: TimeSource::Event,
        source: "main".to_owned(),
        origin: Origin::Event,
        event_id: n.to_string(),
    }
}

/// The environment of a process that uses the cluster.
fn environment<'a>(db: &'a str, nats: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("DATABASE_URL", db),
        ("NATS_URL", nats),
        ("TAGTRAIL_NATS_REPLICAS", "3"),
        ("TAGTRAIL_CLAIM_INTERVAL_MS", "20"),
    ]
}

/// Creates the schema and the streams.
async fn migrate(environment: &[(&str, &str)]) {
    let mut migrating = Process::tagtrail(&["migrate"], environment);
    assert!(migrating.ended(SOON).await.success());
}

/// Returns the numbers of the revisions in REVISIONS, by image, in the order of the stream; `None`
/// if no server answers.
async fn published(nats: &TestCluster) -> Option<BTreeMap<String, Vec<u64>>> {
    let context = async_nats::jetstream::new(nats.client().await?);
    let messages = tagtrail_testkit::messages(&context, "REVISIONS").await;
    let mut published: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (subject, body) in &messages {
        if subject.starts_with("tagtrail.revision.") {
            let event: Event<Revision> = serde_json::from_slice(body).unwrap();
            let numbers = published.entry(event.subject).or_default();
            numbers.push(event.data.revision);
        }
    }
    Some(published)
}

/// The indexer starts after all pushes were stored, and so has many revisions of a partition to
/// publish at once. A replicated stream accepts a single message at a time after a fence.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_takes_many_revisions_of_a_partition_and_survives_a_server() {
    let (postgres, mut nats) = (TestPostgres::start().await, TestCluster::start(true).await);
    let (url, db) = (nats.url(), postgres.db());
    let environment = environment(db.url(), &url);
    migrate(&environment).await;
    let context = async_nats::jetstream::new(nats.client().await.unwrap());
    let revisions = context.get_stream("REVISIONS").await.unwrap();
    assert_eq!(revisions.cached_info().config.num_replicas, 3);

    let mut sent = Vec::new();
    for n in 0..PUSHES {
        if n == PUSHES / 2 {
            nats.kill(0);
        }
        let push = push(n);
        let subject = Subject::of_push(&push, tagtrail_proto::PARTITIONS).to_string();
        let body = serde_json::to_vec(&push.event()).unwrap();
        // During the election of a leader nothing is stored.
        sent.push(
            eventually("a push to be stored", SOON, async || {
                let sent = context
                    .publish(subject.clone(), body.clone().into())
                    .await
                    .ok()?;
                sent.await.ok()
            })
            .await,
        );
    }
    nats.resume(0);
    let _indexer = Process::tagtrail(&["indexer", "--admin", "127.0.0.1:0"], &environment);
    let published = eventually("all revisions", SOON, async || {
        let published = published(&nats).await?;
        (published.values().map(Vec::len).sum::<usize>() >= PUSHES).then_some(published)
    })
    .await;
    let all: Vec<u64> = (1..=(PUSHES / TAGS) as u64).collect();
    assert_eq!(published.len(), TAGS);
    for (image, numbers) in published {
        assert_eq!(numbers, all, "{image}");
    }
}

/// The server that leads REVISIONS is killed while the indexer publishes groups: after each group
/// was sent, its acknowledgement may or may not have come.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_of_revisions_costs_no_revision_of_a_group() {
    const MANY: usize = 6_000;
    const KILLS: usize = 4;
    let (postgres, mut nats) = (TestPostgres::start().await, TestCluster::start(true).await);
    let (url, db) = (nats.url(), postgres.db());
    let environment = environment(db.url(), &url);
    migrate(&environment).await;
    let context = async_nats::jetstream::new(nats.client().await.unwrap());
    let (mut sent, mut n) = (Vec::new(), 0);
    while n < MANY {
        let push = push(n);
        let subject = Subject::of_push(&push, tagtrail_proto::PARTITIONS).to_string();
        let body = serde_json::to_vec(&push.event()).unwrap();
        sent.push(context.publish(subject, body.into()).await.unwrap());
        n += 1;
        if sent.len() == 200 {
            for ack in sent.drain(..) {
                ack.await.unwrap();
            }
        }
    }
    let _indexer = Process::tagtrail(&["indexer", "--admin", "127.0.0.1:0"], &environment);
    let mut killed = Vec::new();
    for kill in 1..=KILLS {
        // The indexer goes on from kill to kill.
        let leader = eventually("the next revisions", SOON, async || {
            let context = async_nats::jetstream::new(nats.client().await?);
            let stream = context.get_stream("REVISIONS").await.ok()?;
            let info = stream.cached_info();
            let enough = info.state.messages > (MANY * kill / (KILLS + 2)) as u64;
            let leader = info.cluster.as_ref()?.leader.as_ref()?;
            let number = leader.strip_prefix("n")?.parse().ok()?;
            enough.then_some(number)
        })
        .await;
        nats.kill(leader);
        killed.push(leader);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        nats.resume(leader);
    }
    let published = eventually("all revisions", SOON * 2, async || {
        let published = published(&nats).await?;
        (published.values().map(Vec::len).sum::<usize>() >= MANY).then_some(published)
    })
    .await;
    let all: Vec<u64> = (1..=(MANY / TAGS) as u64).collect();
    for (image, numbers) in published {
        assert_eq!(numbers, all, "{image}, after kills of {killed:?}");
    }
}
