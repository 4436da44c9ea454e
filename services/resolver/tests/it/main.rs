//! The resolver on a real nats-server, with a real registry and with registries that misbehave.

#![expect(
    clippy::unwrap_used,
    reason = "in tests a panic is the report, in their helpers too"
)]

mod manifests;
mod observations;
mod postponed;
mod recheck;
mod reconcile;
mod reload;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tagtrail_bus::{Bus, BusArgs};
use tagtrail_daemon::Context;
use tagtrail_proto::{
    Action, Digest, Event, Image, Origin, Push, Quarantined, Scope, Subject, TimeSource,
};
use tagtrail_resolver::{Config, Pace};
use tagtrail_testkit::{Registry, SOON, TestImage, TestNats, eventually};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Waits about ten times shorter than the defaults.
const PACE: Pace = Pace {
    quiet: Duration::from_millis(200),
    second: Duration::from_millis(600),
    longest: Duration::from_secs(3),
    first: Duration::from_millis(100),
    absent: [Duration::from_millis(100); 4],
    last: Duration::from_millis(400),
    before_first: Duration::ZERO,
    grace: Duration::from_millis(200),
    watch_grace: Duration::from_millis(100),
};

/// A resolver in this process.
struct Resolver {
    ctx: Context,
    tasks: JoinSet<anyhow::Result<()>>,
    folder: tempfile::TempDir,
}

impl Resolver {
    /// Starts a resolver with this `tagtrail.toml`, and waits until it is ready.
    async fn start(nats: &TestNats, file: &str) -> Resolver {
        Resolver::begin(nats, file, None).await
    }

    /// Starts a resolver with a database, so that it reconciles registries.
    async fn with_database(nats: &TestNats, file: &str, database: &str) -> Resolver {
        Resolver::begin(nats, file, Some(database.to_owned())).await
    }

    async fn begin(nats: &TestNats, file: &str, database_url: Option<String>) -> Resolver {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tagtrail.toml");
        std::fs::write(&path, file).unwrap();
        let config = Config {
            config: Some(path),
            bus: args(nats),
            database_url,
            ack_seconds: Duration::from_secs(10),
            pace: PACE,
        };
        let (ctx, mut tasks) = (Context::default(), JoinSet::new());
        tasks.spawn(tagtrail_resolver::run(config, ctx.clone()));
        ctx.health.wait_ready().await;
        Resolver { ctx, tasks, folder }
    }

    /// Changes `tagtrail.toml`.
    fn write(&self, file: &str) {
        std::fs::write(self.folder.path().join("tagtrail.toml"), file).unwrap();
    }

