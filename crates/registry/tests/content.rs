//! Content by its digest: from registries that keep it elsewhere, have it no more, or give other bytes.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use tagtrail_config::File;
use tagtrail_proto::{Digest, Repository};
use tagtrail_registry::{AskError, Content, RegistryClient};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server that answers by a function of the path and the `Authorization`, and remembers what it was asked.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(
        answer: impl Fn(&str, Option<&str>) -> Response + Clone + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            let uri = request.uri().to_string();
            let headers = request.headers().clone();
            let shown = headers
                .get("authorization")
                .map(|value| value.to_str().unwrap());
            let response = answer(&uri, shown);
            log.lock().unwrap().push((uri, headers));
            async move { response }
        });
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Server {
            url,
            asked,
            _task: task,
        }
    }

    fn paths(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(path, _)| path.clone()).collect()
    }

    fn shown(&self) -> Vec<bool> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .map(|(_, headers)| headers.contains_key("authorization"))
            .collect()
    }
}

fn registry(url: &str, more: &str) -> RegistryClient {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = format!("[[registry]]\nname = \"registry.example.com\"\nurl = \"{url}\"\n{more}");
    let file = File::parse(&text, "tagtrail.toml".as_ref()).unwrap();
    RegistryClient::new(&file, &file.registry[0]).unwrap()
}

fn web() -> Repository {
    "shop/web".parse().unwrap()
}

const BYTES: &[u8] = br#"{"schemaVersion":2}"#;
const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn good() -> Response {
    ([("content-type", TYPE)], BYTES).into_response()
}

fn problem(status: u16, code: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, AskError>) -> String {
    match outcome {
        Err(AskError::Refused(cause)) => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn content_is_what_its_digest_says_by_either_hash() {
    let server = Server::start(|_, _| good()).await;
    let registry = registry(&format!("{}/mirror", server.url), "");
    let content = Some(Content {
        bytes: BYTES.to_vec(),
        media_type: Some(TYPE.to_owned()),
    });
    for digest in [Digest::sha256_of(BYTES), Digest::sha512_of(BYTES)] {
        assert_eq!(
            registry.read_manifest(&web(), &digest).await.unwrap(),
            content
        );
        assert_eq!(registry.read_blob(&web(), &digest).await.unwrap(), content);
        assert_eq!(
            server.paths()[server.paths().len() - 2..],
            ["manifests", "blobs"].map(|kind| format!("/mirror/v2/shop/web/{kind}/{digest}"))
        );
    }
    let accept = |n: usize| server.asked.lock().unwrap()[n].1["accept"].clone();
    assert!(accept(0).to_str().unwrap().contains("image.index"));
    assert_eq!(accept(1), "*/*");
    for digest in [Digest::sha256_of(b"other"), Digest::sha512_of(b"other")] {
        let manifest = registry.read_manifest(&web(), &digest).await;
        assert!(refused(manifest).contains("with bytes that are"));
        let blob = registry.read_blob(&web(), &digest).await;
        assert!(refused(blob).contains("with bytes that are"));
    }
}

#[tokio::test]
async fn what_is_gone_is_told_from_what_may_not_be_read() {
    let digest = Digest::sha256_of(BYTES);
    for (status, code, gone) in [
        (404, "MANIFEST_UNKNOWN", true),
        (404, "BLOB_UNKNOWN", true),
        (404, "NAME_UNKNOWN", true),
        (404, "", false),
        (403, "DENIED", false),
    ] {
        let server = Server::start(move |_, _| problem(status, code)).await;
        let registry = registry(&server.url, "");
        for outcome in [
            registry.read_manifest(&web(), &digest).await,
            registry.read_blob(&web(), &digest).await,
        ] {
            if gone {
                assert_eq!(outcome, Ok(None), "{code}");
            } else {
                refused(outcome);
            }
        }
    }
    let busy = Server::start(|_, _| {
        (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")]).into_response()
    })
    .await;
    let pause = AskError::Busy {
        after: Some(Duration::from_secs(7)),
    };
    let answer = registry(&busy.url, "").read_blob(&web(), &digest).await;
    assert_eq!(answer, Err(pause));
    let broken = Server::start(|_, _| StatusCode::BAD_GATEWAY.into_response()).await;
    let answer = registry(&broken.url, "").read_blob(&web(), &digest).await;
    assert!(matches!(answer, Err(AskError::Failed(_))), "{answer:?}");
}

#[tokio::test]
async fn more_than_a_config_or_a_manifest_has_is_not_read() {
    let large = vec![b'x'; 5 * 1024 * 1024];
    let digest = Digest::sha256_of(&large);
    let server = Server::start(move |_, _| large.clone().into_response()).await;
    let registry = registry(&server.url, "");
    let manifest = registry.read_manifest(&web(), &digest).await;
    assert!(refused(manifest).contains("more than 4 MiB"));
    let blob = registry.read_blob(&web(), &digest).await;
    assert!(refused(blob).contains("more than 1 MiB"));
}

#[tokio::test]
async fn a_blob_that_is_kept_elsewhere_is_fetched_there_without_a_password() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "s3cret").unwrap();
    let password = format!(
        "username = \"ci\"\npassword = {{ file = {:?} }}\n",
        folder.path().join("password")
    );
    // Another port is another origin; http, since the registry's own is http too.
    let store = Server::start(|_, _| good()).await;
    let there = format!("{}/x?signature=1", store.url);
    let server = Server::start(move |_, shown| match shown {
        Some(_) => Redirect::temporary(&there).into_response(),
        None => (
            StatusCode::UNAUTHORIZED,
            [("www-authenticate", "Basic realm=\"x\"")],
        )
            .into_response(),
    })
    .await;
    let registry = registry(&server.url, &password);
    let digest = Digest::sha256_of(BYTES);
    let content = registry.read_blob(&web(), &digest).await.unwrap().unwrap();
    assert_eq!(content.bytes, BYTES);
    assert_eq!(server.shown(), [false, true]);
    assert_eq!(
        (store.shown(), store.paths()),
        (vec![false], vec!["/x?signature=1".to_owned()])
    );
    // A manifest is the registry's own to give.
    let manifest = registry.read_manifest(&web(), &digest).await;
    assert!(refused(manifest).contains("another host"));
    assert_eq!(store.paths().len(), 1);
}

#[tokio::test]
async fn whoever_is_sent_back_from_elsewhere_shows_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "s3cret").unwrap();
    let password = format!(
        "username = \"ci\"\npassword = {{ file = {:?} }}\n",
        folder.path().join("password")
    );
    let back: Arc<Mutex<String>> = Arc::default();
    let to = Arc::clone(&back);
    let store =
        Server::start(move |_, _| Redirect::temporary(&to.lock().unwrap()).into_response()).await;
    let there = store.url.clone();
    let server = Server::start(move |path, shown| match (path, shown) {
        ("/admin", _) => good(),
        (_, Some(_)) => Redirect::temporary(&there).into_response(),
        _ => (
            StatusCode::UNAUTHORIZED,
            [("www-authenticate", "Basic realm=\"x\"")],
        )
            .into_response(),
    })
    .await;
    *back.lock().unwrap() = format!("{}/admin", server.url);
    let registry = registry(&server.url, &password);
    let content = registry.read_blob(&web(), &Digest::sha256_of(BYTES)).await;
    assert!(content.unwrap().is_some());
    assert_eq!(server.paths().last().unwrap(), "/admin");
    assert_eq!(server.shown(), [false, true, false]);
}

