//! Senders whose clocks are wrong by up to a minute, and a registry that can be asked. After the
//! storm each head must have the digest of the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::events::{Expected, Key, Request, request};
use crate::senders::{SendCounts, deliver};

/// The source of these senders, and the registry.
pub(crate) const SKEWED: (&str, &str) = ("three", "three.example.com");
const REPOSITORY: &str = "clock/app";
const TAGS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Errors of the senders' clocks, in milliseconds.
const OFFSETS: [i64; 6] = [-60_000, -8_000, -700, 0, 9_000, 59_000];

/// A registry that answers with the present digests of its tags.
#[derive(Debug, Clone, Default)]
pub(crate) struct AskedRegistry {
    tags: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

impl AskedRegistry {
    /// Serves the registry until the end of the test. Returns it with its URL.
    pub(crate) async fn start() -> (AskedRegistry, String) {
        let registry = AskedRegistry::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new()
            .route(
                "/v2/clock/app/manifests/{reference}",
                axum::routing::get(manifest),
            )
            .with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (registry, url)
    }

    fn set(&self, tag: &str, digest: Option<String>) {
        self.tags.lock().unwrap().insert(tag.to_owned(), digest);
    }

    /// The tags that were ever pushed, with their digests; `None`: deleted.
    pub(crate) fn tags(&self) -> BTreeMap<String, Option<String>> {
        self.tags.lock().unwrap().clone()
    }
}

async fn manifest(
    State(registry): State<AskedRegistry>,
    Path(reference): Path<String>,
) -> Response {
    let digest = registry.tags().remove(&reference).flatten();
    match digest {
        Some(digest) => [
            ("docker-content-digest", digest),
            (
                "content-type",
                "application/vnd.oci.image.manifest.v1+json".to_owned(),
            ),
        ]
        .into_response(),
        None => {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#;
            let kind = [("content-type", "application/json")];
            (StatusCode::NOT_FOUND, kind, body).into_response()
        }
    }
}

/// Changes tags at the registry, and reports each change by the clock of a random sender, until
/// `end`. As after a time-out, some reports come seconds after their change. Returns the pushes.
pub(crate) async fn send(
    registry: &AskedRegistry,
    seed: u64,
    gateways: Vec<String>,
    end: Instant,
) -> BTreeSet<Key> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x000c_10c4);
    let (counts, mut pushes) = (Arc::new(SendCounts::default()), BTreeSet::new());
    let mut had: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut reports, turn) = (JoinSet::new(), Arc::new(AsyncMutex::new(0)));
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(3))
        .build()
        .unwrap();
    for n in 0.. {
        if Instant::now() >= end {
            break;
        }
        let tag = *TAGS.choose(&mut random).unwrap();
        let request = change(registry, &mut random, &mut had, tag, n);
        if let Expected::Recorded(key) = &request.expected {
            pushes.insert(key.clone());
        }
        let late = Duration::from_millis(if random.random_bool(0.2) {
            random.random_range(0..6000)
        } else {
            0
        });
        let (client, gateways, turn, counts) = (
            client.clone(),
            gateways.clone(),
            Arc::clone(&turn),
            Arc::clone(&counts),
        );
        reports.spawn(async move {
            sleep(late).await;
            let mut turn_of = {
                let mut turn = turn.lock().await;
                *turn += 1;
                *turn
            };
            deliver(&client, &gateways, &mut turn_of, &request, &counts).await;
        });
        // Mostly apart, sometimes at one moment.
        if !random.random_bool(0.3) {
            sleep(Duration::from_millis(random.random_range(20..800))).await;
        }
    }
    while let Some(done) = reports.join_next().await {
        done.unwrap();
    }
    pushes
}

/// Changes a tag at the registry, and makes the report of the change.
fn change<'a>(
    registry: &AskedRegistry,
    random: &mut StdRng,
    had: &mut BTreeMap<&'a str, u64>,
    tag: &'a str,
    n: u64,
) -> Request {
    let offset = time::Duration::milliseconds(*OFFSETS.choose(random).unwrap());
    let at = OffsetDateTime::now_utc() + offset;
    let at = at.replace_nanosecond(at.microsecond() * 1000).unwrap();
    let delete = random.random_bool(0.2);
    let (digest, named) = match had.get(tag) {
        // Some deletes name the digest that they remove.
        Some(had) if delete => (None, random.random_bool(0.5).then(|| digest(*had))),
        _ => {
            let number = random.random_range(0..5);
            had.insert(tag, number);
            (Some(digest(number)), Some(digest(number)))
        }
    };
    let delete = digest.is_none();
    registry.set(tag, digest);
    let (source, name) = SKEWED;
    request(
        source,
        name,
        REPOSITORY,
        Some(tag),
        named,
        delete,
        at,
        &format!("skewed/{n}"),
    )
}

fn digest(n: u64) -> String {
    crate::events::digest(REPOSITORY, n)
}
