//! What a registry does not tell: found by comparing, and counted right.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Router, routing::post};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tagtrail_e2e::{Cli, HOOK_SECRET, Up, free_address, use_ring};
use tagtrail_testkit::{Registry, SOON, Sink, TestImage, eventually};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Between a registry and the gateway: swallows some events, and tells the registry that they arrived.
struct Lossy {
    address: String,
    /// Whether an event is swallowed.
    swallows: Arc<Mutex<Swallows>>,
    /// What was swallowed.
    swallowed: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    /// Whether nothing is taken, and the registry told so.
    down: Arc<AtomicBool>,
    way: Way,
    _task: JoinSet<()>,
}

type Swallows = Box<dyn FnMut(&Value) -> bool + Send>;

#[derive(Clone)]
struct Way {
    to: String,
    client: reqwest::Client,
    swallowed: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    /// Identifiers of what was swallowed.
    gone: Arc<Mutex<HashSet<String>>>,
    down: Arc<AtomicBool>,
    swallows: Arc<Mutex<Swallows>>,
}

impl Lossy {
    async fn start(gateway: &str) -> Lossy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let swallows: Arc<Mutex<Swallows>> = Arc::new(Mutex::new(Box::new(|_| true)));
        let down = Arc::new(AtomicBool::new(false));
        let swallowed = Arc::default();
        let way = Way {
            swallowed: Arc::clone(&swallowed),
            gone: Arc::default(),
            down: Arc::clone(&down),
            to: format!("http://{gateway}/hooks/main"),
            client: reqwest::Client::new(),
            swallows: Arc::clone(&swallows),
        };
        let router = Router::new()
            .fallback(post(pass_on))
            .with_state(way.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Lossy {
            address,
            swallows,
            swallowed,
            down,
            way,
            _task: task,
        }
    }

    fn swallow(&self, which: impl FnMut(&Value) -> bool + Send + 'static) {
        *self.swallows.lock().unwrap() = Box::new(which);
    }

    /// Delivers after all what was swallowed since this was called last, or forgets it.
    async fn deliver(&self, whether: bool) -> usize {
        let swallowed = std::mem::take(&mut *self.swallowed.lock().unwrap());
        let count = swallowed.len();
        for (headers, body) in swallowed.into_iter().filter(|_| whether) {
            assert_eq!(self.way.send(headers, body).await, StatusCode::ACCEPTED);
        }
        count
    }
}

async fn pass_on(State(way): State<Way>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if way.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let event: Value = serde_json::from_slice(&body).unwrap();
    let event = &event["events"][0];
    // Comparing pulls each tag, which the registry tells too, one after the other: what the test waits for would wait behind it.
    if event["action"] == "pull" {
        return StatusCode::OK;
    }
    let id = event["id"].as_str().unwrap().to_owned();
    // A registry that did not hear the answer in time sends again, perhaps only when others pass.
    if way.gone.lock().unwrap().contains(&id) {
        return StatusCode::OK;
    }
    if way.swallows.lock().unwrap()(event) {
        way.gone.lock().unwrap().insert(id);
        way.swallowed.lock().unwrap().push((headers, body));
        return StatusCode::OK;
    }
    way.send(headers, body).await
}

impl Way {
    async fn send(&self, headers: HeaderMap, body: Bytes) -> StatusCode {
        let request = self.client.post(&self.to).headers(headers).body(body);
        let answer = request.send().await;
        answer.map_or(StatusCode::SERVICE_UNAVAILABLE, |answer| answer.status())
    }
}

