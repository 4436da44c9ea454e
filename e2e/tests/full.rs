//! A disk is full: of nats-server, then of Postgres. What was accepted is kept, readiness says what is wrong, and once there is room
//! again everything goes on by itself.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use serde_json::{Value, json};
use tagtrail_e2e::{Fleet, HOOK_SECRET, Up, config, disk, use_ring};
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::{SOON, TestNats, TestPostgres, eventually};
use time::{Duration, OffsetDateTime};

const REGISTRY: &str = "registry.example.com";

/// Whoever pushes one after another, each until it is accepted.
struct Sender {
    client: reqwest::Client,
    hook: String,
    api: String,
    start: OffsetDateTime,
    accepted: i64,
}

impl Sender {
    /// Pushes to a gateway, and looks at what an api says of it.
    fn new(gateway: &str, api: &str) -> Sender {
        let client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(5));
        Sender {
            client: client.build().unwrap(),
            hook: format!("{gateway}/hooks/ci"),
            api: api.to_owned(),
            start: OffsetDateTime::now_utc() - Duration::hours(1),
            accepted: 0,
        }
    }

    fn of(fleet: &Fleet) -> Sender {
        Sender::new(
            fleet.hook().trim_end_matches("/hooks/main"),
            &fleet.cli().api,
        )
    }

    fn digest(n: i64) -> String {
        Digest::sha256_of(&n.to_be_bytes()).to_string()
    }

    /// The status of the next push.
    async fn push(&mut self) -> Option<u16> {
        let n = self.accepted + 1;
        let time = instant::format(self.start + Duration::seconds(n)).unwrap();
        let body = json!({ "repository": "shop/web", "tag": "latest", "digest": Sender::digest(n), "time": time });
        let request = self.client.post(&self.hook).bearer_auth(HOOK_SECRET);
        let status = request.json(&body).send().await.ok()?.status().as_u16();
        if status == 202 {
            self.accepted = n;
        }
        Some(status)
    }

    /// Waits until history is all that was accepted.
    async fn all_is_recorded(&self) {
        let wanted: Vec<String> = (1..=self.accepted).rev().map(Sender::digest).collect();
        let url = format!(
            "{}/v1/history?image={REGISTRY}/shop/web&limit=1000",
            self.api
        );
        let found = eventually("what was accepted", SOON, async || {
            let answer: Value = self.client.get(&url).send().await.ok()?.json().await.ok()?;
            let items = answer["items"].as_array()?.clone();
            (items.len() >= wanted.len()).then_some(items)
        })
        .await;
        let found: Vec<&str> = found
            .iter()
            .filter_map(|item| item["digest"].as_str())
            .collect();
        assert_eq!(found, wanted);
    }
}

/// Waits until a service says that it is not ready, with these words.
async fn is_said(fleet: &Fleet, service: &str, words: &str) {
    eventually(
        &format!("the {service} to say {words:?}"),
        SOON,
        async || {
            let said = fleet.admin(service, "readyz").await?;
            said.contains(words).then_some(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_nats_server_is_full() {
    let Some(disk) = disk() else { return };
    let nats = TestNats::start_in(&disk.folder(), true).await;
    let postgres = TestPostgres::start().await;
    let fleet = Fleet::start_with(REGISTRY, postgres, nats, |_, _| Vec::new()).await;
    let mut sender = Sender::of(&fleet);
    for _ in 0..20 {
        assert_eq!(sender.push().await, Some(202));
    }
    disk.fill();
    let mut refused = 0;
    eventually("a full disk", SOON, async || {
        match sender.push().await {
            Some(503) => refused += 1,
            Some(202) => {}
            other => panic!("{other:?}"),
        }
        (refused >= 5).then_some(())
    })
    .await;
    is_said(&fleet, "gateway", "make room and then restart it").await;
    disk.free();
    // As whoever runs it is told to: it does not store again by itself (nats-server 2.15).
    fleet.nats.crash().await;
    let before = sender.accepted;
    eventually("pushes to be accepted again", SOON, async || {
        sender.push().await;
        (sender.accepted >= before + 20).then_some(())
    })
    .await;
    sender.all_is_recorded().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_postgres_is_full() {
    let Some(disk) = disk() else { return };
    let postgres = TestPostgres::start_in(&disk.folder()).await;
    let nats = TestNats::start().await;
    let fleet = Fleet::start_with(REGISTRY, postgres, nats, |_, _| Vec::new()).await;
    let mut sender = Sender::of(&fleet);
    for _ in 0..20 {
        assert_eq!(sender.push().await, Some(202));
    }
    sender.all_is_recorded().await;
    disk.fill();
    // What Postgres has room for in its files it still takes.
    let mut said = String::new();
    eventually("the indexer to say what is wrong", 2 * SOON, async || {
        for _ in 0..50 {
            assert_eq!(
                sender.push().await,
                Some(202),
                "the gateway needs no database"
            );
        }
        said = fleet.admin("indexer", "readyz").await?;
        said.contains("No space left on device").then_some(())
    })
    .await;
    assert!(said.contains("can't be recorded"), "{said}");
    disk.free();
    sender.all_is_recorded().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_tagtrail_up_is_full() {
    use_ring();
    let Some(disk) = disk() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = config(folder.path(), REGISTRY, "http://127.0.0.1:9/nobody");
    let up = Up::start(&disk.folder(), &file).await;
    let mut sender = Sender::new(up.address("gateway"), up.address("api"));
    while sender.accepted < 20 {
        assert_eq!(sender.push().await, Some(202));
    }
    disk.fill();
    let ready = format!("{}/readyz", up.address("admin"));
    eventually("tagtrail up to say what is wrong", 2 * SOON, async || {
        sender.push().await;
        let answer = sender.client.get(&ready).send().await.ok()?;
        let (status, said) = (answer.status().as_u16(), answer.text().await.ok()?);
        (status == 503 && said.contains("its disk is full")).then_some(())
    })
    .await;
    disk.free();
    let before = sender.accepted;
    eventually("pushes to be accepted again", 2 * SOON, async || {
        if sender.push().await != Some(202) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        (sender.accepted >= before + 20).then_some(())
    })
    .await;
    sender.all_is_recorded().await;
}
