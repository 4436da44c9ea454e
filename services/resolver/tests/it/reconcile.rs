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
use tagtrail_testkit::{SOON, TestDb, TestNats, eventually, postgres, resident};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{Resolver, answers, registry, wait_answers};

pub(crate) const NAME: &str = "registry.example.com";

/// Held by tests with thousands of tags, because one of them measures the memory of this process.
static HEAVY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A registry with many tags, which counts its requests.
#[derive(Clone, Default)]
pub(crate) struct Tags(Arc<Mutex<Inner>>);

#[derive(Default)]
pub(crate) struct Inner {
    /// The digests, by repository and name.
    pub(crate) tags: BTreeMap<String, BTreeMap<String, Digest>>,
    /// The tag after which each requested page begins, empty for the first page.
    lists: Vec<String>,
    pub(crate) heads: usize,
    not_modified: usize,
    /// Tags in a page.
    page: usize,
    /// The repository whose lists fail.
    broken: Option<String>,
    /// Answers conditional requests with 304 Not Modified.
    conditional: bool,
    /// The names of next pages.
    pages: Pages,
    /// Tags deleted as soon as the page that ends with them is sent.
    deleted_after_page: bool,
    /// Time that each answer takes.
    delay: Duration,
}

/// How a registry names the next page.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Pages {
    /// By a link; an unknown `last` goes on in lexical order, as in distribution.
    #[default]
    Link,
    /// By a link; an unknown `last` is refused with 404 and no body, as in zot.
    KnownLink,
    /// By a link whose cursor is no tag, and refused.
    BrokenCursor,
    /// Without a link, as in `crane registry serve`.
    NoLink,
    /// Without a link, and `last` is ignored.
    IgnoresLast,
    /// Without a link, and `last` is refused.
    RefusesLast,
}

