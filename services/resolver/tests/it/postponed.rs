//! Tasks that wait for their registry hold up no other registry, and none is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tagtrail_proto::{Digest, Subject};
use tagtrail_testkit::{SOON, TestDb, TestNats, eventually};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::manifests::{Shelf, revision_of, wait_manifests};
use crate::{Fake, Resolver, found, question, registry, wait_answers};

/// More messages than the server delivers without an ack.
const MANY: usize = 20_500;
const HANGING: &str = "hanging.example.com";

/// Starts a server that accepts connections and never answers. Returns its URL.
async fn hanging(tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    url
}

/// Publishes messages without waiting for each, and then waits until the stream has stored all.
///
/// Waits for the sequence and not for the number of messages: a stream that holds earlier messages
/// has that number before the server has stored these, and a kill would lose the rest.
async fn publish_all(nats: &TestNats, stream: &str, messages: Vec<(Subject, Vec<u8>)>) {
    let (client, count) = (nats.client().await.unwrap(), messages.len());
    let jetstream = nats.jetstream().await;
    let last = async || {
        let stream = jetstream.get_stream(stream).await.unwrap();
        stream.cached_info().state.last_sequence
    };
    let before = last().await;
    for (subject, body) in messages {
        let published = client.publish(subject.to_string(), body.into());
        published.await.unwrap();
    }
    client.flush().await.unwrap();
    eventually("all messages in the stream", SOON, async || {
        (last().await >= before + count as u64).then_some(())
    })
    .await;
}

async fn ask_all(nats: &TestNats, images: impl Iterator<Item = String>) {
    let message = |(number, image): (usize, String)| {
        let push = question(&image, &format!("event {number}"));
        let subject = Subject::of_push(&push, 8);
        (subject, serde_json::to_vec(&push.event()).unwrap())
    };
    publish_all(
        nats,
        "UNRESOLVED",
        images.enumerate().map(message).collect(),
    )
    .await;
}

async fn rows(db: &TestDb, work: &str) -> i64 {
    let count = "select count(*) from postponed where work = $1";
    let mut sql = db.connect().await;
    let count = sqlx::query_scalar(count).bind(work).fetch_one(&mut sql);
    count.await.unwrap()
}