    async fn stop(mut self) {
        self.ctx.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn args(nats: &TestNats) -> BusArgs {
    BusArgs::new(nats.url())
}

/// Returns the entry of a registry for `tagtrail.toml`.
fn registry(name: &str, url: &str) -> String {
    format!("[[registry]]\nname = \"{name}\"\nurl = \"{url}\"\n")
}

fn question(image: &str, id: &str) -> Push {
    let image: Image = image.parse().unwrap();
    Push {
        action: Action::Push,
        scope: Scope::Tag,
        registry: image.registry,
        repository: image.repository,
        tag: Some(image.tag),
        digest: None,
        media_type: None,
        size: None,
        actor: Some("ci-bot".to_owned()),
        occurred_at: OffsetDateTime::UNIX_EPOCH,
        occurred_at_source: TimeSource::Event,
        source: "ci".to_owned(),
        origin: Origin::Event,
        event_id: id.to_owned(),
    }
}

async fn ask(nats: &TestNats, push: Push) {
    let subject = Subject::of_push(&push, 8).to_string();
    let body = serde_json::to_vec(&push.event()).unwrap();
    let jetstream = nats.jetstream().await;
    let stored = jetstream.publish(subject, body.into()).await.unwrap();
    stored.await.unwrap();
}

async fn answers(nats: &TestNats) -> Vec<Push> {
    let messages = nats.messages("PUSHES").await;
    messages
        .iter()
        .map(|(_, body)| serde_json::from_slice::<Event<Push>>(body).unwrap().data)
        .collect()
}

async fn wait_answers(nats: &TestNats, count: usize) -> Vec<Push> {
    eventually(&format!("{count} answers"), SOON * 3, async || {
        Some(answers(nats).await).filter(|answers| answers.len() >= count)
    })
    .await
}

/// Returns the number of messages of UNRESOLVED without an ack.
async fn open_questions(nats: &TestNats) -> usize {
    let stream = nats
        .jetstream()
        .await
        .get_stream("UNRESOLVED")
        .await
        .unwrap();
    let info = stream.consumer_info("resolver").await.unwrap();
    info.num_ack_pending + usize::try_from(info.num_pending).unwrap()
}

async fn all_done(nats: &TestNats) {
    eventually("the ack of all questions", SOON, async || {
        (open_questions(nats).await == 0).then_some(())
    })
    .await;
}

/// A registry that gives these answers in turn, and repeats the last one.
struct Fake {
    url: String,
    asked: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Fake {
    async fn start(answers: Vec<fn() -> Response>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let router = Router::new().fallback(move || {
            let number = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
            let response = answers[number]();
            async move { response }
        });
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Fake {
            url,
            asked,
            _task: task,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn digest() -> Digest {
    Digest::sha256_of(b"manifest")
}

fn found() -> Response {
    [("docker-content-digest", digest().to_string())].into_response()
}

fn absent() -> Response {
    let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#;
    (StatusCode::NOT_FOUND, body).into_response()
}

fn broken() -> Response {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

fn pause() -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response()
}

const IMAGE: &str = "registry.example.com/shop/web:latest";

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_resolved_at_a_real_registry_with_a_password() {
    asks(&Registry::with_password().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_resolved_at_a_real_registry_with_tokens() {
    asks(&Registry::with_tokens().await).await;
}

async fn asks(real: &Registry) {
    let nats = TestNats::start().await;
    let first = real.push(&TestImage::new("one"), "shop/web:latest");
    let image = format!("{}/shop/web:latest", real.host());
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, Registry::PASSWORD).unwrap();
    let file = format!(
        "{}username = \"{}\"\npassword = {{ file = {password:?} }}\n",
        registry(real.host(), &format!("http://{}", real.host())),
        Registry::USER
    );
    let file = match real.realm() {
        Some(realm) => format!("{file}realm = \"{realm}\"\n"),
        None => file,
    };
    let resolver = Resolver::start(&nats, &file).await;
    let before = OffsetDateTime::now_utc();
    ask(&nats, question(&image, "1")).await;
    let answer = wait_answers(&nats, 1).await.remove(0);
    assert_eq!(answer.digest, Some(first));
    assert_eq!(answer.image().unwrap().to_string(), image);
    assert_eq!(
        (answer.origin, answer.occurred_at_source),
        (Origin::Resolved, TimeSource::Received)
    );
    assert!(
        answer.occurred_at >= before,
        "the time is the time of the request"
    );
    assert_eq!(
        (answer.actor.as_deref(), answer.source.as_str()),
        (Some("ci-bot"), "ci")
    );
    assert_eq!(
        answer.media_type.as_deref(),
        Some("application/vnd.oci.image.manifest.v1+json")
    );
    assert!(answer.size.unwrap() > 100);

    // The same tag now points to an index.
    let second = real.push(&TestImage::index("two"), "shop/web:latest");
    ask(&nats, question(&image, "2")).await;
    assert_eq!(wait_answers(&nats, 2).await[1].digest, Some(second.clone()));
    assert_eq!(real.inspect("shop/web:latest"), second);

    // The tag is deleted.
    real.delete("shop/web:latest");
    ask(&nats, question(&image, "3")).await;
    // On a busy machine the second look after the first answer may have found the index before.
    let gone = eventually("the deletion", SOON, async || {
        let mut answers = answers(&nats).await.into_iter();
        answers.find(|answer| answer.action == Action::Delete)
    })
    .await;
    assert_eq!(
        (gone.action, gone.digest, gone.origin),
        (Action::Delete, None, Origin::Resolved)
    );
    all_done(&nats).await;
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_of_one_push_are_one_question() {
    let (nats, fake) = (TestNats::start().await, Fake::start(vec![found]).await);
    let resolver = Resolver::start(&nats, &registry("registry.example.com", &fake.url)).await;
    for _ in 0..6 {
        // Identical events: Docker Hub sends one for each platform.
        ask(&nats, question(IMAGE, "same")).await;
    }
    ask(
        &nats,
        question("registry.example.com/shop/worker:v1", "other"),
    )
    .await;
    let answers = wait_answers(&nats, 2).await;
    all_done(&nats).await;
    // Each question has a second look, whose equal answer is not published again.
    assert_eq!((answers.len(), fake.asked()), (2, 4));
    assert!(answers.iter().all(|answer| answer.digest == Some(digest())));
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_request_does_not_wait_for_a_registry_that_hangs() {
    let nats = TestNats::start().await;
    // The kernel accepts connections for the listener, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let resolver = Resolver::start(&nats, &registry("registry.example.com", &url)).await;
    ask(&nats, question(IMAGE, "1")).await;
    tokio::time::timeout(SOON, silent.accept())
        .await
        .unwrap()
        .unwrap();
    let began = std::time::Instant::now();
    resolver.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // Another instance answers the question at once.
    let fake = Fake::start(vec![found]).await;
    let another = Resolver::start(&nats, &registry("registry.example.com", &fake.url)).await;
    assert_eq!(wait_answers(&nats, 1).await[0].digest, Some(digest()));
    another.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_finds_the_index_pushed_after_the_first() {
    let nats = TestNats::start().await;
    // First an image of the index, then the index.
    let fake = Fake::start(vec![
        || {
            [(
                "docker-content-digest",
                Digest::sha256_of(b"part").to_string(),
            )]
            .into_response()
        },
        found,
    ])
    .await;
    let resolver = Resolver::start(&nats, &registry("registry.example.com", &fake.url)).await;
    ask(&nats, question(IMAGE, "1")).await;
    let answers = wait_answers(&nats, 2).await;
    let digests: Vec<_> = answers
        .iter()
        .map(|answer| answer.digest.clone().unwrap())
        .collect();
    assert_eq!(digests, [Digest::sha256_of(b"part"), digest()]);
    assert!(answers[0].occurred_at < answers[1].occurred_at);
    all_done(&nats).await;
    assert_eq!(fake.asked(), 2);
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_registry_that_keeps_failing_are_paused() {
    let nats = TestNats::start().await;
    let fake = Fake::start(vec![broken]).await;
    let resolver = Resolver::start(&nats, &registry("registry.example.com", &fake.url)).await;
    for number in 0..40 {
        ask(
            &nats,
            question(&format!("registry.example.com/shop/r{number}:v1"), "1"),
        )
        .await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Five failures open the breaker; up to three other requests are under way by then.
    assert!((5..=8).contains(&fake.asked()), "{}", fake.asked());
    assert_eq!(open_questions(&nats).await, 40, "nothing is lost");
    resolver.ctx.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_is_asked_again_until_it_answers() {
    let nats = TestNats::start().await;
    let fake = Fake::start(vec![broken, pause, broken, found]).await;
    let resolver = Resolver::start(&nats, &registry("registry.example.com", &fake.url)).await;
    ask(&nats, question(IMAGE, "1")).await;
    let answer = wait_answers(&nats, 1).await.remove(0);
    assert_eq!(answer.digest, Some(digest()));
    assert_eq!(fake.asked(), 4);
    all_done(&nats).await;
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_answer_holds_up_no_other() {
    let (nats, good) = (TestNats::start().await, Fake::start(vec![found]).await);
    // Accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = format!(
        "{}{}",
        registry(
            "silent.example.com",
            &format!("http://{}", silent.local_addr().unwrap())
        ),
        registry("registry.example.com", &good.url)
    );
    let resolver = Resolver::start(&nats, &file).await;
    for n in 0..50 {
        ask(
            &nats,
            question(&format!("silent.example.com/shop/r{n}:latest"), "1"),
        )
        .await;
    }
    ask(&nats, question(IMAGE, "2")).await;
    assert_eq!(
        wait_answers(&nats, 1).await[0].image().unwrap().to_string(),
        IMAGE
    );
    resolver.ctx.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_tag_is_reported_as_deleted_only_after_four_lookups() {
    let nats = TestNats::start().await;
    // The event came before the registry linked the tag.
    let late = Fake::start(vec![absent, absent, absent, absent, found]).await;
    let gone = Fake::start(vec![absent]).await;
    let file = format!(
        "{}{}",
        registry("late.example.com", &late.url),
        registry("gone.example.com", &gone.url)
    );
    let resolver = Resolver::start(&nats, &file).await;
    ask(&nats, question("late.example.com/a:b", "1")).await;
    assert_eq!(wait_answers(&nats, 1).await[0].digest, Some(digest()));
    ask(&nats, question("gone.example.com/a:b", "2")).await;
    let answer = wait_answers(&nats, 2).await.remove(1);
    assert_eq!(
        (answer.action, answer.scope, answer.digest),
        (Action::Delete, Scope::Tag, None)
    );
    assert_eq!(gone.asked(), 8, "four times, by HEAD and GET each");
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_without_a_registry_are_quarantined_and_rechecks_dropped() {
    let (nats, fake) = (TestNats::start().await, Fake::start(vec![found]).await);
    let resolver = Resolver::start(&nats, &registry("registry.example.com", &fake.url)).await;
    ask(&nats, question("other.example.com/a:b", "1")).await;
    ask(
        &nats,
        question("third.example.com/a:b", "doubt:third.example.com/a:b#2"),
    )
    .await;
    nats.jetstream()
        .await
        .publish("tagtrail.unresolved.a%2Eb.c.d", "{}".into())
        .await
        .unwrap()
        .await
        .unwrap();
    all_done(&nats).await;
    let kept: Vec<Quarantined> = nats
        .messages("QUARANTINE")
        .await
        .iter()
        .map(|(_, body)| serde_json::from_slice(body).unwrap())
        .collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    let of = |source: &str| kept.iter().find(|kept| kept.source == source).unwrap();
    let cure = "add [[registry]] name = \"other.example.com\" to tagtrail.toml";
    assert!(of("ci").reason.contains(cure), "{}", of("ci").reason);
    assert!(of("resolver").reason.contains("not a push event"));
    assert_eq!(answers(&nats).await.len(), 0);
    assert_eq!(
        fake.asked(),
        0,
        "no registry is asked about images of another"
    );
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_answers_the_questions_of_a_stopped_one() {
    let (nats, fake) = (TestNats::start().await, Fake::start(vec![found]).await);
    let file = registry("registry.example.com", &fake.url);
    let first = Resolver::start(&nats, &file).await;
    // The first instance stops while the question waits for a quiet tag.
    ask(&nats, question(IMAGE, "1")).await;
    eventually(
        "the first instance to receive the question",
        SOON,
        async || (open_questions(&nats).await == 1).then_some(()),
    )
    .await;
    first.stop().await;
    let second = Resolver::start(&nats, &file).await;
    assert_eq!(wait_answers(&nats, 1).await[0].digest, Some(digest()));
    all_done(&nats).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_nats_in_the_middle_loses_no_question() {
    let nats = TestNats::start().await;
    let fake = Fake::start(vec![broken, broken, broken, found]).await;
    let resolver = Resolver::start(&nats, &registry("registry.example.com", &fake.url)).await;
    for n in 0..20 {
        ask(
            &nats,
            question(&format!("registry.example.com/shop/r{n}:latest"), "1"),
        )
        .await;
    }
    nats.crash().await;
    eventually("nats-server to answer", SOON, async || nats.client().await).await;
    let images = eventually(
        "an answer about each",
        Duration::from_secs(150),
        async || {
            let mut images: Vec<String> = answers(&nats)
                .await
                .iter()
                .map(|answer| answer.image().unwrap().to_string())
                .collect();
            images.sort();
            images.dedup();
            (images.len() == 20).then_some(images)
        },
    )
    .await;
    assert_eq!(images.len(), 20);
    resolver.stop().await;
    // NATS still accepts connections.
    assert!(
        Bus::connect(&args(&nats), "test", &Context::default().shutdown)
            .await
            .is_ok()
    );
}
