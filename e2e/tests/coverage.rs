//! Changes that a registry does not report: found by reconciling, and counted in the coverage
//! report.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Router, routing::post};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tagtrail_e2e::{Cli, HOOK_SECRET, Up, free_address, shared_folder, use_ring};
use tagtrail_testkit::{Registry, SOON, Sink, TestImage, eventually};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A proxy between a registry and the gateway. Drops some events, and answers the registry with
/// 200 for these.
struct LossyProxy {
    address: String,
    shared: Shared,
    _task: JoinSet<()>,
}

type Drops = Box<dyn FnMut(&Value) -> bool + Send>;

/// The state of the proxy's handler.
#[derive(Clone)]
struct Shared {
    gateway: String,
    client: reqwest::Client,
    /// Returns true for an event to drop.
    drops: Arc<Mutex<Drops>>,
    /// The requests with dropped events.
    dropped: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    /// The ids of all events dropped so far.
    dropped_ids: Arc<Mutex<HashSet<String>>>,
    /// Set while the proxy answers every request with 503.
    down: Arc<AtomicBool>,
    /// Set while the proxy forwards the reports of pulls.
    pulls: Arc<AtomicBool>,
}

impl LossyProxy {
    async fn start(gateway: &str) -> LossyProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared {
            gateway: format!("http://{gateway}/hooks/main"),
            client: reqwest::Client::new(),
            drops: Arc::new(Mutex::new(Box::new(|_| true))),
            dropped: Arc::default(),
            dropped_ids: Arc::default(),
            down: Arc::default(),
            pulls: Arc::default(),
        };
        let router = Router::new()
            .fallback(post(forward))
            .with_state(shared.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        LossyProxy {
            address,
            shared,
            _task: task,
        }
    }

    /// Drops the events for which `drops` returns true, from now on.
    fn drop_events(&self, drops: impl FnMut(&Value) -> bool + Send + 'static) {
        *self.shared.drops.lock().unwrap() = Box::new(drops);
    }

    /// Takes the dropped events, and delivers these if `deliver`. Returns the number of events.
    async fn take_dropped(&self, deliver: bool) -> usize {
        let dropped = std::mem::take(&mut *self.shared.dropped.lock().unwrap());
        let count = dropped.len();
        for (headers, body) in dropped.into_iter().filter(|_| deliver) {
            assert_eq!(self.shared.send(headers, body).await, StatusCode::ACCEPTED);
        }
        count
    }
}

async fn forward(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if shared.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let event: Value = serde_json::from_slice(&body).unwrap();
    let event = &event["events"][0];
    // Reconciling pulls each tag, and the registry reports each pull. These reports would delay the
    // events that the test waits for.
    if event["action"] == "pull" {
        return match shared.pulls.load(Ordering::SeqCst) {
            true => shared.send(headers, body).await,
            false => StatusCode::OK,
        };
    }
    let id = event["id"].as_str().unwrap().to_owned();
    // A registry that got the answer too late sends the event again. Then it is dropped again.
    if shared.dropped_ids.lock().unwrap().contains(&id) {
        return StatusCode::OK;
    }
    if shared.drops.lock().unwrap()(event) {
        shared.dropped_ids.lock().unwrap().insert(id);
        shared.dropped.lock().unwrap().push((headers, body));
        return StatusCode::OK;
    }
    shared.send(headers, body).await
}

impl Shared {
    async fn send(&self, headers: HeaderMap, body: Bytes) -> StatusCode {
        let request = self.client.post(&self.gateway).headers(headers).body(body);
        let answer = request.send().await;
        answer.map_or(StatusCode::SERVICE_UNAVAILABLE, |answer| answer.status())
    }
}

struct World {
    up: Up,
    registry: Registry,
    proxy: LossyProxy,
    sink: Sink,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> World {
        World::with("reconcile = \"2s\"\nwatch_triggers = \"0s\"").await
    }

    /// Starts everything with these settings of the registry.
    async fn with(settings: &str) -> World {
        use_ring();
        let folder = shared_folder();
        let (gateway, sink) = (free_address(), Sink::start().await);
        let proxy = LossyProxy::start(&gateway).await;
        let registry = Registry::start(&proxy.address, &format!("Bearer {HOOK_SECRET}")).await;
        // Pushed before Tagtrail runs.
        for tag in ["1", "2", "latest"] {
            let _ = registry.push(
                &TestImage::new(&format!("old {tag}")),
                &format!("old/app:{tag}"),
            );
        }
        let host = registry.host();
        let config = folder.path().join("tagtrail.toml");
        let text = format!(
            r#"
[[source]]
name = "main"
kind = "distribution"
registry = "{host}"
secret = {{ env = "MAIN_HOOK_SECRET" }}

[[registry]]
name = "{host}"
url = "http://{host}"
{settings}
watch = ["old/app", "no/such"]

# An unreachable registry must not delay the others.
[[registry]]
name = "gone.example.com"
url = "http://127.0.0.1:1"
reconcile = "1s"
watch = ["shop/web"]

[[trigger]]
name = "old"
settle = "0s"
images.app = "{host}/old/app:latest"
target.webhook = {{ url = "{}", secret = {{ env = "SHOP_WEBHOOK_SECRET" }} }}
"#,
            sink.url()
        );
        std::fs::write(&config, text).unwrap();
        let up = Up::start_at(&folder.path().join("data"), &config, &gateway).await;
        proxy.drop_events(|_| false);
        World {
            up,
            registry,
            proxy,
            sink,
            _folder: folder,
        }
    }

