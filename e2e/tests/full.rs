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
    fleet: Fleet,
    start: OffsetDateTime,
    accepted: i64,
}

impl Sender {
    fn new(fleet: Fleet) -> Sender {
        Sender {
            fleet,
            start: OffsetDateTime::now_utc() - Duration::hours(1),
            accepted: 0,
        }
    }

    fn digest(n: i64) -> String {
        Digest::sha256_of(&n.to_be_bytes()).to_string()
    }

    /// The status of the next push.
    async fn push(&mut self) -> Option<u16> {
        let n = self.accepted + 1;
        let time = instant::format(self.start + Duration::seconds(n)).unwrap();
        let status = self
            .fleet
            .push("shop/web", &Sender::digest(n), &time)
            .await?;
        if status == 202 {
            self.accepted = n;
        }
        Some(status)
    }

    /// Waits until history is all that was accepted.
    async fn all_is_recorded(&self) {
        let wanted: Vec<String> = (1..=self.accepted).rev().map(Sender::digest).collect();
        let path = format!("/v1/history?image={REGISTRY}/shop/web&limit=1000");
        let found = eventually("what was accepted", SOON, async || {
            let (_, answer) = self.fleet.get(&path).await?;
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

    /// Waits until a service says that it is not ready, with these words.
    async fn is_said(&self, service: &str, words: &str) {
        eventually(
            &format!("the {service} to say {words:?}"),
            SOON,
            async || {
                let said = self.fleet.admin(service, "readyz").await?;
                said.contains(words).then_some(())
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_nats_server_is_full() {
    let Some(disk) = disk() else { return };
    let nats = TestNats::start_in(&disk.folder(), true).await;
    let postgres = TestPostgres::start().await;
    let fleet = Fleet::start_with(REGISTRY, postgres, nats, |_, _| Vec::new()).await;
    let mut sender = Sender::new(fleet);
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
    sender
        .is_said("gateway", "make room and then restart it")
        .await;
    disk.free();
    // As whoever runs it is told to: it does not store again by itself (nats-server 2.15).
    sender.fleet.nats.crash().await;
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
    let mut sender = Sender::new(fleet);
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
        said = sender.fleet.admin("indexer", "readyz").await?;
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
    let client = reqwest::Client::builder()
        .timeout(std::time::Duration::from_secs(5))
        .build()
        .unwrap();
    let start = OffsetDateTime::now_utc() - Duration::hours(1);
    let push = async |n: i64| {
        let time = instant::format(start + Duration::seconds(n)).unwrap();
        let body = json!({ "repository": "shop/web", "tag": "latest", "digest": Sender::digest(n), "time": time });
        let hook = format!("{}/hooks/ci", up.address("gateway"));
        let request = client.post(hook).bearer_auth(HOOK_SECRET).json(&body);
        Some(request.send().await.ok()?.status().as_u16())
    };
    let mut accepted = 0;
    while accepted < 20 {
        assert_eq!(push(accepted + 1).await, Some(202));
        accepted += 1;
    }
    disk.fill();
    let ready = format!("{}/readyz", up.address("admin"));
    eventually("tagtrail up to say what is wrong", 2 * SOON, async || {
        if push(accepted + 1).await == Some(202) {
            accepted += 1;
        }
        let answer = client.get(&ready).send().await.ok()?;
        let (status, said) = (answer.status().as_u16(), answer.text().await.ok()?);
        (status == 503 && said.contains("its disk is full")).then_some(())
    })
    .await;
    disk.free();
    let before = accepted;
    eventually("pushes to be accepted again", 2 * SOON, async || {
        match push(accepted + 1).await {
            Some(202) => accepted += 1,
            _ => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
        (accepted >= before + 20).then_some(())
    })
    .await;
    let wanted: Vec<String> = (1..=accepted).rev().map(Sender::digest).collect();
    let url = format!(
        "{}/v1/history?image={REGISTRY}/shop/web&limit=1000",
        up.address("api")
    );
    let found = eventually("what was accepted", SOON, async || {
        let answer: Value = client.get(&url).send().await.ok()?.json().await.ok()?;
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