#[tokio::test]
async fn blobs_are_not_fetched_wherever_a_registry_says() {
    let digest = Digest::sha256_of(BYTES);
    for (to, said) in [
        ("http://store.example.com/x", "where no blob is fetched"),
        ("ftp://127.0.0.1/x", "where no blob is fetched"),
        ("http://127.0.0.2:9/x", "where no blob is fetched"),
        ("/round", "more than 3 times"),
    ] {
        let server = Server::start(move |_, _| Redirect::temporary(to).into_response()).await;
        let answer = registry(&server.url, "").read_blob(&web(), &digest).await;
        let cause = refused(answer);
        assert!(cause.contains(said), "{to}: {cause}");
        let asked = if to == "/round" { 4 } else { 1 };
        assert_eq!(server.paths().len(), asked);
    }
    let server = Server::start(|_, _| StatusCode::FOUND.into_response()).await;
    let answer = registry(&server.url, "").read_blob(&web(), &digest).await;
    assert!(refused(answer).contains("redirects to nowhere"));
}

#[tokio::test]
async fn reading_leaves_turns_to_those_who_ask() {
    // Never answers what is read; tags at once.
    let digest = Digest::sha256_of(BYTES);
    let (named, reading) = (digest.to_string(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&reading);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(move |request: Request| {
        let tag = request.uri().path().ends_with("/latest");
        let (named, counted) = (named.clone(), Arc::clone(&counted));
        async move {
            if !tag {
                counted.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            [("docker-content-digest", named)].into_response()
        }
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let registry = Arc::new(registry(&url, ""));
    for _ in 0..10 {
        let (registry, digest) = (Arc::clone(&registry), digest.clone());
        tasks.spawn(async move { drop(registry.read_blob(&web(), &digest).await) });
    }
    let soon = Duration::from_secs(10);
    let asking = async {
        while reading.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        registry.resolve(&web(), &"latest".parse().unwrap()).await
    };
    let found = tokio::time::timeout(soon, asking).await.unwrap();
    assert_eq!(found.unwrap().unwrap().digest, digest);
    assert_eq!(reading.load(Ordering::SeqCst), 2);
}
