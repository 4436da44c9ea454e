//! Reconciling: the number of requests, and registries that misbehave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sqlx::PgConnection;
use tagtrail_proto::{Action, Digest, Origin};
use tagtrail_testkit::{SOON, TestDb, TestNats, eventually, postgres};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{Resolver, answers, registry, wait_answers};

const NAME: &str = "registry.example.com";

/// A registry with many tags, which counts its requests.
#[derive(Clone, Default)]
struct Tags(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// The digests, by repository and name.
    tags: BTreeMap<String, BTreeMap<String, Digest>>,
    lists: usize,
    heads: usize,
    not_modified: usize,
    /// Tags in a page.
    page: usize,
    /// The repository whose lists fail.
    broken: Option<String>,
    /// Answers conditional requests with 304 Not Modified.
    conditional: bool,
}

impl Tags {
    async fn start(&self, tasks: &mut JoinSet<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(self.clone());
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

async fn answer(
    State(Tags(inner)): State<Tags>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Response {
    let mut inner = inner.lock().unwrap();
    let path = request.uri().path().to_owned();
    let Some(path) = path.strip_prefix("/v2/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let unknown = |code: &str| {
        let body = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
        (StatusCode::NOT_FOUND, body).into_response()
    };
    if let Some(repository) = path.strip_suffix("/tags/list") {
        inner.lists += 1;
        if inner.broken.as_deref() == Some(repository) {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let size = inner.page;
        let Some(tags) = inner.tags.get(repository) else {
            return unknown("NAME_UNKNOWN");
        };
        let last = query.get("last").cloned().unwrap_or_default();
        let page: Vec<&String> = tags.keys().filter(|tag| **tag > last).take(size).collect();
        let body = serde_json::json!({"name": repository, "tags": page}).to_string();
        return match page.last() {
            Some(last) if page.len() == size => {
                let link =
                    format!("</v2/{repository}/tags/list?last={last}&n={size}>; rel=\"next\"");
                ([("link", link)], body).into_response()
            }
            _ => body.into_response(),
        };
    }
    let Some((repository, tag)) = path.split_once("/manifests/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if request.method() == Method::HEAD {
        inner.heads += 1;
    }
    let Some(digest) = inner
        .tags
        .get(repository)
        .and_then(|tags| tags.get(tag))
        .cloned()
    else {
        return unknown("MANIFEST_UNKNOWN");
    };
    let etag = format!("\"{digest}\"");
    let same = headers
        .get("if-none-match")
        .is_some_and(|known| *known == *etag);
    if inner.conditional && same {
        inner.not_modified += 1;
        return (StatusCode::NOT_MODIFIED, [("etag", etag)]).into_response();
    }
    [("docker-content-digest", digest.to_string())].into_response()
}

fn digest(text: &str) -> Digest {
    Digest::sha256_of(text.as_bytes())
}

/// Writes the part of history that reconciling reads.
async fn record(db: &mut PgConnection, repository: &str, tags: &BTreeMap<String, Digest>) {
    let id: i64 =
        sqlx::query_scalar("insert into repository (registry, name) values ($1, $2) returning id")
            .bind(NAME)
            .bind(repository)
            .fetch_one(&mut *db)
            .await
            .unwrap();
    sqlx::query(
        "insert into tag (repository_id, name, issued, head, head_digest, head_at, latest_at)
         select $1, name, 1, 1, digest, now(), now() from unnest($2::text[], $3::bytea[]) as t (name, digest)",
    )
    .bind(id)
    .bind(tags.keys().collect::<Vec<_>>())
    .bind(tags.values().map(Digest::as_bytes).collect::<Vec<_>>())
    .execute(db)
    .await
    .unwrap();
}

struct World {
    nats: TestNats,
    db: TestDb,
    tags: Tags,
    url: String,
    _tasks: JoinSet<()>,
}

impl World {
    async fn new() -> World {
        let tags = Tags::default();
        tags.change(|inner| {
            inner.page = 1000;
            inner.conditional = true;
        });
        let mut tasks = JoinSet::new();
        let url = tags.start(&mut tasks).await;
        World {
            nats: TestNats::start().await,
            db: postgres().await,
            tags,
            url,
            _tasks: tasks,
        }
    }

    async fn resolver(&self, settings: &str) -> Resolver {
        let file = format!("{}{settings}\n", registry(NAME, &self.url));
        Resolver::with_database(&self.nats, &file, self.db.url()).await
    }

    /// Waits until this number of repositories is reconciled.
    async fn reconciled(&self, count: i64) {
        let mut db = self.db.connect().await;
        eventually("the registry to be reconciled", SOON, async || {
            let reconciled: i64 = sqlx::query_scalar("select count(*) from reconcile")
                .fetch_one(&mut db)
                .await
                .unwrap();
            (reconciled == count).then_some(())
        })
        .await;
    }
}

/// Returns the resident memory of this process in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_unchanged_tags_cost_a_list_and_a_bounded_number_of_requests() {
    let world = World::new().await;
    let tags: BTreeMap<String, Digest> = (0..10_000)
        .map(|number| (format!("v{number:05}"), digest(&number.to_string())))
        .collect();
    record(&mut world.db.connect().await, "shop/web", &tags).await;
    world
        .tags
        .change(|inner| inner.tags.insert("shop/web".to_owned(), tags));
    let before = resident();
    // The first pass ends long before the second begins.
    let resolver = world.resolver("reconcile = \"20s\"").await;
    world.reconciled(1).await;
    let (lists, heads, not_modified) = world
        .tags
        .change(|inner| (inner.lists, inner.heads, inner.not_modified));
    assert_eq!(lists, 11, "ten pages, and an empty one at the end");
    // Each pass checks about a tenth of the tags, by the hash of their names.
    assert!((850..1150).contains(&heads), "{heads}");
    assert_eq!(heads, not_modified, "all requests are conditional");
    assert!(answers(&world.nats).await.is_empty());
    let grown = resident().saturating_sub(before);
    assert!(grown < 40, "{grown} MiB");
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_published_and_tags_of_new_repositories_are_imported() {
    let world = World::new().await;
    let known: BTreeMap<String, Digest> = ["same", "moved", "gone"]
        .map(|name| (name.to_owned(), digest(name)))
        .into();
    record(&mut world.db.connect().await, "shop/web", &known).await;
    world.tags.change(|inner| {
        inner.page = 2;
        inner.conditional = false;
        let now = [("same", "same"), ("moved", "elsewhere"), ("new", "new")];
        let now = now.map(|(name, content)| (name.to_owned(), digest(content)));
        inner.tags.insert("shop/web".to_owned(), now.into());
        inner.tags.insert(
            "shop/new".to_owned(),
            [("v1".to_owned(), digest("v1"))].into(),
        );
    });
    let resolver = world
        .resolver("reconcile = \"1s\"\nwatch = [\"shop/new\", \"no/such\"]")
        .await;
    let pushes = wait_answers(&world.nats, 4).await;
    let mut pushes: Vec<(String, Action, Origin, Option<Digest>)> = pushes
        .into_iter()
        .map(|push| {
            let image = push.image().unwrap();
            (
                format!("{}:{}", image.repository, image.tag),
                push.action,
                push.origin,
                push.digest,
            )
        })
        .collect();
    pushes.sort_by(|one, other| one.0.cmp(&other.0));
    pushes.dedup(); // Without an indexer each pass finds the same differences.
    pushes.truncate(4);
    assert_eq!(
        pushes,
        [
            (
                "shop/new:v1".to_owned(),
                Action::Push,
                Origin::Imported,
                Some(digest("v1"))
            ),
            (
                "shop/web:gone".to_owned(),
                Action::Delete,
                Origin::Reconciled,
                None
            ),
            (
                "shop/web:moved".to_owned(),
                Action::Push,
                Origin::Reconciled,
                Some(digest("elsewhere"))
            ),
            (
                "shop/web:new".to_owned(),
                Action::Push,
                Origin::Imported,
                Some(digest("new"))
            ),
        ]
    );
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_can_not_be_read_deletes_nothing_and_delays_no_other_repository() {
    let world = World::new().await;
    let known: BTreeMap<String, Digest> = [("v1".to_owned(), digest("v1"))].into();
    let mut db = world.db.connect().await;
    record(&mut db, "a/broken", &known).await;
    record(&mut db, "b/fine", &known).await;
    world.tags.change(|inner| {
        inner.broken = Some("a/broken".to_owned());
        inner.tags.insert(
            "b/fine".to_owned(),
            [("v1".to_owned(), digest("moved"))].into(),
        );
    });
    let resolver = world.resolver("reconcile = \"1s\"").await;
    let pushes = wait_answers(&world.nats, 1).await;
    assert!(
        pushes
            .iter()
            .all(|push| push.repository.as_ref() == "b/fine"),
        "{pushes:?}"
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    let reconciled: Vec<String> = sqlx::query_scalar("select repository from reconcile")
        .fetch_all(&mut db)
        .await
        .unwrap();
    assert_eq!(reconciled, ["b/fine"]);
    resolver.stop().await;
}