    fn cli(&self) -> Cli {
        self.up.cli()
    }

    /// The item of the coverage report about the source `main`.
    fn coverage(&self) -> Option<Value> {
        let coverage = self.cli().json(&["coverage"]);
        let items = coverage["items"].as_array().unwrap();
        let of =
            |item: &&Value| item["registry"] == self.registry.host() && item["source"] == "main";
        items.iter().find(of).cloned()
    }

    /// Waits until the report has these numbers of changes for the source `main`.
    async fn changes(&self, expected: Value) {
        let mut last = None;
        let waiting = eventually("the coverage report", SOON, async || {
            last = self.coverage();
            (last.as_ref()?["changes"] == expected).then_some(())
        });
        if tokio::time::timeout(SOON, waiting).await.is_err() {
            panic!("expected {expected}, the report has {last:?}");
        }
    }

    /// Waits until this revision is the newest of an image. Returns the origin.
    async fn origin(&self, image: &str, revision: u64) -> String {
        let history = eventually(
            &format!("revision {revision} of {image}"),
            SOON,
            async || {
                let output = self.cli().run(&["history", image, "--output", "json"]);
                let history: Value = serde_json::from_str(&output.out).ok()?;
                (history["items"][0]["revision"] == revision).then_some(history)
            },
        )
        .await;
        history["items"][0]["origin"].as_str().unwrap().to_owned()
    }
}

