//! A process crashes at each fail point once: no push is lost or recorded twice, and everything
//! continues in order.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;

use async_nats::jetstream::consumer::{FromConsumer as _, pull};
use serde_json::{Value, json};
use tagtrail_e2e::{Fleet, HOOK_SECRET, config};
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{Digest, Event, Revision, Rollout, instant};
use tagtrail_testkit::{Registry, SOON, Sink, TestImage, eventually};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

/// The number of the signal ABRT.
const SIGABRT: i32 = 6;
/// The registry of the images, which can't be asked: it has none of the digests.
const REGISTRY: &str = "registry.example.com";
/// The images of the trigger.
const IMAGES: [&str; 2] = ["shop/web", "shop/worker"];

/// Sends pushes, each repeated until accepted.
struct Sender {
    fleet: Fleet,
    start: OffsetDateTime,
    /// Number of the last push that was accepted for every image.
    accepted: i64,
    /// The path of `tagtrail.toml`.
    config: std::path::PathBuf,
}

impl Sender {
    fn digest(n: i64) -> String {
        Digest::sha256_of(&n.to_be_bytes()).to_string()
    }

    /// Sends the next push of each image. After a failure, the next call sends the same pushes.
    async fn push(&mut self) {
        let n = self.accepted + 1;
        let time = instant::format(self.start + Duration::seconds(n)).unwrap();
        for image in IMAGES {
            if self.fleet.push(image, &Sender::digest(n), &time).await != Some(202) {
                return;
            }
        }
        self.accepted = n;
    }

    /// Sends an event without a digest, so that the resolver asks the registry. Repeats the request
    /// until the gateway accepts.
    async fn push_without_digest(&self, n: u32) {
        let body = json!({ "repository": "shop/asked", "tag": format!("t{n}") });
        let client = reqwest::Client::new();
        let hook = self.fleet.hook().replace("/main", "/asking");
        eventually("the event to be accepted", SOON, async || {
            let request = client.post(&hook).bearer_auth(HOOK_SECRET).json(&body);
            let answer = request.send().await.ok()?;
            (answer.status() == 202).then_some(())
        })
        .await;
    }

    /// Waits until the last push is recorded.
    async fn is_recorded(&self) {
        let path = format!("/v1/resolve?image={REGISTRY}/{}", IMAGES[1]);
        eventually("the last push", SOON, async || {
            (self.get(&path).await?["digest"] == Sender::digest(self.accepted)).then_some(())
        })
        .await;
    }

    /// Starts a service that crashes when it reaches a point.
    fn restart_until(&mut self, service: &'static str, point: FailPoint) {
        let variable = ("TAGTRAIL_FAILPOINT", format!("{}:abort", point.name()));
        self.fleet.restart_with(service, Some(variable));
    }