struct World {
    up: Up,
    registry: Registry,
    lossy: Lossy,
    sink: Sink,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> World {
        use_ring();
        let folder = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir()
            .unwrap();
        let (gateway, sink) = (free_address(), Sink::start().await);
        let lossy = Lossy::start(&gateway).await;
        let registry = Registry::start(&lossy.address, &format!("Bearer {HOOK_SECRET}")).await;
        // There before anybody looks.
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
reconcile = "2s"
watch = ["old/app", "no/such"]

# One that nobody can reach holds up no other.
[[registry]]
name = "gone.example.com"
url = "http://127.0.0.1:1"
reconcile = "1s"
watch = ["shop/web"]

[[trigger]]
name = "old"
images.app = "{host}/old/app:latest"
target.webhook = {{ url = "{}", secret = {{ env = "SHOP_WEBHOOK_SECRET" }} }}
"#,
            sink.url()
        );
        std::fs::write(&config, text).unwrap();
        let up = Up::start_at(&folder.path().join("data"), &config, &gateway).await;
        lossy.swallow(|_| false);
        World {
            up,
            registry,
            lossy,
            sink,
            _folder: folder,
        }
    }

    fn cli(&self) -> Cli {
        self.up.cli()
    }

    /// What is said of the source `main`.
    fn coverage(&self) -> Option<Value> {
        let coverage = self.cli().json(&["coverage"]);
        let items = coverage["items"].as_array().unwrap();
        let of =
            |item: &&Value| item["registry"] == self.registry.host() && item["source"] == "main";
        items.iter().find(of).cloned()
    }

    async fn changes(&self, expected: Value) {
        let mut last = None;
        let waiting = eventually("the coverage report", SOON, async || {
            last = self.coverage();
            (last.as_ref()?["changes"] == expected).then_some(())
        });
        if tokio::time::timeout(SOON, waiting).await.is_err() {
            panic!("{expected} was expected, the report says {last:?}");
        }
    }

    async fn origin(&self, image: &str, revision: u64) -> String {
        let history = eventually(
            &format!("revision {revision} of {image}"),
            SOON,
            async || {
                let said = self.cli().run(&["history", image, "--output", "json"]);
                let history: Value = serde_json::from_str(&said.out).ok()?;
                (history["items"][0]["revision"] == revision).then_some(history)
            },
        )
        .await;
        history["items"][0]["origin"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_webhook_in_twenty_is_lost_and_the_report_is_right_to_the_event() {
    let world = World::start().await;
    let host = world.registry.host().to_owned();

    // What was there is history, and no reason to roll out.
    for tag in ["1", "2", "latest"] {
        assert_eq!(
            world.origin(&format!("{host}/old/app:{tag}"), 1).await,
            "imported"
        );
    }

    // Twenty repositories that are known, and walked.
    for number in 0..20 {
        let _ = world.registry.push(
            &TestImage::new(&format!("first {number}")),
            &format!("shop/app{number}:v1"),
        );
    }
    world
        .changes(json!({"event": 20, "resolved": 0, "reconciled": 0, "imported": 0}))
        .await;
    let mut db = sqlx::PgConnection::connect(world.up.address("postgres"))
        .await
        .unwrap();
    eventually("all repositories to be walked", SOON, async || {
        let walked = "select count(*) from walk where repository like 'shop/%'";
        let walked: i64 = sqlx::query_scalar(walked).fetch_one(&mut db).await.unwrap();
        (walked == 20).then_some(())
    })
    .await;

    // Tags that move twice, and new ones; one of each twenty is not told of. What is lost twice in a row can't be seen twice, so
    // whatever is lost moves no more.
    let push = |content: String, name: String| {
        let _ = world.registry.push(&TestImage::new(&content), &name);
    };
    world.lossy.deliver(false).await;
    world
        .lossy
        .swallow(|event| event["target"]["repository"] == "shop/app3");
    (0..20).for_each(|number| push(format!("second {number}"), format!("shop/app{number}:v1")));
    world
        .lossy
        .swallow(|event| event["target"]["repository"] == "shop/app7");
    let others = (0..20).filter(|number| *number != 3);
    others.for_each(|number| push(format!("third {number}"), format!("shop/app{number}:v1")));
    world
        .lossy
        .swallow(|event| event["target"]["repository"] == "shop/app11");
    (0..20).for_each(|number| push(format!("new {number}"), format!("shop/app{number}:v2")));
    world.lossy.swallow(|_| false);
    world
        .changes(json!({"event": 20 + 56, "resolved": 0, "reconciled": 3, "imported": 0}))
        .await;
    let share = world.coverage().unwrap()["lost_share"].as_f64().unwrap();
    assert!((share - 3.0 / 79.0).abs() < 1e-9, "{share}");
    for (image, revision) in [("app3:v1", 2), ("app7:v1", 3), ("app11:v2", 1)] {
        assert_eq!(
            world
                .origin(&format!("{host}/shop/{image}"), revision)
                .await,
            "reconciled"
        );
    }

    // They come after all, with the time at which they happened: no change is counted twice, and none as lost.
    assert!(world.lossy.deliver(true).await >= 3);
    world
        .changes(json!({"event": 79, "resolved": 0, "reconciled": 0, "imported": 0}))
        .await;

    // A delete that nobody told, and one that was told.
    world.lossy.swallow(|event| event["action"] == "delete");
    world.registry.delete("shop/app0:v2");
    world
        .changes(json!({"event": 79, "resolved": 0, "reconciled": 1, "imported": 0}))
        .await;
    world.lossy.swallow(|_| false);
    world.registry.delete("shop/app1:v2");
    world
        .changes(json!({"event": 80, "resolved": 0, "reconciled": 1, "imported": 0}))
        .await;

    // What was imported rolls nothing out; what is found moved, does.
    assert_eq!(world.sink.deliveries().len(), 0);
    world.lossy.swallow(|_| true);
    let moved = world
        .registry
        .push(&TestImage::new("moved unheard"), "old/app:latest");
    let told = world.sink.wait(1).await.remove(0).json();
    assert_eq!(told["data"]["images"]["app"]["digest"], json!(moved));

    // The table for people.
    let said = world.cli().run(&["coverage"]);
    assert!(
        said.out.contains("ONLY BY COMPARING") && said.out.contains(" %"),
        "{}",
        said.out
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
async fn what_a_registry_forgets_when_it_is_restarted_is_found() {
    let mut world = World::start().await;
    let host = world.registry.host().to_owned();
    let push = |world: &World, content: &str| {
        world
            .registry
            .push(&TestImage::new(content), "shop/web:latest")
    };
    let _ = push(&world, "one");
    world
        .changes(json!({"event": 1, "resolved": 0, "reconciled": 0, "imported": 0}))
        .await;
    // Its queue fills, in memory, and is lost.
    world.lossy.down.store(true, Ordering::SeqCst);
    let second = push(&world, "two");
    world.registry.restart().await;
    world.lossy.down.store(false, Ordering::SeqCst);
    world
        .changes(json!({"event": 1, "resolved": 0, "reconciled": 1, "imported": 0}))
        .await;
    let image = format!("{host}/shop/web:latest");
    assert_eq!(
        world.cli().json(&["resolve", &image])["digest"],
        json!(second)
    );
    // What comes after is told again.
    let _ = push(&world, "three");
    world
        .changes(json!({"event": 2, "resolved": 0, "reconciled": 1, "imported": 0}))
        .await;
}
