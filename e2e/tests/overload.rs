//! Overload: for a while, far more pushes arrive than the store can record. Memory stays bounded,
//! the gateway slows down or refuses pushes, but loses none, and in the end every accepted
//! push is in history.
//!
//! A slow proxy before Postgres makes the store slow. `make overload` runs this for a minute with
//! release binaries.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test has neither a log nor flags of its own"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sqlx::{PgConnection, Row as _};
use tagtrail_e2e::{Fleet, HOOK_SECRET, SERVICES};
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::{Link, Proxy, SOON, eventually, resident};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::Instant;

const REGISTRY: &str = "registry.example.com";
const SENDERS: usize = 32;
/// Events in a request.
const BATCH: i64 = 10;
/// Largest memory of each process, in MiB.
const MEMORY: u64 = 256;

/// The number of pushes of a sender, by the gateway's answer.
#[derive(Debug, Default)]
struct Answers {
    accepted: i64,
    refused: i64,
    unanswered: i64,
}

/// Sends pushes of a repository in sequence, and repeats each request until the gateway accepts.
async fn send(fleet: Arc<Fleet>, number: usize, until: Instant) -> (usize, Answers) {
    let start = OffsetDateTime::now_utc() - time::Duration::days(1);
    let mut answers = Answers::default();
    let repository = format!("shop/r{number}");
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let hook = fleet.hook().replace("/main", "/ci");
    // A request without a 2xx may have been stored, so the sender repeats the request.
    let mut owed = false;
    while owed || Instant::now() < until {
        let events: Vec<_> = (1..=BATCH)
            .map(|n| {
                let n = answers.accepted + n;
                let digest = Digest::sha256_of(format!("{repository}/{n}").as_bytes());
                let time = instant::format(start + time::Duration::milliseconds(n)).unwrap();
                json!({ "repository": repository, "tag": "latest", "digest": digest.to_string(), "time": time })
            })
            .collect();
        let request = client.post(&hook).bearer_auth(HOOK_SECRET).json(&events);
        let answer = request.send().await.map(|answer| answer.status().as_u16());
        owed = !matches!(answer, Ok(202));
        match answer {
            Ok(202) => answers.accepted += BATCH,
            Ok(503 | 429) => answers.refused += BATCH,
            Err(error) if error.is_timeout() => answers.unanswered += BATCH,
            other => panic!("the gateway answered {other:?}"),
        }
        if owed {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    (number, answers)
}

/// Number of recorded pushes.
async fn recorded(db: &mut PgConnection) -> i64 {
    let count = sqlx::query_scalar("select count(*) from push");
    count.fetch_one(db).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_accepted_beyond_capacity_are_recorded_later() {
    let seconds = std::env::var("OVERLOAD_SECONDS").map_or(6, |text| text.parse().unwrap());
    let mut fleet = Fleet::start(REGISTRY).await;
    let url = fleet.postgres.db().url().to_owned();
    let host = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
    let proxy = Proxy::start(host.to_owned()).await;
    fleet.set("DATABASE_URL", &url.replace(host, proxy.address()));
    // A single batch at a time, of about ten slow statements.
    fleet.set("TAGTRAIL_APPLIERS", "1");
    fleet.set("TAGTRAIL_SESSION_SECONDS", "20");
    fleet.restart("indexer");
    let mut db = fleet.postgres.db().connect().await;
    // The first push is recorded at full speed. Then the link becomes slow.
    let time = instant::format(OffsetDateTime::now_utc()).unwrap();
    let digest = Digest::sha256_of(b"first").to_string();
    assert_eq!(fleet.push("shop/first", &digest, &time).await, Some(202));
    eventually("the first push", SOON, async || {
        (recorded(&mut db).await == 1).then_some(())
    })
    .await;
    proxy.set(Link::Slow(Duration::from_millis(100)));

    let fleet = Arc::new(fleet);
    let (begun, load) = (Instant::now(), Duration::from_secs(seconds));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        senders.spawn(send(Arc::clone(&fleet), number, begun + load));
    }
    let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut look = || {
        for service in SERVICES {
            let now = resident(fleet.processes[service].pid()).unwrap() / 1024;
            let most = largest.entry(service).or_default();
            *most = now.max(*most);
        }
        largest.clone()
    };
    while begun.elapsed() < load {
        look();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut answers: BTreeMap<usize, Answers> = BTreeMap::new();
    while let Some(done) = senders.join_next().await {
        answers.extend([done.unwrap()]);
    }
    let applied = recorded(&mut db).await - 1;
    let accepted: i64 = answers.values().map(|answers| answers.accepted).sum();
    let refused: i64 = answers.values().map(|answers| answers.refused).sum();
    let unanswered: i64 = answers.values().map(|answers| answers.unanswered).sum();
    println!(
        "{accepted} accepted, {refused} refused and {unanswered} not answered in time in {seconds} s, {applied} recorded by then: {:.1} times the capacity of the store",
        accepted as f64 / applied.max(1) as f64
    );
    assert!(accepted > 5 * applied, "this was no overload");

    proxy.set(Link::Whole);
    let patience = Duration::from_secs(60 + 10 * seconds);
    eventually("everything to be recorded", patience, async || {
        look();
        tokio::time::sleep(Duration::from_millis(200)).await;
        (recorded(&mut db).await > accepted).then_some(())
    })
    .await;
    println!(
        "all recorded {:.1} s later; at most, in MiB: {:?}",
        (begun.elapsed() - load).as_secs_f64(),
        look()
    );
    let rows = sqlx::query(
        "select r.name, count(*) as count, max(v.number) as last from revision v join tag t on t.id = v.tag_id join repository r on r.id = t.repository_id
         where r.name <> 'shop/first' group by r.name",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    assert_eq!(rows.len(), SENDERS);
    for row in rows {
        let (name, count, last): (String, i64, i64) =
            (row.get("name"), row.get("count"), row.get("last"));
        let number: usize = name.trim_start_matches("shop/r").parse().unwrap();
        assert_eq!(
            (count, last),
            (answers[&number].accepted, answers[&number].accepted),
            "{name}"
        );
    }
    for (service, most) in look() {
        assert!(most < MEMORY, "{service} used {most} MiB");
    }
}
