//! Reads the manifest of each digest once from its registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use sqlx::PgConnection;
use tagtrail_proto::{
    Action, Digest, Event, Image, Kind, Manifest, Origin, Point, Revision, Subject, instant,
};
use tagtrail_testkit::{Registry, SOON, TestImage, TestNats, eventually};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{IMAGE, Resolver, question, registry, wait_answers};

const REVISION: &str = "org.opencontainers.image.revision";
const SOURCE: &str = "org.opencontainers.image.source";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Returns the message of a revision of an image, as the indexer publishes it.
pub(crate) fn revision_of(image: &str, digest: Option<&Digest>) -> (Subject, Vec<u8>) {
    let image: Image = image.parse().unwrap();
    let now = OffsetDateTime::now_utc();
    let revision = Revision {
        registry: image.registry.clone(),
        repository: image.repository.clone(),
        tag: image.tag.clone(),
        revision: 1,
        kind: Kind::Created,
        digest: digest.cloned(),
        pinned: digest.map(|digest| image.pinned(digest)),
        previous: None,
        late: false,
        head: Point {
            revision: 1,
            digest: digest.cloned(),
        },
        occurred_at: now,
        recorded_at: now,
        origin: Origin::Event,
        source: "main".to_owned(),
        actor: None,
        media_type: None,
        size: None,
    };
    let body = serde_json::to_vec(&revision.event()).unwrap();
    (Subject::of_revisions(&image), body)
}

/// Publishes a revision of an image.
async fn publish_revision(nats: &TestNats, image: &str, digest: Option<&Digest>) {
    let (subject, body) = revision_of(image, digest);
    let jetstream = nats.jetstream().await;
    let stored = jetstream
        .publish(subject.to_string(), body.into())
        .await
        .unwrap();
    stored.await.unwrap();
}