/// Returns the numbers of changes of the report, if there are no others.
fn changes(event: u64, reconciled: u64) -> Value {
    json!({ "event": event, "resolved": 0, "observed": 0, "reconciled": reconciled, "reordered": 0, "imported": 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coverage_report_counts_each_lost_event() {
    let world = World::start().await;
    let host = world.registry.host().to_owned();

    // Images that were there before are imported, without a rollout.
    for tag in ["1", "2", "latest"] {
        assert_eq!(
            world.origin(&format!("{host}/old/app:{tag}"), 1).await,
            "imported"
        );
    }

    // Twenty repositories that are in history and have been reconciled.
    for number in 0..20 {
        let _ = world.registry.push(
            &TestImage::new(&format!("first {number}")),
            &format!("shop/app{number}:v1"),
        );
    }
    world.changes(changes(20, 0)).await;
    let mut db = sqlx::PgConnection::connect(world.up.address("postgres"))
        .await
        .unwrap();
    eventually("all repositories to be reconciled", SOON, async || {
        let sql = "select count(*) from reconcile where repository like 'shop/%'";
        let reconciled: i64 = sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap();
        (reconciled == 20).then_some(())
    })
    .await;

    // Each tag moves twice, and each repository gets a new tag; each time, an event is dropped. Two
    // dropped changes of the same tag look like a single change, so a tag with a dropped event does
    // not move again. Nor did it move shortly before: after two moves within minutes the resolver
    // asks about their order, and may find the dropped change first.
    let push = |content: String, name: String| {
        let _ = world.registry.push(&TestImage::new(&content), &name);
    };
    world.proxy.take_dropped(false).await;
    world
        .proxy
        .drop_events(|event| event["target"]["repository"] == "shop/app3");
    let others = (0..20).filter(|number| *number != 7);
    others.for_each(|number| push(format!("second {number}"), format!("shop/app{number}:v1")));
    world
        .proxy
        .drop_events(|event| event["target"]["repository"] == "shop/app7");
    let others = (0..20).filter(|number| *number != 3);
    others.for_each(|number| push(format!("third {number}"), format!("shop/app{number}:v1")));
    world
        .proxy
        .drop_events(|event| event["target"]["repository"] == "shop/app11");
    (0..20).for_each(|number| push(format!("new {number}"), format!("shop/app{number}:v2")));
    world.proxy.drop_events(|_| false);
    world.changes(changes(20 + 55, 3)).await;
    let share = world.coverage().unwrap()["lost_share"].as_f64().unwrap();
    assert!((share - 3.0 / 78.0).abs() < 1e-9, "{share}");
    for (image, revision) in [("app3:v1", 2), ("app7:v1", 2), ("app11:v2", 1)] {
        assert_eq!(
            world
                .origin(&format!("{host}/shop/{image}"), revision)
                .await,
            "reconciled"
        );
    }

    // The dropped events arrive late, with the time of their push: no change is counted twice, and
    // none as lost.
    assert!(world.proxy.take_dropped(true).await >= 3);
    world.changes(changes(78, 0)).await;

    // A delete whose event is dropped, and a delete whose event arrives.
    world.proxy.drop_events(|event| event["action"] == "delete");
    world.registry.delete("shop/app0:v2");
    world.changes(changes(78, 1)).await;
    world.proxy.drop_events(|_| false);
    world.registry.delete("shop/app1:v2");
    world.changes(changes(79, 1)).await;

    // Imported images start no rollout. A move found by reconciling does.
    assert_eq!(world.sink.deliveries().len(), 0);
    world.proxy.drop_events(|_| true);
    let moved = world
        .registry
        .push(&TestImage::new("moved without event"), "old/app:latest");
    let delivered = world.sink.wait(1).await.remove(0).json();
    assert_eq!(delivered["data"]["images"]["app"]["digest"], json!(moved));

    // The table has the counts of the API.
    let table = world.cli().run(&["coverage"]).out;
    assert!(
        table.contains("reconciled ") && table.contains(" %"),
        "{table}"
    );
    let later = world
        .cli()
        .json(&["coverage", "--since", "2999-01-01T00:00:00Z"]);
    assert!(
        later["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|item| item["source"].is_null()),
        "{later}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_registry_loses_in_a_restart_are_found() {
    let mut world = World::start().await;
    let host = world.registry.host().to_owned();
    let push = |world: &World, content: &str| {
        world
            .registry
            .push(&TestImage::new(content), "shop/web:latest")
    };
    let _ = push(&world, "one");
    world.changes(changes(1, 0)).await;
    // The registry queues the event in memory, and loses the queue in the restart.
    world.proxy.shared.down.store(true, Ordering::SeqCst);
    let second = push(&world, "two");
    world.registry.restart().await;
    world.proxy.shared.down.store(false, Ordering::SeqCst);
    world.changes(changes(1, 1)).await;
    let image = format!("{host}/shop/web:latest");
    assert_eq!(
        world.cli().json(&["resolve", &image])["digest"],
        json!(second)
    );
    // Events after the restart arrive again.
    let _ = push(&world, "three");
    world.changes(changes(2, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_push_is_found_when_the_image_is_pulled() {
    let world = World::with("reconcile = \"1h\"\nwatch_triggers = \"0s\"").await;
    let host = world.registry.host().to_owned();
    let image = format!("{host}/shop/web:latest");
    let push = |content: &str| {
        world
            .registry
            .push(&TestImage::new(content), "shop/web:latest")
    };
    world.proxy.shared.pulls.store(true, Ordering::SeqCst);
    let _ = push("one");
    world.changes(changes(1, 0)).await;
    // A pull of the reported digest asks nothing, and the lost push is unknown until its pull.
    let _ = world.registry.inspect("shop/web:latest");
    world.proxy.drop_events(|_| true);
    let second = push("two");
    let began = std::time::Instant::now();
    assert_eq!(world.registry.inspect("shop/web:latest"), second);
    assert_eq!(world.origin(&image, 2).await, "resolved");
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(15), "{took:?}");
    let resolved = world.cli().json(&["resolve", &image]);
    assert_eq!(resolved["digest"], json!(second));
    world
        .changes(json!({ "event": 1, "resolved": 0, "observed": 1, "reconciled": 0, "reordered": 0, "imported": 0 }))
        .await;
    // Many pulls later, also by Tagtrail itself, history is as before.
    for _ in 0..5 {
        let _ = world.registry.inspect("shop/web:latest");
    }
    let history = world.cli().json(&["history", &image]);
    assert_eq!(history["items"].as_array().unwrap().len(), 2, "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_push_of_an_image_of_a_trigger_is_rolled_out_within_the_interval() {
    let world = World::with("reconcile = \"1h\"\nwatch_triggers = \"12s\"").await;
    let host = world.registry.host().to_owned();
    let image = format!("{host}/old/app:latest");
    assert_eq!(world.origin(&image, 1).await, "imported");
    world.proxy.drop_events(|_| true);
    let began = std::time::Instant::now();
    let moved = world
        .registry
        .push(&TestImage::new("moved without event"), "old/app:latest");
    let delivered = world.sink.wait(1).await.remove(0).json();
    let took = began.elapsed();
    assert_eq!(delivered["data"]["images"]["app"]["digest"], json!(moved));
    assert!(took < std::time::Duration::from_secs(16), "{took:?}");
    assert_eq!(world.origin(&image, 2).await, "reconciled");
}