impl Tags {
    async fn start(&self, tasks: &mut JoinSet<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(self.clone());
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

async fn answer(
    State(Tags(inner)): State<Tags>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Response {
    let delay = inner.lock().unwrap().delay;
    tokio::time::sleep(delay).await;
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
        let last = query.get("last").cloned().unwrap_or_default();
        inner.lists.push(last.clone());
        if inner.broken.as_deref() == Some(repository) {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        // As Pulp does.
        if headers
            .get("accept")
            .is_none_or(|accept| accept != "application/json")
        {
            return StatusCode::NOT_ACCEPTABLE.into_response();
        }
        let (size, pages) = (inner.page, inner.pages);
        let deleted_after_page = inner.deleted_after_page;
        let Some(tags) = inner.tags.get_mut(repository) else {
            return unknown("NAME_UNKNOWN");
        };
        let refused = match pages {
            Pages::KnownLink => !last.is_empty() && !tags.contains_key(&last),
            Pages::BrokenCursor => query.contains_key("cursor"),
            Pages::RefusesLast => !last.is_empty(),
            Pages::Link | Pages::NoLink | Pages::IgnoresLast => false,
        };
        if refused {
            return StatusCode::NOT_FOUND.into_response();
        }
        let begins = |tag: &String| pages == Pages::IgnoresLast || *tag > last;
        let page: Vec<String> = tags
            .keys()
            .filter(|tag| begins(tag))
            .take(size)
            .cloned()
            .collect();
        let body = serde_json::json!({"name": repository, "tags": page}).to_string();
        let Some(last) = page.last().filter(|_| page.len() == size) else {
            return body.into_response();
        };
        if deleted_after_page {
            tags.remove(last);
        }
        let cursor = match pages {
            Pages::Link | Pages::KnownLink => format!("last={last}"),
            Pages::BrokenCursor => "cursor=7".to_owned(),
            Pages::NoLink | Pages::IgnoresLast | Pages::RefusesLast => return body.into_response(),
        };
        let link = format!("</v2/{repository}/tags/list?{cursor}&n={size}>; rel=\"next\"");
        return ([("link", link)], body).into_response();
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

pub(crate) fn digest(text: &str) -> Digest {
    Digest::sha256_of(text.as_bytes())
}

/// Writes the part of history that reconciling reads.
pub(crate) async fn record(
    db: &mut PgConnection,
    repository: &str,
    tags: &BTreeMap<String, Digest>,
) {
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

pub(crate) struct World {
    pub(crate) nats: TestNats,
    pub(crate) db: TestDb,
    pub(crate) tags: Tags,
    pub(crate) url: String,
    _tasks: JoinSet<()>,
}

impl World {
    pub(crate) async fn new() -> World {
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

    pub(crate) async fn resolver(&self, settings: &str) -> Resolver {
        let file = format!("{}{settings}\n", registry(NAME, &self.url));
        Resolver::with_database(&self.nats, &file, self.db.url()).await
    }

    /// Waits until this number of repositories is reconciled.
    pub(crate) async fn reconciled(&self, count: i64) {
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

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_unchanged_tags_cost_a_list_and_a_bounded_number_of_requests() {
    let _alone = HEAVY.lock().await;
    let world = World::new().await;
    let tags: BTreeMap<String, Digest> = (0..10_000)
        .map(|number| (format!("v{number:05}"), digest(&number.to_string())))
        .collect();
    record(&mut world.db.connect().await, "shop/web", &tags).await;
    world
        .tags
        .change(|inner| inner.tags.insert("shop/web".to_owned(), tags));
    let resident = || resident(std::process::id()).unwrap() / 1024;
    let before = resident();
    // The first pass ends long before the second begins.
    let resolver = world.resolver("reconcile = \"20s\"").await;
    world.reconciled(1).await;
    let (lists, heads, not_modified) = world
        .tags
        .change(|inner| (inner.lists.len(), inner.heads, inner.not_modified));
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
    let failed: Vec<(String, String)> =
        sqlx::query_as("select repository, reason from reconcile_failure")
            .fetch_all(&mut db)
            .await
            .unwrap();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let (repository, reason) = &failed[0];
    assert_eq!(repository, "a/broken");
    assert!(reason.contains("500"), "{reason}");
    resolver.stop().await;
}

/// Returns this number of tags, from `v0000` on.
pub(crate) fn numbered(count: usize) -> BTreeMap<String, Digest> {
    (0..count)
        .map(|number| (format!("v{number:04}"), digest(&number.to_string())))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_page_without_a_link_is_followed_by_the_next() {
    let _alone = HEAVY.lock().await;
    for (pages, count, lists) in [
        (Pages::NoLink, 2005, 3),
        (Pages::NoLink, 2000, 3),
        (Pages::NoLink, 999, 1),
        (Pages::IgnoresLast, 1000, 2),
        // The refused page after tag 999, then after the four tags before.
        (Pages::RefusesLast, 1000, 6),
    ] {
        let world = World::new().await;
        let mut db = world.db.connect().await;
        record(&mut db, "shop/web", &numbered(count - 1)).await;
        world.tags.change(|inner| {
            inner.pages = pages;
            inner.tags.insert("shop/web".to_owned(), numbered(count));
        });
        let resolver = world.resolver("reconcile = \"12s\"").await;
        world.reconciled(1).await;
        let (listed, found): (i64, i64) = sqlx::query_as("select tags, found from reconcile")
            .fetch_one(&mut db)
            .await
            .unwrap();
        // On a busy machine the next comparison has begun.
        let lists_asked = world.tags.change(|inner| {
            let next_pages = inner.lists.iter().skip(1);
            1 + next_pages.take_while(|last| !last.is_empty()).count()
        });
        assert_eq!((listed, found), (i64::try_from(count).unwrap(), 1));
        assert_eq!(lists_asked, lists, "{count} tags");
        resolver.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_next_page_does_not_end_the_comparison() {
    let world = World::new().await;
    let mut history = numbered(20);
    history.insert("gone".to_owned(), digest("gone"));
    record(&mut world.db.connect().await, "shop/web", &history).await;
    // A job deletes the last tag of each page before the next page is requested.
    world.tags.change(|inner| {
        (inner.page, inner.pages, inner.deleted_after_page) = (5, Pages::KnownLink, true);
        let mut tags = numbered(20);
        tags.insert("v9999".to_owned(), digest("new"));
        inner.tags.insert("shop/web".to_owned(), tags);
    });
    let resolver = world.resolver("reconcile = \"1s\"").await;
    world.reconciled(1).await;
    let pushes = wait_answers(&world.nats, 2).await;
    let has = |name: &str, action| {
        pushes.iter().any(|push| {
            push.tag.as_ref().is_some_and(|tag| tag.as_ref() == name) && push.action == action
        })
    };
    assert!(
        has("gone", Action::Delete) && has("v9999", Action::Push),
        "{pushes:?}"
    );
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_whose_next_page_stays_refused_is_read_again_a_few_times_and_deletes_nothing() {
    let world = World::new().await;
    let mut db = world.db.connect().await;
    let mut history = numbered(20);
    history.insert("v0001".to_owned(), digest("before"));
    record(&mut db, "shop/web", &history).await;
    world.tags.change(|inner| {
        (inner.page, inner.pages) = (5, Pages::BrokenCursor);
        inner.tags.insert("shop/web".to_owned(), numbered(20));
    });
    let resolver = world.resolver("reconcile = \"30s\"").await;
    // The part that could be listed is compared.
    let pushes = wait_answers(&world.nats, 1).await;
    assert_eq!(pushes[0].tag.as_ref().unwrap().as_ref(), "v0001");
    assert_eq!(
        world.tags.change(|inner| inner.lists.len()),
        6,
        "three times two pages"
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    let count: i64 = sqlx::query_scalar("select count(*) from reconcile")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!((count, answers(&world.nats).await.len()), (0, 1));
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_request_ends_a_comparison_at_once_and_records_nothing() {
    let _alone = HEAVY.lock().await;
    // Slow answers, as of a busy registry, and then none.
    for delay in [Duration::from_millis(50), Duration::from_secs(60)] {
        let world = World::new().await;
        let mut db = world.db.connect().await;
        record(&mut db, "a/first", &numbered(1300)).await;
        record(&mut db, "b/second", &numbered(10)).await;
        world.tags.change(|inner| {
            inner.delay = delay;
            for name in ["a/first", "b/second"] {
                inner.tags.insert(name.to_owned(), numbered(1300));
            }
        });
        let resolver = world.resolver("reconcile = \"1h\"").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = std::time::Instant::now();
        resolver.stop().await;
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        let count: i64 = sqlx::query_scalar("select count(*) from reconcile")
            .fetch_one(&mut db)
            .await
            .unwrap();
        assert_eq!(count, 0);
    }
}

/// Returns a trigger of the first `count` tags of a repository.
pub(crate) fn trigger(repository: &str, count: usize) -> String {
    let image = |n| format!("images.i{n} = \"{NAME}/{repository}:v{n:04}\"\n");
    let images: String = (0..count).map(image).collect();
    format!(
        "[[trigger]]\nname = \"shop\"\n{images}target.webhook = {{ url = \"http://127.0.0.1:1\", secret = {{ env = \"S\" }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_changes_of_images_of_triggers_are_found_within_the_interval() {
    let world = World::new().await;
    let tags = numbered(30);
    record(&mut world.db.connect().await, "shop/web", &tags).await;
    world
        .tags
        .change(|inner| inner.tags.insert("shop/web".to_owned(), tags));
    let settings = format!(
        "reconcile = \"0s\"\nwatch_triggers = \"2s\"\n{}",
        trigger("shop/web", 20)
    );
    let resolver = world.resolver(&settings).await;
    let heads = || {
        let counts = |inner: &mut crate::reconcile::Inner| (inner.heads, inner.not_modified);
        world.tags.change(counts)
    };
    // A round asks about the images of triggers alone, with a condition, spread over the interval.
    eventually("half a round", SOON, async || {
        (heads().0 >= 10).then_some(())
    })
    .await;
    assert!(heads().0 < 20, "{:?}", heads());
    eventually("a whole round", SOON, async || {
        (heads().0 >= 20).then_some(())
    })
    .await;
    assert_eq!(heads().0, heads().1);

    // A move, a delete, and a change of a tag that no trigger names.
    let began = std::time::Instant::now();
    world.tags.change(|inner| {
        let tags = inner.tags.get_mut("shop/web").unwrap();
        tags.insert("v0003".to_owned(), digest("moved"));
        tags.remove("v0007");
        tags.insert("v0025".to_owned(), digest("moved"));
    });
    let mut found = wait_answers(&world.nats, 2).await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    found.sort_by_key(|push| push.tag.clone());
    let found: Vec<_> = found
        .iter()
        .map(|push| {
            (
                push.tag.as_ref().unwrap().as_ref(),
                push.action,
                push.origin,
            )
        })
        .collect();
    assert_eq!(
        found[..2],
        [
            ("v0003", Action::Push, Origin::Reconciled),
            ("v0007", Action::Delete, Origin::Reconciled)
        ]
    );
    assert!(found.iter().all(|(tag, ..)| *tag != "v0025"));
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_triggers_are_not_watched_if_the_setting_is_zero() {
    let world = World::new().await;
    let tags = numbered(3);
    record(&mut world.db.connect().await, "shop/web", &tags).await;
    let settings = format!(
        "reconcile = \"0s\"\nwatch_triggers = \"0s\"\n{}",
        trigger("shop/web", 3)
    );
    let resolver = world.resolver(&settings).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.tags.change(|inner| inner.heads), 0);
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_changes_of_tags_of_policies_are_found_within_the_interval() {
    let world = World::new().await;
    let tags = numbered(30);
    let mut db = world.db.connect().await;
    record(&mut db, "shop/web", &tags).await;
    // The planner's candidates: the two best tags.
    sqlx::query(
        "with p as (
             insert into policy (fingerprint, registry, repository, rule, floor)
             values (sha256('shop'), $1, 'shop/web', '{}', '') returning id)
         insert into candidate (policy_id, tag_id, key)
         select p.id, t.id, convert_to(t.name, 'UTF8') from p, tag t where t.name in ('v0028', 'v0029')",
    )
    .bind(NAME)
    .execute(&mut db)
    .await
    .unwrap();
    world
        .tags
        .change(|inner| inner.tags.insert("shop/web".to_owned(), tags));
    let settings = format!(
        "reconcile = \"0s\"\nwatch_triggers = \"2s\"\n[[trigger]]\nname = \"shop\"\n\
         images.web = {{ repository = \"{NAME}/shop/web\", alphabetical = \"last\" }}\n\
         target.webhook = {{ url = \"http://127.0.0.1:1\", secret = {{ env = \"S\" }} }}\n"
    );
    let resolver = world.resolver(&settings).await;
    // A new tag, and changes of a candidate and of a tag far below.
    world.tags.change(|inner| {
        let tags = inner.tags.get_mut("shop/web").unwrap();
        tags.insert("v0030".to_owned(), digest("new"));
        tags.insert("v0028".to_owned(), digest("moved"));
        tags.insert("v0001".to_owned(), digest("moved"));
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        answers(&world.nats).await.len(),
        0,
        "the first comparison imports the tags of a repository"
    );
    sqlx::query("insert into reconcile (registry, repository, tags, asked, found) values ($1, 'shop/web', 0, 0, 0)")
        .bind(NAME)
        .execute(&mut db)
        .await
        .unwrap();
    let mut found = wait_answers(&world.nats, 2).await;
    found.sort_by_key(|push| push.tag.clone());
    let found: Vec<_> = found
        .iter()
        .map(|push| (push.tag.as_ref().unwrap().as_ref(), push.origin))
        .collect();
    assert_eq!(
        found,
        [("v0028", Origin::Reconciled), ("v0030", Origin::Reconciled)]
    );
    resolver.stop().await;
}
