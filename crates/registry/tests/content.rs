//! Reads content by its digest: from registries that redirect to another host, have deleted the
//! content, or send other bytes.

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

/// A server whose answer is a function of the path and the `Authorization` header, and which logs
/// its requests.
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
async fn content_is_verified_by_either_hash() {
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
async fn deleted_content_is_told_apart_from_denied_access() {
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
async fn content_over_the_limits_is_not_read() {
    let large = vec![b'x'; 5 * 1024 * 1024];
    let digest = Digest::sha256_of(&large);
    let server = Server::start(move |_, _| large.clone().into_response()).await;
    let registry = registry(&server.url, "");
    let manifest = registry.read_manifest(&web(), &digest).await;
    assert!(refused(manifest).contains("larger than 4 MiB"));
    let blob = registry.read_blob(&web(), &digest).await;
    assert!(refused(blob).contains("larger than 1 MiB"));
}

#[tokio::test]
async fn a_blob_on_another_host_is_fetched_without_a_password() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "s3cret").unwrap();
    let password = format!(
        "username = \"ci\"\npassword = {{ file = {:?} }}\n",
        folder.path().join("password")
    );
    // Another port is another origin. Plain http is allowed because the registry uses it too.
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
    // A manifest is never fetched from another host.
    let manifest = registry.read_manifest(&web(), &digest).await;
    assert!(refused(manifest).contains("another host"));
    assert_eq!(store.paths().len(), 1);
}

#[tokio::test]
async fn a_redirect_back_to_the_registry_gets_no_credentials() {
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
async fn redirects_of_blobs_to_forbidden_hosts_are_refused() {
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
async fn requests_for_content_leave_places_for_questions_about_tags() {
    // Requests for content get no answer, requests for tags get one at once.
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