fn away() -> Response {
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_to_a_registry_that_never_answers_hold_up_no_other() {
    let (nats, db) = (TestNats::start().await, tagtrail_testkit::postgres().await);
    let mut tasks = JoinSet::new();
    let healthy = Fake::start(vec![found]).await;
    let file = registry(HANGING, &hanging(&mut tasks).await)
        + &registry("registry.example.com", &healthy.url);
    // The streams exist from the first start on.
    let resolver = Resolver::with_database(&nats, &file, db.url()).await;
    let images = (0..MANY).map(|number| format!("{HANGING}/shop/web:t{number}"));
    ask_all(&nats, images).await;
    let image = "registry.example.com/shop/web:latest".to_owned();
    ask_all(&nats, [image].into_iter()).await;
    let answer = wait_answers(&nats, 1).await.remove(0);
    assert_eq!(answer.registry.as_ref(), "registry.example.com");
    eventually("the other questions in Postgres", SOON, async || {
        (rows(&db, "question").await >= 19_000).then_some(())
    })
    .await;
    let text = resolver.ctx.metrics.text().unwrap();
    let gauge = format!("tagtrail_resolver_postponed{{registry=\"{HANGING}\",work=\"question\"}}");
    assert!(text.contains(&gauge), "{text}");
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_a_registry_that_never_answers_hold_up_no_other() {
    let (nats, db) = (TestNats::start().await, tagtrail_testkit::postgres().await);
    let (shelf, mut tasks) = (Shelf::default(), JoinSet::new());
    let (digest, _) = shelf.image("one");
    let file = shelf.serve(&mut tasks).await + &registry(HANGING, &hanging(&mut tasks).await);
    let resolver = Resolver::with_database(&nats, &file, db.url()).await;
    let message = |number: usize| {
        let lost = Digest::sha256_of(format!("{number}").as_bytes());
        revision_of(&format!("{HANGING}/shop/web:t{number}"), Some(&lost))
    };
    publish_all(&nats, "REVISIONS", (0..MANY).map(message).collect()).await;
    let other = revision_of("registry.example.com/shop/web:latest", Some(&digest));
    publish_all(&nats, "REVISIONS", vec![other]).await;
    let manifest = wait_manifests(&nats, 1).await.remove(0);
    assert_eq!(manifest.digest, digest);
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postponed_questions_are_merged_by_image_and_answered_when_the_registry_is_back() {
    let (nats, db) = (TestNats::start().await, tagtrail_testkit::postgres().await);
    // Five failures open the breaker. Then the registry answers.
    let mut answers = vec![away as fn() -> Response; 8];
    answers.push(found);
    let fake = Fake::start(answers).await;
    let file = registry("registry.example.com", &fake.url);
    let resolver = Resolver::with_database(&nats, &file, db.url()).await;
    let image = |number: usize| format!("registry.example.com/shop/web:t{number}");
    ask_all(&nats, (0..600).map(|number| image(number % 30))).await;
    eventually("the questions in Postgres", SOON, async || {
        (rows(&db, "question").await > 0).then_some(())
    })
    .await;
    let most = rows(&db, "question").await;
    assert!(most <= 30, "{most} rows for 30 images");
    // A stop and another instance lose nothing.
    resolver.stop().await;
    let resolver = Resolver::with_database(&nats, &file, db.url()).await;
    eventually("the answers about all images", SOON * 3, async || {
        let pushes = crate::answers(&nats).await;
        let tags: BTreeSet<String> = pushes
            .iter()
            .filter_map(|push| push.tag.as_ref().map(ToString::to_string))
            .collect();
        (tags.len() == 30).then_some(())
    })
    .await;
    eventually("the removal of all rows", SOON, async || {
        (rows(&db, "question").await == 0).then_some(())
    })
    .await;
    // Each image has one answer, and perhaps a repeated one, but not one for each event.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = fake.asked();
    assert!(asked < 200, "{asked} requests for 30 images");
    resolver.stop().await;
}

/// Starts a registry that has every image and takes a moment for each answer. Returns its URL.
async fn slow(load: Arc<Load>, tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(move || {
        let load = Arc::clone(&load);
        async move {
            let _request = Request::begin(load);
            tokio::time::sleep(Duration::from_millis(8)).await;
            found()
        }
    });
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

/// The requests to a registry: at the same time, at most at the same time, in all.
#[derive(Default)]
struct Load {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

/// A request under way. A resolver that stops drops its connections, and so the requests.
struct Request(Arc<Load>);

impl Request {
    fn begin(load: Arc<Load>) -> Request {
        let now = load.now.fetch_add(1, Ordering::SeqCst) + 1;
        load.most.fetch_max(now, Ordering::SeqCst);
        load.all.fetch_add(1, Ordering::SeqCst);
        Request(load)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// After a restart nats-server delivers all questions in hand again at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_nats_with_a_thousand_questions_in_hand_does_not_burden_the_registry() {
    let (nats, db) = (TestNats::start().await, tagtrail_testkit::postgres().await);
    let (load, mut tasks) = (Arc::new(Load::default()), JoinSet::new());
    let file = registry(
        "registry.example.com",
        &slow(Arc::clone(&load), &mut tasks).await,
    );
    for database in [None, Some(db.url().to_owned())] {
        let before = crate::answers(&nats).await.len();
        let asked = load.all.load(Ordering::SeqCst);
        let resolver = Resolver::begin(&nats, &file, database).await;
        let image = |number: usize| format!("registry.example.com/shop/web:t{number}");
        ask_all(&nats, (0..1000).map(image)).await;
        eventually("the first answers", SOON, async || {
            (load.all.load(Ordering::SeqCst) > asked + 20).then_some(())
        })
        .await;
        nats.crash().await;
        eventually("nats-server to be back", SOON, async || {
            nats.client().await.map(drop)
        })
        .await;
        eventually("all answers", SOON * 3, async || {
            let pushes = crate::answers(&nats).await;
            let new = pushes.get(before..).unwrap_or_default();
            let tags: BTreeSet<String> = new
                .iter()
                .filter_map(|push| push.tag.as_ref().map(ToString::to_string))
                .collect();
            (tags.len() == 1000).then_some(())
        })
        .await;
        let most = load.most.load(Ordering::SeqCst);
        assert!(most <= 4, "{most} requests at the same time");
        resolver.stop().await;
    }
}