/// Returns the contents of MANIFESTS.
async fn manifests(nats: &TestNats) -> Vec<Manifest> {
    let messages = nats.messages("MANIFESTS").await;
    messages
        .iter()
        .map(|(subject, body)| {
            let event: Event<Manifest> = serde_json::from_slice(body).unwrap();
            let digest = event.data.digest.clone();
            assert_eq!(*subject, Subject::Manifest { digest }.to_string());
            assert_eq!(
                (event.r#type.as_str(), event.time),
                (Manifest::TYPE, event.data.read_at)
            );
            event.data
        })
        .collect()
}

pub(crate) async fn wait_manifests(nats: &TestNats, count: usize) -> Vec<Manifest> {
    eventually(&format!("{count} manifests"), SOON * 3, async || {
        Some(manifests(nats).await).filter(|found| found.len() >= count)
    })
    .await
}

/// Waits for the ack of all revisions.
async fn all_done(nats: &TestNats) {
    eventually("the ack of all revisions", SOON, async || {
        let stream = nats.jetstream().await.get_stream("REVISIONS").await.ok()?;
        let info = stream.consumer_info("manifests").await.ok()?;
        (info.num_ack_pending == 0 && info.num_pending == 0).then_some(())
    })
    .await;
}

fn counted(resolver: &Resolver, outcome: &str) -> u64 {
    let text = resolver.ctx.metrics.text().unwrap();
    let name = format!("tagtrail_resolver_manifests_total{{outcome=\"{outcome}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("{name} is not in {text}"))
        .parse()
        .unwrap()
}

type Answers = Vec<fn() -> Response>;

/// The registry `registry.example.com`, with content by path, which logs its requests.
#[derive(Clone, Default)]
pub(crate) struct Shelf {
    has: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Answers to the first requests, in this order.
    first: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Shelf {
    /// Starts the registry. Returns its entry for `tagtrail.toml`.
    pub(crate) async fn serve(&self, tasks: &mut JoinSet<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shelf = self.clone();
        let router = Router::new().fallback(move |request: Request| {
            let response = shelf.answer(request.uri().path());
            async move { response }
        });
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        registry("registry.example.com", &url)
    }

    fn answer(&self, path: &str) -> Response {
        self.asked.lock().unwrap().push(path.to_owned());
        let mut first = self.first.lock().unwrap();
        if !first.is_empty() {
            return first.remove(0)();
        }
        match self.has.lock().unwrap().get(path) {
            Some(bytes) => bytes.clone().into_response(),
            None => {
                let body = r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#;
                (StatusCode::NOT_FOUND, body).into_response()
            }
        }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Stores content under its digest.
    fn put(&self, kind: &str, content: &Value) -> Digest {
        let bytes = content.to_string().into_bytes();
        let digest = Digest::sha256_of(&bytes);
        let path = format!("/v2/shop/web/{kind}/{digest}");
        self.has.lock().unwrap().insert(path, bytes);
        digest
    }

    /// Stores an image. Returns the digests of its manifest and of its config.
    pub(crate) fn image(&self, label: &str) -> (Digest, Digest) {
        let config = self.put(
            "blobs",
            &json!({ "os": "linux", "architecture": "amd64", "config": { "Labels": { "name": label } } }),
        );
        let manifest = json!({
            "mediaType": MANIFEST, "config": { "mediaType": CONFIG, "digest": config },
            "layers": [{ "digest": config, "size": 7 }],
        });
        (self.put("manifests", &manifest), config)
    }
}

fn forbidden() -> Response {
    StatusCode::FORBIDDEN.into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_an_index_and_a_password_on_a_real_registry() {
    let (nats, real) = (TestNats::start().await, Registry::with_password().await);
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, Registry::PASSWORD).unwrap();
    let file = format!(
        "{}username = \"{}\"\npassword = {{ file = {password:?} }}\n",
        registry(real.host(), &format!("http://{}", real.host())),
        Registry::USER
    );
    let image = TestImage::new("one")
        .settings(json!({ "Env": ["PATH=/bin"], "User": "65532", "ExposedPorts": { "8080/tcp": {} }, "Cmd": ["run"] }))
        .created_by("COPY content /")
        .label("maintainer", "Ann")
        .label(REVISION, "by label")
        .label(SOURCE, "https://git.example.com/shop")
        .annotation(REVISION, "9f2c");
    let one = real.push(&image, "shop/web:latest");
    let index = TestImage::index("two")
        .settings(json!({ "Env": ["SIDE=b"], "Entrypoint": ["/content"] }))
        .label("maintainer", "Bob")
        .annotation("org.opencontainers.image.version", "2.0");
    let two = real.push(&index, "shop/web:v2");
    let web = format!("{}/shop/web", real.host());
    // The revision is published before the resolver runs.
    let resolver = Resolver::start(&nats, &file).await;
    resolver.stop().await;
    publish_revision(&nats, &format!("{web}:latest"), Some(&one)).await;
    let resolver = Resolver::start(&nats, &file).await;
    let before = OffsetDateTime::now_utc() - time::Duration::minutes(1);
    let first = wait_manifests(&nats, 1).await.remove(0);
    assert_eq!(
        (first.digest.clone(), &first.registry.to_string()),
        (one.clone(), &real.host().to_owned())
    );
    assert_eq!(first.pinned().to_string(), format!("{web}@{one}"));
    assert_eq!(
        (first.media_type.as_str(), first.artifact_type),
        (MANIFEST, None)
    );
    assert!(first.size > 100 && first.read_at > before, "{}", first.size);
    let platform = &first.platforms[0];
    assert_eq!(
        (
            platform.os.as_str(),
            platform.architecture.as_str(),
            &platform.digest
        ),
        ("linux", "amd64", &None)
    );
    assert_eq!(first.created, instant::parse(TestImage::CREATED));
    assert_eq!(first.labels["maintainer"], "Ann");
    assert_eq!(first.labels.len(), 3);
    assert_eq!(
        first.annotations,
        [(REVISION.to_owned(), "9f2c".to_owned())].into()
    );
    assert_eq!(
        first.revision.as_deref(),
        Some("9f2c"),
        "annotations take precedence over labels"
    );
    assert_eq!(
        first.source.as_deref(),
        Some("https://git.example.com/shop")
    );
    assert_eq!(first.version, None);
    assert_eq!(first.index, None);
    let contents = first.image.unwrap();
    assert_eq!(contents.digest, one);
    assert_eq!(contents.platform.as_deref(), Some("linux/amd64"));
    let [layer] = contents.layers.as_slice() else {
        panic!("{:?}", contents.layers)
    };
    assert_eq!(layer.created_by.as_deref(), Some("COPY content /"));
    assert!(
        layer.size > 50 && layer.size == contents.size,
        "{}",
        layer.size
    );
    let settings = contents.settings.unwrap();
    assert_eq!(settings.environment["PATH"], "/bin");
    assert_eq!(
        (settings.user.as_deref(), settings.ports, settings.command),
        (
            Some("65532"),
            vec!["8080/tcp".to_owned()],
            vec!["run".to_owned()]
        )
    );

    publish_revision(&nats, &format!("{web}:v2"), Some(&two)).await;
    let second = wait_manifests(&nats, 2).await.remove(1);
    assert_eq!(
        (&second.digest, second.media_type.as_str()),
        (&two, "application/vnd.oci.image.index.v1+json")
    );
    let platforms: Vec<_> = second
        .platforms
        .iter()
        .map(|one| (one.architecture.as_str(), one.digest.is_some()))
        .collect();
    assert_eq!(platforms, [("amd64", true), ("arm64", true)]);
    assert_eq!(
        second.labels["maintainer"], "Bob",
        "the labels of the image for linux/amd64"
    );
    assert_eq!(second.created, instant::parse(TestImage::CREATED));
    assert_eq!(second.version.as_deref(), Some("2.0"));
    let children = second.index.unwrap().children;
    let names: Vec<_> = children.iter().map(|one| one.platform.as_deref()).collect();
    assert_eq!(names, [Some("linux/amd64"), Some("linux/arm64")]);
    assert!(children.iter().all(|one| one.size > 100));
    let contents = second.image.unwrap();
    assert_eq!(contents.digest, children[0].digest);
    assert_eq!(contents.platform.as_deref(), Some("linux/amd64"));
    let settings = contents.settings.unwrap();
    assert_eq!(settings.environment["SIDE"], "b");
    assert_eq!(settings.entrypoint, ["/content"]);
    assert_eq!(contents.layers[0].created_by, None, "no history");

    // A read pauses before its end, and takes revisions of the same manifest with it until then.
    all_done(&nats).await;

    // A missing manifest is given up, and a deletion has no manifest: both revisions get an ack.
    real.delete("shop/web:latest");
    let image = TestImage::new("gone");
    let gone = real.push(&image, "shop/gone:latest");
    real.delete("shop/gone:latest");
    let image = format!("{}/shop/gone:latest", real.host());
    publish_revision(&nats, &image, Some(&gone)).await;
    publish_revision(&nats, &image, None).await;
    // The manifest of a known digest is not read again, although the registry deleted the tag.
    publish_revision(&nats, &format!("{web}:old"), Some(&one)).await;
    eventually("the missing manifest to be given up", SOON, async || {
        (counted(&resolver, "given_up") == 1).then_some(())
    })
    .await;
    all_done(&nats).await;
    assert_eq!(counted(&resolver, "absent"), 5);
    assert_eq!(
        (counted(&resolver, "read"), counted(&resolver, "known")),
        (2, 1)
    );
    assert_eq!(manifests(&nats).await.len(), 2);
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_under_many_tags_is_read_once() {
    let (nats, shelf, mut tasks) = (TestNats::start().await, Shelf::default(), JoinSet::new());
    let (digest, _) = shelf.image("one");
    let file = shelf.serve(&mut tasks).await;
    // The first start creates the streams, so that all revisions are there at the second.
    Resolver::start(&nats, &file).await.stop().await;
    for tag in 0..8 {
        let image = format!("registry.example.com/shop/web:v{tag}");
        publish_revision(&nats, &image, Some(&digest)).await;
    }
    let resolver = Resolver::start(&nats, &file).await;
    wait_manifests(&nats, 1).await;
    all_done(&nats).await;
    assert_eq!(shelf.asked(), 2, "the manifest and its config");
    // Another instance does not read the manifest again.
    resolver.stop().await;
    let another = Resolver::start(&nats, &file).await;
    publish_revision(&nats, "registry.example.com/shop/web:latest", Some(&digest)).await;
    eventually(
        "the second revision to find the manifest",
        SOON,
        async || (counted(&another, "known") == 1).then_some(()),
    )
    .await;
    all_done(&nats).await;
    assert_eq!((shelf.asked(), manifests(&nats).await.len()), (2, 1));
    another.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_read_is_retried_and_a_pause_kept() {
    let (nats, shelf, mut tasks) = (TestNats::start().await, Shelf::default(), JoinSet::new());
    let (digest, _) = shelf.image("one");
    *shelf.first.lock().unwrap() = vec![
        crate::broken,
        crate::pause,
        forbidden,
        crate::broken,
        crate::broken,
    ];
    let resolver = Resolver::start(&nats, &shelf.serve(&mut tasks).await).await;
    publish_revision(&nats, IMAGE, Some(&digest)).await;
    let manifest = wait_manifests(&nats, 1).await.remove(0);
    assert_eq!(manifest.labels["name"], "one");
    all_done(&nats).await;
    let counts = ["failed", "busy", "refused", "read", "given_up"]
        .map(|outcome| counted(&resolver, outcome));
    assert_eq!(counts, [3, 1, 1, 1, 0]);
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_manifest_is_recorded_and_then_the_registry_is_asked_for_the_tag() {
    let (nats, shelf, mut tasks) = (TestNats::start().await, Shelf::default(), JoinSet::new());
    let db = tagtrail_testkit::postgres().await;
    let digest = Digest::sha256_of(b"deleted just after the push");
    let file = shelf.serve(&mut tasks).await;
    let resolver = Resolver::with_database(&nats, &file, db.url()).await;
    publish_revision(&nats, IMAGE, Some(&digest)).await;
    let mut sql = db.connect().await;
    let recorded = async |sql: &mut PgConnection| -> Option<bool> {
        let missing = "select given_up from missing_manifest where registry = 'registry.example.com' and digest = $1";
        sqlx::query_scalar(missing)
            .bind(digest.as_bytes())
            .fetch_optional(sql)
            .await
            .unwrap()
    };
    eventually("the missing manifest to be recorded", SOON, async || {
        recorded(&mut sql).await
    })
    .await;
    let answer = wait_answers(&nats, 1).await.remove(0);
    assert_eq!(recorded(&mut sql).await, Some(true));
    assert_eq!(answer.action, Action::Delete);
    assert_eq!(answer.event_id, format!("doubt:{IMAGE}#1"));
    all_done(&nats).await;
    let counts = ["absent", "given_up"].map(|outcome| counted(&resolver, outcome));
    assert_eq!(counts, [5, 1]);
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_match_the_digest_are_refused() {
    let (nats, shelf, mut tasks) = (TestNats::start().await, Shelf::default(), JoinSet::new());
    let (digest, config) = shelf.image("one");
    let path = |kind: &str, digest: &Digest| format!("/v2/shop/web/{kind}/{digest}");
    // A forged config does not prevent reading the manifest.
    let forged = br#"{"config":{"Labels":{"name":"forged"}}}"#.to_vec();
    shelf
        .has
        .lock()
        .unwrap()
        .insert(path("blobs", &config), forged);
    let wrong = Digest::sha256_of(b"something else");
    shelf
        .has
        .lock()
        .unwrap()
        .insert(path("manifests", &wrong), b"{}".to_vec());
    let resolver = Resolver::start(&nats, &shelf.serve(&mut tasks).await).await;
    publish_revision(&nats, "registry.example.com/shop/web:wrong", Some(&wrong)).await;
    publish_revision(&nats, IMAGE, Some(&digest)).await;
    let found = wait_manifests(&nats, 1).await;
    all_done(&nats).await;
    assert_eq!((found.len(), &found[0].digest), (1, &digest));
    assert!(
        found[0].labels.is_empty() && found[0].platforms.is_empty(),
        "{found:?}"
    );
    assert_eq!(found[0].media_type, MANIFEST);
    // Four attempts for the wrong manifest; three for the config, which the fourth leaves out.
    assert_eq!(
        (
            counted(&resolver, "refused"),
            counted(&resolver, "given_up")
        ),
        (7, 1)
    );
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_config_or_image_of_an_index_is_left_out() {
    let (nats, shelf, mut tasks) = (TestNats::start().await, Shelf::default(), JoinSet::new());
    let (image, config) = shelf.image("one");
    let lost = Digest::sha256_of(b"lost");
    let index = shelf.put("manifests", &json!({ "manifests": [
        { "mediaType": MANIFEST, "digest": lost, "platform": { "os": "linux", "architecture": "amd64" } },
        { "mediaType": MANIFEST, "digest": image, "platform": { "os": "linux", "architecture": "arm64" } },
    ] }));
    let blob = format!("/v2/shop/web/blobs/{config}");
    shelf.has.lock().unwrap().remove(&blob);
    let resolver = Resolver::start(&nats, &shelf.serve(&mut tasks).await).await;
    publish_revision(&nats, "registry.example.com/shop/web:index", Some(&index)).await;
    let of_index = wait_manifests(&nats, 1).await.remove(0);
    assert_eq!((of_index.platforms.len(), of_index.labels.len()), (2, 0));
    publish_revision(&nats, IMAGE, Some(&image)).await;
    let of_image = wait_manifests(&nats, 2).await.remove(1);
    assert_eq!((of_image.platforms.len(), of_image.labels.len()), (0, 0));
    assert_eq!(of_index.image, None, "the image of the index is missing");
    let contents = of_image.image.unwrap();
    assert_eq!((contents.size, contents.settings), (7, None));
    all_done(&nats).await;
    assert_eq!(counted(&resolver, "read"), 2);
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_go_containerregistry_has_the_labels_of_its_image() {
    let (nats, shelf, mut tasks) = (TestNats::start().await, Shelf::default(), JoinSet::new());
    let config = shelf.put("blobs", &json!({
        "os": "linux", "architecture": "arm64", "created": "0001-01-01T00:00:00Z",
        "config": { "Labels": { "org.opencontainers.image.created": "2026-05-06T07:08:09Z", SOURCE: "https://git.example.com/ko" } },
    }));
    let image = shelf.put(
        "manifests",
        &json!({
            "mediaType": MANIFEST, "config": { "mediaType": CONFIG, "digest": config },
            "annotations": { "org.opencontainers.image.created": "0001-01-01T00:00:00Z" },
        }),
    );
    let index = shelf.put(
        "manifests",
        &json!({ "manifests": [{
        "mediaType": MANIFEST, "size": 909, "digest": image, "artifactType": CONFIG,
        "platform": { "architecture": "arm64", "os": "linux" },
    }] }),
    );
    let resolver = Resolver::start(&nats, &shelf.serve(&mut tasks).await).await;
    publish_revision(&nats, IMAGE, Some(&index)).await;
    let found = wait_manifests(&nats, 1).await.remove(0);
    assert_eq!(found.source.as_deref(), Some("https://git.example.com/ko"));
    assert_eq!(found.platforms.len(), 1);
    assert_eq!(
        found.created,
        instant::parse("2026-05-06T07:08:09Z"),
        "the first time that is one"
    );
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_indexes_has_the_platforms_of_the_first_index() {
    let nats = TestNats::start().await;
    let (shelf, mut tasks) = (Shelf::default(), JoinSet::new());
    let file = shelf.serve(&mut tasks).await;
    let resolver = Resolver::start(&nats, &file).await;
    let image = shelf.put(
        "manifests",
        &json!({
            "config": { "mediaType": CONFIG, "digest": Digest::sha256_of(b"config") },
            "layers": [{ "digest": Digest::sha256_of(b"layer"), "size": 7 }],
            "annotations": { "org.opencontainers.image.revision": "9f2c" },
        }),
    );
    let index = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image,
        "platform": { "os": "windows", "architecture": "amd64", "os.version": "10.0.20348.2113" },
    }]});
    let inner = shelf.put("manifests", &index);
    let outer = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": inner,
    }]});
    let outer = shelf.put("manifests", &outer);
    publish_revision(&nats, "registry.example.com/shop/web:v1", Some(&outer)).await;
    let found = wait_manifests(&nats, 1).await.remove(0);
    assert_eq!(found.revision.as_deref(), Some("9f2c"));
    let version = found.platforms[0].os_version.as_deref();
    assert_eq!(version, Some("10.0.20348.2113"));
    assert_eq!(found.platforms[0].digest, Some(image.clone()));
    let contents = found.image.unwrap();
    assert_eq!((contents.digest, contents.size), (image, 7));
    let platform = contents.platform.as_deref();
    assert_eq!(platform, Some("windows/amd64:10.0.20348.2113"));
    assert_eq!(
        contents.settings, None,
        "a config would be a fourth request"
    );
    assert_eq!(shelf.asked.lock().unwrap().len(), 3);
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_configured_registries_are_asked_and_questions_do_not_wait() {
    let (nats, shelf, mut tasks) = (TestNats::start().await, Shelf::default(), JoinSet::new());
    let (digest, _) = shelf.image("one");
    // Accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let good = crate::Fake::start(vec![crate::found]).await;
    let file = [
        shelf.serve(&mut tasks).await,
        registry("silent.example.com", &url),
        registry("good.example.com", &good.url),
    ];
    let resolver = Resolver::start(&nats, &file.concat()).await;
    publish_revision(&nats, "other.example.com/shop/web:latest", Some(&digest)).await;
    for n in 0..40 {
        let image = format!("silent.example.com/shop/r{n}:latest");
        publish_revision(&nats, &image, Some(&Digest::sha256_of(&[n]))).await;
    }
    eventually(
        "the revision without a registry to be skipped",
        SOON,
        async || (counted(&resolver, "not_configured") == 1).then_some(()),
    )
    .await;
    crate::ask(&nats, question("good.example.com/a:b", "1")).await;
    assert_eq!(wait_answers(&nats, 1).await.len(), 1);
    // Reads that hang do not delay other reads either.
    publish_revision(&nats, IMAGE, Some(&digest)).await;
    assert_eq!(wait_manifests(&nats, 1).await[0].digest, digest);
    let stopping = std::time::Instant::now();
    resolver.stop().await;
    assert!(stopping.elapsed() < SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_finishes_the_reads_of_a_stopped_one() {
    let (nats, shelf, mut tasks) = (TestNats::start().await, Shelf::default(), JoinSet::new());
    let (digest, _) = shelf.image("one");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let first = Resolver::start(&nats, &registry("registry.example.com", &url)).await;
    publish_revision(&nats, IMAGE, Some(&digest)).await;
    // The open connection keeps the resolver waiting for an answer.
    let _connection = tokio::time::timeout(SOON, silent.accept()).await.unwrap();
    first.stop().await;
    let second = Resolver::start(&nats, &shelf.serve(&mut tasks).await).await;
    assert_eq!(wait_manifests(&nats, 1).await[0].digest, digest);
    all_done(&nats).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_nats_in_the_middle_loses_no_manifest_and_doubles_none() {
    let (nats, shelf, mut tasks) = (TestNats::start().await, Shelf::default(), JoinSet::new());
    let mut digests: Vec<Digest> = (0..12)
        .map(|n| shelf.image(&format!("image {n}")).0)
        .collect();
    digests.sort();
    let resolver = Resolver::start(&nats, &shelf.serve(&mut tasks).await).await;
    let publish_all = async || {
        for (n, digest) in digests.iter().enumerate() {
            let image = format!("registry.example.com/shop/web:v{n}");
            publish_revision(&nats, &image, Some(digest)).await;
        }
    };
    publish_all().await;
    wait_manifests(&nats, 1).await;
    nats.crash().await;
    eventually("nats-server to answer", SOON, async || {
        nats.client().await?;
        let jetstream = nats.jetstream().await;
        jetstream.get_stream("REVISIONS").await.ok()
    })
    .await;
    // REVISIONS may have lost its last messages, which the indexer then publishes again.
    publish_all().await;
    // NATS redelivers messages of the lost connection only after `ack_wait`.
    let patience = std::time::Duration::from_secs(150);
    let kept = eventually("each manifest", patience, async || {
        Some(manifests(&nats).await).filter(|found| found.len() >= digests.len())
    })
    .await;
    let mut kept: Vec<Digest> = kept.into_iter().map(|one| one.digest).collect();
    kept.sort();
    assert_eq!(kept, digests);
    resolver.stop().await;
}
