//! A full disk of nats-server or Postgres: accepted pushes are kept, `readyz` names the
//! cause, and once there is room again pushes are recorded without further action.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use serde_json::{Value, json};
use tagtrail_e2e::{Fleet, HOOK_SECRET, Up, config, disk, use_ring};
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::{SOON, TestNats, TestPostgres, eventually};
use time::{Duration, OffsetDateTime};

const REGISTRY: &str = "registry.example.com";

/// Sends pushes in sequence, each repeated until accepted.
struct Sender {
    client: reqwest::Client,
    hook: String,
    api: String,
    start: OffsetDateTime,
    accepted: i64,
}

impl Sender {
    /// Makes a sender to a gateway, which checks history at an API.
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

    /// Sends the next push. Returns the status of the response.
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

    /// Waits until history has exactly the accepted pushes.
    async fn all_is_recorded(&self) {
        let wanted: Vec<String> = (1..=self.accepted).rev().map(Sender::digest).collect();
        let url = format!(
            "{}/v1/history?image={REGISTRY}/shop/web&limit=1000",
            self.api
        );
        let found = eventually("all accepted pushes", SOON, async || {
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

/// Waits until the `readyz` page of a service contains these words.
async fn readyz_has(fleet: &Fleet, service: &str, words: &str) {
    eventually(
        &format!("{words:?} on readyz of the {service}"),
        SOON,
        async || {
            let page = fleet.admin(service, "readyz").await?;
            page.contains(words).then_some(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_nats_server_loses_nothing() {
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
    readyz_has(
        &fleet,
        "gateway",
        "free some space, then restart nats-server",
    )
    .await;
    disk.free();
    // As `readyz` asks: nats-server 2.15 does not store again before a restart.
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
async fn a_full_disk_of_postgres_loses_nothing() {
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
    // Postgres still records pushes while allocated files have free space.
    let mut page = String::new();
    eventually("the cause on readyz of the indexer", 2 * SOON, async || {
        for _ in 0..50 {
            assert_eq!(
                sender.push().await,
                Some(202),
                "the gateway needs no database"
            );
        }
        page = fleet.admin("indexer", "readyz").await?;
        page.contains("No space left on device").then_some(())
    })
    .await;
    assert!(page.contains("can't be recorded"), "{page}");
    disk.free();
    sender.all_is_recorded().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_tagtrail_up_loses_nothing() {
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
    eventually("the cause on readyz of tagtrail up", 2 * SOON, async || {
        sender.push().await;
        let answer = sender.client.get(&ready).send().await.ok()?;
        let (status, page) = (answer.status().as_u16(), answer.text().await.ok()?);
        (status == 503 && page.contains("its disk is full")).then_some(())
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