    /// Waits until a service has crashed at a point, while pushes come in, and while a person
    /// orders an attempt or changes the file if the point needs that.
    async fn crash(&mut self, service: &'static str, point: FailPoint) {
        let deadline = Instant::now() + SOON;
        while self.fleet.processes.get_mut(service).unwrap().running() {
            assert!(
                Instant::now() < deadline,
                "the {service} never reached {}; was `tagtrail` built with fail points? `cargo test --workspace` does this",
                point.name()
            );
            self.push().await;
            if point == FailPoint::TriggerOrdered {
                let _ = self.fleet.cli().run(&["retry", "shop"]);
            }
            if point == FailPoint::TriggerReloaded {
                let text = std::fs::read_to_string(&self.config).unwrap();
                std::fs::write(&self.config, text + "# Another content.\n").unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let process = self.fleet.processes.get_mut(service).unwrap();
        let status = process.ended(SOON).await;
        assert_eq!(status.signal(), Some(SIGABRT), "{}", point.name());
    }

    /// Gets a resource of the API. Returns `None` unless the status is 200.
    async fn get(&self, path: &str) -> Option<Value> {
        let (status, answer) = self.fleet.get(path).await?;
        (status == 200).then_some(answer)
    }
}

fn service_of(point: FailPoint) -> &'static str {
    match point.name().split_once('.').unwrap().0 {
        "gateway" => "gateway",
        "resolver" => "resolver",
        "indexer" => "indexer",
        "trigger" | "ledger" | "notify" => "trigger",
        other => panic!("no service for fail points of {other}"),
    }
}

/// A trigger with a gate that opens by itself, one whose result comes later, and a receiver of
/// messages. None of these requests is read.
fn with_gates_and_results(url: &str) -> String {
    let trigger = |name: &str, more: &str| {
        format!(
            "[[trigger]]\nname = \"{name}\"\nsettle = \"0s\"\n{more}\nimages.web = \"{REGISTRY}/shop/web:latest\"\n\
             target.webhook = {{ url = \"{url}\", secret = {{ env = \"SHOP_WEBHOOK_SECRET\" }} }}\n"
        )
    };
    let verify = format!(
        "concurrency = \"finish\"\nverify = [{{ http = \"{url}\", every = \"1s\", within = \"5s\" }}]"
    );
    trigger("spaced", "gap = \"1s\"")
        + &trigger("verified", &verify)
        + &format!(
            "[[notify]]\nname = \"team\"\non = [\"succeeded\"]\nformat = \"slack\"\nurl = \"{url}\"\n"
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_fail_point_loses_nothing_and_repeats_nothing() {
    // The registry's own notifications go to a sink that is not read.
    let unused = Sink::start().await;
    let registry = Registry::start(unused.url(), "Bearer unused").await;
    let asked = registry.push(&TestImage::new("asked"), "shop/asked:t0");
    let host = registry.host().to_owned();
    let mut fleet = Fleet::start(REGISTRY).await;
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), REGISTRY, fleet.sink.url());
    let mut text = std::fs::read_to_string(&path).unwrap();
    text +=
        &format!("[[registry]]\nname = \"{host}\"\nurl = \"http://{host}\"\nreconcile = \"0s\"\n");
    text += &format!(
        "[[source]]\nname = \"asking\"\nkind = \"generic\"\nregistry = \"{host}\"\nsecret = {{ env = \"MAIN_HOOK_SECRET\" }}\n"
    );
    // A trigger with a policy, whose target is not read.
    text += &format!(
        "[[trigger]]\nname = \"newest\"\nsettle = \"0s\"\nimages.web = {{ repository = \"{REGISTRY}/shop/web\", newest = \"pushed\" }}\n\
         target.webhook = {{ url = \"{}\", secret = {{ env = \"SHOP_WEBHOOK_SECRET\" }} }}\n",
        unused.url()
    );
    text += &with_gates_and_results(unused.url());
    std::fs::write(&path, &text).unwrap();
    fleet.set("TAGTRAIL_CONFIG", path.to_str().unwrap());
    fleet.set("TAGTRAIL_CLAIM_INTERVAL_MS", "50");
    for service in ["gateway", "resolver", "indexer", "trigger"] {
        fleet.restart(service);
    }
    let mut sender = Sender {
        fleet,
        start: OffsetDateTime::now_utc() - Duration::hours(1),
        accepted: 0,
        config: path,
    };

    let mut questions = 0;
    // Two objects of a cluster: services/trigger/tests/it/kubernetes.rs crashes between them.
    let elsewhere = [FailPoint::TriggerPatched, FailPoint::TriggerCommitted];
    let here = |point: &&FailPoint| point.is_passed() && !elsewhere.contains(point);
    for point in FailPoint::ALL.iter().filter(here) {
        let service = service_of(*point);
        if *point == FailPoint::TriggerTakenOver {
            // A dead process must have left an attempt open.
            sender.restart_until(service, FailPoint::TriggerBegun);
            sender.crash(service, FailPoint::TriggerBegun).await;
        }
        sender.restart_until(service, *point);
        if service == "resolver" {
            questions += 1;
            let image = format!("shop/asked:t{questions}");
            assert_eq!(registry.push(&TestImage::new("asked"), &image), asked);
            sender.push_without_digest(questions).await;
        }
        if *point == FailPoint::IndexerStopped {
            // The indexer must hold partitions when it is stopped.
            sender.push().await;
            sender.is_recorded().await;
            sender.fleet.processes[service].signal("TERM");
        }
        sender.crash(service, *point).await;
        sender.fleet.restart(service);
    }
    // The push without a 2xx is repeated. Once accepted, all earlier pushes are stored.
    let last = sender.accepted + 1;
    eventually("the last push", SOON, async || {
        sender.push().await;
        (sender.accepted == last).then_some(())
    })
    .await;

    history_has_each_push_once(&sender).await;
    // Jobs of a crashed resolver are redelivered after `ack_wait`: two minutes, and in this test
    // five seconds.
    let unresolved = sender.fleet.nats.jetstream().await;
    let unresolved = unresolved.get_stream("UNRESOLVED").await.unwrap();
    let jobs = unresolved.get_consumer::<pull::Config>("resolver");
    let config = jobs.await.unwrap().cached_info().config.clone();
    let mut config = pull::Config::try_from_consumer_config(config).unwrap();
    config.ack_wait = std::time::Duration::from_secs(5);
    unresolved.update_consumer(config).await.unwrap();
    for n in 1..=questions {
        let path = format!("/v1/resolve?image={host}/shop/asked:t{n}");
        let found = eventually(&path, SOON, async || sender.get(&path).await).await;
        assert_eq!(
            (&found["digest"], &found["revision"]),
            (&json!(asked), &json!(1))
        );
    }
    revisions_are_published_once_in_order(&sender).await;
    rollouts_are_delivered_in_order(&sender).await;
}

async fn history_has_each_push_once(sender: &Sender) {
    let pushed: Vec<String> = (1..=sender.accepted).map(Sender::digest).collect();
    for image in IMAGES {
        let path = format!("/v1/history?image={REGISTRY}/{image}&limit=1000");
        let items = eventually(&format!("the history of {image}"), SOON, async || {
            let items = sender.get(&path).await?["items"].as_array()?.clone();
            (items.first()?["digest"] == pushed.last()?.as_str()).then_some(items)
        })
        .await;
        let digests: Vec<&str> = items
            .iter()
            .rev()
            .map(|item| item["digest"].as_str().unwrap())
            .collect();
        assert_eq!(digests, pushed, "{image}");
        let numbers: Vec<i64> = items
            .iter()
            .rev()
            .map(|item| item["revision"].as_i64().unwrap())
            .collect();
        assert_eq!(
            numbers,
            (1..=sender.accepted).collect::<Vec<_>>(),
            "{image}"
        );
    }
}

async fn revisions_are_published_once_in_order(sender: &Sender) {
    let last = u64::try_from(sender.accepted).unwrap();
    // The stream keeps the last hundred revisions of each tag.
    let wanted: Vec<u64> = (last.saturating_sub(99).max(1)..=last).collect();
    let published = eventually("all revisions to be published", SOON, async || {
        let mut published: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (subject, body) in sender.fleet.nats.messages("REVISIONS").await {
            if let Ok(event) = serde_json::from_slice::<Event<Revision>>(&body) {
                published
                    .entry(subject)
                    .or_default()
                    .push(event.data.revision);
            }
        }
        published.retain(|subject, _| !subject.contains("asked"));
        (published.len() == 2
            && published
                .values()
                .all(|numbers| numbers.len() >= wanted.len()))
        .then_some(published)
    })
    .await;
    for (subject, numbers) in published {
        assert_eq!(numbers, wanted, "{subject}");
    }
}

async fn rollouts_are_delivered_in_order(sender: &Sender) {
    let newest = Sender::digest(sender.accepted);
    let list = eventually("the last rollout", SOON, async || {
        let list = sender.get("/v1/rollouts?trigger=shop&limit=1000").await?["items"]
            .as_array()?
            .clone();
        let last = list.first()?;
        let images = last["images"].as_object()?;
        let reached = last["state"] == "succeeded"
            && images
                .values()
                .all(|image| image["digest"] == newest.as_str());
        reached.then_some(list)
    })
    .await;
    let recorded: BTreeMap<&str, &Value> = list
        .iter()
        .map(|rollout| (rollout["id"].as_str().unwrap(), rollout))
        .collect();
    let numbers: Vec<usize> = list
        .iter()
        .rev()
        .map(|rollout| usize::try_from(rollout["number"].as_u64().unwrap()).unwrap())
        .collect();
    assert_eq!(numbers, (1..=list.len()).collect::<Vec<_>>());
    // A rollout may be delivered twice with the same images, but never after a newer rollout.
    let mut before = 0;
    for delivery in sender.fleet.sink.deliveries() {
        let body = delivery.json();
        let rollout = recorded[delivery.header("webhook-id")];
        let mut images = rollout["images"].clone();
        for image in images.as_object_mut().unwrap().values_mut() {
            // The API adds these to the images as delivered.
            let image = image.as_object_mut().unwrap();
            image.retain(|name, _| !["actor", "previous"].contains(&name.as_str()));
        }
        assert_eq!(body["data"]["images"], images);
        let number = rollout["number"].as_u64().unwrap();
        assert!(number >= before, "{number} after {before}");
        before = number;
    }
    // ROLLOUTS has each change of state once.
    let wanted = list.len();
    let published = eventually("ROLLOUTS", SOON, async || {
        let mut published: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (subject, body) in sender.fleet.nats.messages("ROLLOUTS").await {
            if !subject.starts_with("tagtrail.rollout.") {
                continue;
            }
            let rollout = serde_json::from_slice::<Event<Rollout>>(&body)
                .unwrap()
                .data;
            if rollout.trigger == "shop" {
                published
                    .entry(rollout.id)
                    .or_default()
                    .push(rollout.state.as_str().to_owned());
            }
        }
        let ended = |states: &Vec<String>| {
            states
                .last()
                .is_some_and(|last| last == "succeeded" || last == "superseded")
        };
        (published.len() == wanted && published.values().all(ended)).then_some(published)
    })
    .await;
    for (id, states) in published {
        let right = [
            &["pending", "running", "succeeded"][..],
            &["pending", "superseded"],
            &["pending", "running", "superseded"],
        ];
        assert!(
            right.iter().any(|right| states == *right),
            "{id}: {states:?}"
        );
    }
}
