//! Far more is pushed than the store can take, for a while. Memory stays bounded, the gateway slows down or refuses rather than
//! lose, and in the end everything that was accepted is in history.
//!
//! The store is slow because the way to it is; `make overload` does it for a minute, with release binaries.

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
use tagtrail_testkit::{Link, Proxy, SOON, eventually};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::Instant;

const REGISTRY: &str = "registry.example.com";
const SENDERS: usize = 32;
/// Events in a request.
const AT_ONCE: i64 = 10;
/// No process may need more memory than this, in MiB.
const MEMORY: u64 = 256;

/// What a sender was told.
#[derive(Debug, Default)]
struct Told {
    accepted: i64,
    refused: i64,
    unanswered: i64,
}

/// Pushes of one repository, one after another, each again until it is accepted.
async fn send(fleet: Arc<Fleet>, number: usize, until: Instant) -> (usize, Told) {
    let start = OffsetDateTime::now_utc() - time::Duration::days(1);
    let mut told = Told::default();
    let repository = format!("shop/r{number}");
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let hook = fleet.hook().replace("/main", "/ci");
    // What got no 2xx may be stored or not, so it is told until it did.
    let mut owed = false;
    while owed || Instant::now() < until {
        let events: Vec<_> = (1..=AT_ONCE)
            .map(|n| {
                let n = told.accepted + n;
                let digest = Digest::sha256_of(format!("{repository}/{n}").as_bytes());
                let time = instant::format(start + time::Duration::milliseconds(n)).unwrap();
                json!({ "repository": repository, "tag": "latest", "digest": digest.to_string(), "time": time })
            })
            .collect();
        let request = client.post(&hook).bearer_auth(HOOK_SECRET).json(&events);
        let answer = request.send().await.map(|answer| answer.status().as_u16());
        owed = !matches!(answer, Ok(202));
        match answer {
            Ok(202) => told.accepted += AT_ONCE,
            Ok(503 | 429) => told.refused += AT_ONCE,
            Err(error) if error.is_timeout() => told.unanswered += AT_ONCE,
            other => panic!("the gateway answered {other:?}"),
        }
        if owed {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    (number, told)
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() / 1024
}

async fn facts(db: &mut PgConnection) -> i64 {
    let count = sqlx::query_scalar("select count(*) from push");
    count.fetch_one(db).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_beyond_capacity_is_recorded_later() {
    let seconds = std::env::var("OVERLOAD_SECONDS").map_or(6, |text| text.parse().unwrap());
    let mut fleet = Fleet::start(REGISTRY).await;
    let url = fleet.postgres.db().url().to_owned();
    let host = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
    let way = Proxy::start(host.to_owned()).await;
    fleet.set("DATABASE_URL", &url.replace(host, way.address()));
    // One batch at a time, of ten questions or so to the database, each of which takes a while.
    fleet.set("TAGTRAIL_APPLIERS", "1");
    fleet.set("TAGTRAIL_SESSION_SECONDS", "20");
    fleet.restart("indexer");
    let mut db = fleet.postgres.db().connect().await;
    // It works, and then its way becomes long.
    let time = instant::format(OffsetDateTime::now_utc()).unwrap();
    let digest = Digest::sha256_of(b"first").to_string();
    assert_eq!(fleet.push("shop/first", &digest, &time).await, Some(202));
    eventually("the first push", SOON, async || {
        (facts(&mut db).await == 1).then_some(())
    })
    .await;
    way.set(Link::Slow(Duration::from_millis(100)));

    let fleet = Arc::new(fleet);
    let (begun, load) = (Instant::now(), Duration::from_secs(seconds));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        senders.spawn(send(Arc::clone(&fleet), number, begun + load));
    }
    let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut look = || {
        for service in SERVICES {
            let now = resident(fleet.processes[service].pid());
            let most = largest.entry(service).or_default();
            *most = now.max(*most);
        }
        largest.clone()
    };
    while begun.elapsed() < load {
        look();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut told: BTreeMap<usize, Told> = BTreeMap::new();
    while let Some(done) = senders.join_next().await {
        told.extend([done.unwrap()]);
    }
    let applied = facts(&mut db).await - 1;
    let accepted: i64 = told.values().map(|told| told.accepted).sum();
    let refused: i64 = told.values().map(|told| told.refused).sum();
    let unanswered: i64 = told.values().map(|told| told.unanswered).sum();
    println!(
        "{accepted} accepted, {refused} refused and {unanswered} not answered in time in {seconds} s, {applied} recorded by then: {:.1} times what the store took",
        accepted as f64 / applied.max(1) as f64
    );
    assert!(accepted > 5 * applied, "this was no overload");

    way.set(Link::Whole);
    let patience = Duration::from_secs(60 + 10 * seconds);
    eventually("everything to be recorded", patience, async || {
        look();
        tokio::time::sleep(Duration::from_millis(200)).await;
        (facts(&mut db).await > accepted).then_some(())
    })
    .await;
    println!(
        "all recorded {:.1} s later; at most, in MiB: {:?}",
        (begun.elapsed() - load).as_secs_f64(),
        look()
    );
    let rows = sqlx::query(
        "select r.name, count(*), max(v.number) from revision v join tag t on t.id = v.tag_id join repository r on r.id = t.repository_id
         where r.name <> 'shop/first' group by 1",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    assert_eq!(rows.len(), SENDERS);
    for row in rows {
        let (name, count, last): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let number: usize = name.trim_start_matches("shop/r").parse().unwrap();
        assert_eq!(
            (count, last),
            (told[&number].accepted, told[&number].accepted),
            "{name}"
        );
    }
    for (service, most) in look() {
        assert!(most < MEMORY, "{service} needed {most} MiB");
    }
}
