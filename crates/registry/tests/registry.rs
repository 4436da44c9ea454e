//! Registries that answer like real ones, and registries that misbehave.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tagtrail_config::File;
use tagtrail_proto::Digest;
use tagtrail_registry::{AskError, Descriptor, RegistryClient};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server whose answer is a function of the request, and which logs its requests.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<(Method, String, HeaderMap)>>>,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(
        answer: impl Fn(&Method, &str, &HeaderMap) -> Response + Clone + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            let uri = request.uri().to_string();
            let headers = request.headers().clone();
            log.lock()
                .unwrap()
                .push((request.method().clone(), uri.clone(), headers.clone()));
            let response = answer(request.method(), &uri, &headers);
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

    /// `GET /path`, in the order asked.
    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .map(|(method, uri, _)| format!("{method} {uri}"))
            .collect()
    }

    fn authorizations(&self) -> Vec<Option<String>> {
        let asked = self.asked.lock().unwrap();
        let shown =
            |headers: &HeaderMap| Some(headers.get("authorization")?.to_str().unwrap().to_owned());
        asked.iter().map(|(_, _, headers)| shown(headers)).collect()
    }
}

fn registry(url: &str, more: &str) -> RegistryClient {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = format!("[[registry]]\nname = \"registry.example.com\"\nurl = \"{url}\"\n{more}");
    let file = File::parse(&text, "tagtrail.toml".as_ref()).unwrap();
    RegistryClient::new(&file, &file.registry[0]).unwrap()
}

/// User `ci` with the password `s3cret`.
fn with_password(folder: &std::path::Path) -> String {
    let path = folder.join("password");
    std::fs::write(&path, "s3cret\n").unwrap();
    format!(
        "username = \"ci\"\npassword = {{ file = \"{}\" }}\n",
        path.display()
    )
}

async fn ask(registry: &RegistryClient) -> Result<Option<Descriptor>, AskError> {
    registry
        .resolve(&"shop/web".parse().unwrap(), &"latest".parse().unwrap())
        .await
}

const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;
const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const PATH: &str = "/v2/shop/web/manifests/latest";

fn found(digest: Digest) -> Option<Descriptor> {
    Some(Descriptor {
        digest,
        media_type: Some(TYPE.to_owned()),
        size: Some(MANIFEST.len() as u64),
    })
}

fn manifest(digest: Option<&str>) -> Response {
    let mut response = (
        [("content-type", format!("{TYPE}; charset=utf-8"))],
        MANIFEST,
    )
        .into_response();
    if let Some(digest) = digest {
        response
            .headers_mut()
            .insert("docker-content-digest", digest.parse().unwrap());
    }
    response
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

fn unauthorized(challenge: &str) -> Response {
    (
        StatusCode::UNAUTHORIZED,
        [("www-authenticate", challenge.to_owned())],
    )
        .into_response()
}

#[tokio::test]
async fn one_head_is_enough_where_the_digest_is_named() {
    let digest = Digest::sha256_of(MANIFEST);
    let named = digest.to_string();
    let server = Server::start(move |_, _, _| manifest(Some(&named))).await;
    assert_eq!(ask(&registry(&server.url, "")).await, Ok(found(digest)));
    assert_eq!(server.asked(), [format!("HEAD {PATH}")]);
    let asked = server.asked.lock().unwrap();
    let accept = asked[0].2["accept"].to_str().unwrap();
    for kind in [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ] {
        assert!(accept.contains(kind), "{kind}");
    }
}

#[tokio::test]
async fn without_a_named_digest_the_bytes_are_hashed() {
    for head in [200, 405, 501, 404, 400] {
        let server = Server::start(move |method, _, _| match (method, head) {
            (&Method::GET, _) | (_, 200) => manifest(None),
            _ => status(head),
        })
        .await;
        let descriptor = ask(&registry(&server.url, "")).await.unwrap();
        assert_eq!(
            descriptor,
            found(Digest::sha256_of(MANIFEST)),
            "HEAD answers {head}"
        );
        assert_eq!(
            server.asked(),
            [format!("HEAD {PATH}"), format!("GET {PATH}")]
        );
    }
}

#[tokio::test]
async fn a_path_in_the_url_stays_in_front() {
    let server = Server::start(|_, _, _| manifest(None)).await;
    ask(&registry(&format!("{}/mirror", server.url), ""))
        .await
        .unwrap();
    assert_eq!(server.asked()[0], format!("HEAD /mirror{PATH}"));
}

#[tokio::test]
async fn bytes_that_do_not_match_the_named_digest_are_refused() {
    let sha512 = Digest::sha512_of(MANIFEST);
    for (named, right) in [
        (Digest::sha256_of(MANIFEST), true),
        (sha512.clone(), true),
        (Digest::sha256_of(b"other"), false),
        (Digest::sha512_of(b"other"), false),
    ] {
        let text = named.to_string();
        let server = Server::start(move |method, _, _| match *method {
            Method::GET => manifest(Some(&text)),
            _ => status(405),
        })
        .await;
        match ask(&registry(&server.url, "")).await {
            Ok(descriptor) => {
                assert!(right, "{named}");
                assert_eq!(descriptor, found(named));
            }
            Err(AskError::Failed(cause)) => {
                assert!(!right && cause.contains("its bytes are"), "{cause}")
            }
            Err(other) => panic!("{other}"),
        }
    }
    let server = Server::start(|_, _, _| manifest(Some("sha256:00"))).await;
    assert!(matches!(
        ask(&registry(&server.url, "")).await,
        Err(AskError::Failed(_))
    ));
}

#[tokio::test]
async fn a_password_is_sent_only_after_a_challenge() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _, headers| match headers.get("authorization") {
        Some(value) if value == "Basic Y2k6czNjcmV0" => manifest(None),
        _ => unauthorized("Basic realm=\"x\""),
    })
    .await;
    let right = registry(&server.url, &with_password(folder.path()));
    ask(&right).await.unwrap();
    ask(&right).await.unwrap();
    let shown = Some("Basic Y2k6czNjcmV0".to_owned());
    assert_eq!(
        server.authorizations(),
        [None, shown.clone(), shown.clone(), shown.clone(), shown],
        "HEAD, HEAD again, GET; HEAD, GET"
    );
    let none = ask(&registry(&server.url, "")).await.unwrap_err();
    assert!(
        matches!(&none, AskError::Refused(cause) if cause.contains("add username and password")),
        "{none}"
    );
    std::fs::write(folder.path().join("password"), "wrong").unwrap();
    let wrong = with_password(folder.path()).replace("\"ci\"", "\"other\"");
    let wrong = ask(&registry(&server.url, &wrong)).await.unwrap_err();
    assert!(
        matches!(&wrong, AskError::Refused(cause) if cause.contains("check username and password")),
        "{wrong}"
    );
}

/// A registry with tokens: `/token` issues `t1`, `t2` …, and only the newest is accepted.
async fn with_tokens(realm: Option<String>, issued: Arc<AtomicUsize>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let realm = realm.unwrap_or(format!("{url}/token"));
    // The server reuses this address, because the realm is part of its answers.
    let answer = move |_: &Method, uri: &str, headers: &HeaderMap| {
        if uri.starts_with("/token") {
            if headers
                .get("authorization")
                .is_none_or(|value| value != "Basic Y2k6czNjcmV0")
            {
                return status(401);
            }
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            return format!(r#"{{"token":"t{number}","expires_in":300}}"#).into_response();
        }
        let good = format!("Bearer t{}", issued.load(Ordering::SeqCst));
        match headers.get("authorization") {
            Some(value) if *value == good => {
                manifest(Some(&Digest::sha256_of(MANIFEST).to_string()))
            }
            _ => unauthorized(&format!(
                r#"Bearer realm="{realm}",service="registry",scope="repository:shop/web:pull""#
            )),
        }
    };
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let server = Server::start_at(&address, answer).await;
    assert_eq!(server.url, url);
    server
}

impl Server {
    async fn start_at(
        address: &str,
        answer: impl Fn(&Method, &str, &HeaderMap) -> Response + Clone + Send + Sync + 'static,
    ) -> Server {
        let mut server = Server::start(answer).await;
        // A proxy in front of the first server.
        let inner = server.url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind(address).await.unwrap();
        server._task.spawn(async move {
            let mut pipes = JoinSet::new();
            loop {
                let (mut outside, _) = listener.accept().await.unwrap();
                let inner = inner.clone();
                pipes.spawn(async move {
                    let mut inside = tokio::net::TcpStream::connect(inner).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        server.url = format!("http://{address}");
        server
    }
}

#[tokio::test]
async fn a_token_is_reused_until_it_is_rejected() {
    let (folder, issued) = (tempfile::tempdir().unwrap(), Arc::new(AtomicUsize::new(0)));
    let server = with_tokens(None, Arc::clone(&issued)).await;
    let registry = registry(&server.url, &with_password(folder.path()));
    for _ in 0..3 {
        ask(&registry).await.unwrap();
    }
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    assert_eq!(
        server.asked(),
        [
            &format!("HEAD {PATH}"),
            "GET /token?service=registry&scope=repository%3Ashop%2Fweb%3Apull",
            &format!("HEAD {PATH}"),
            &format!("HEAD {PATH}"),
            &format!("HEAD {PATH}"),
        ]
    );
    issued.fetch_add(1, Ordering::SeqCst); // t1 is no longer accepted
    ask(&registry).await.unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_realm_of_another_origin_gets_no_password_unless_it_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let issued = Arc::new(AtomicUsize::new(0));
    let issue = Arc::clone(&issued);
    let elsewhere = Server::start(move |_, _, _| {
        let number = issue.fetch_add(1, Ordering::SeqCst) + 1;
        format!(r#"{{"access_token":"t{number}"}}"#).into_response()
    })
    .await;
    let server = with_tokens(Some(format!("{}/token", elsewhere.url)), issued).await;
    let password = with_password(folder.path());
    let error = ask(&registry(&server.url, &password)).await.unwrap_err();
    let cure = format!("add realm = \"{}\"", elsewhere.url);
    assert!(
        matches!(&error, AskError::Refused(cause) if cause.contains(&cure)),
        "{error}"
    );
    assert_eq!(elsewhere.asked(), [""; 0]);
    let configured = format!("{password}realm = \"{}\"\n", elsewhere.url);
    ask(&registry(&server.url, &configured)).await.unwrap();
    assert_eq!(elsewhere.asked().len(), 1);
}

#[tokio::test]
async fn an_issuer_for_several_registries_is_asked_for_the_repository_and_reading_alone() {
    let hostile = "repository:payroll/app:pull,push,delete repository:shop/web:*";
    let challenge = move |realm: &str| {
        unauthorized(&format!(
            r#"Bearer realm="{realm}",service="registry",scope="{hostile}""#
        ))
    };
    let issuer = Server::start(|_, _, _| r#"{"token":"t"}"#.into_response()).await;
    let realm = format!("{}/token", issuer.url);
    let server = Server::start(move |_, _, headers| match headers.get("authorization") {
        Some(_) => manifest(Some(&Digest::sha256_of(MANIFEST).to_string())),
        None => challenge(&realm),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let settings = format!(
        "{}realm = \"{}\"\n",
        with_password(folder.path()),
        issuer.url
    );
    ask(&registry(&server.url, &settings)).await.unwrap();
    assert_eq!(
        issuer.asked(),
        ["GET /token?service=registry&scope=repository%3Ashop%2Fweb%3Apull"]
    );
}

#[tokio::test]
async fn redirects_are_followed_within_the_registry_only() {
    let other = Server::start(|_, _, _| manifest(None)).await;
    let target = other.url.clone();
    let server = Server::start(move |_, uri, _| match uri {
        PATH => (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response(),
        "/elsewhere" => manifest(None),
        "/v2/shop/web/manifests/away" => {
            (StatusCode::FOUND, [("location", target.clone())]).into_response()
        }
        _ => (StatusCode::FOUND, [("location", "/round")]).into_response(),
    })
    .await;
    let registry = registry(&server.url, "");
    assert!(ask(&registry).await.unwrap().is_some());
    for (tag, said) in [("away", "another host"), ("round", "more than 3 times")] {
        let error = registry
            .resolve(&"shop/web".parse().unwrap(), &tag.parse().unwrap())
            .await
            .unwrap_err();
        assert!(
            matches!(&error, AskError::Refused(cause) if cause.contains(said)),
            "{error}"
        );
    }
    assert_eq!(other.asked(), [""; 0]);
}

#[tokio::test]
async fn every_status_becomes_the_right_error() {
    let json = |code: u16, body: &'static str| {
        (
            StatusCode::from_u16(code).unwrap(),
            [("content-type", "application/json")],
            body,
        )
            .into_response()
    };
    let with_pause = |code: u16, pause: &str| {
        (
            StatusCode::from_u16(code).unwrap(),
            [("retry-after", pause.to_owned())],
        )
            .into_response()
    };
    let busy = |seconds| AskError::Busy {
        after: Some(Duration::from_secs(seconds)),
    };
    // Some registries answer 404 when access is denied, which must not count as a missing tag.
    let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    assert_eq!(answer(json(404, unknown)).await, Ok(None));
    assert!(refused(answer(json(404, "<html>not found</html>")).await).contains("check url"));
    assert!(
        refused(
            answer(json(
                403,
                r#"{"errors":[{"code":"DENIED","message":"no\u0000"}]}"#
            ))
            .await
        )
        .contains("DENIED no")
    );
    assert!(refused(answer(json(400, "?")).await).contains("400"));
    assert!(
        refused(answer(unauthorized("Negotiate")).await).contains("unknown kind of authentication")
    );
    assert_eq!(answer(with_pause(429, "30")).await, Err(busy(30)));
    assert_eq!(answer(with_pause(503, "5")).await, Err(busy(5)));
    assert_eq!(
        answer(status(429)).await,
        Err(AskError::Busy { after: None })
    );
    assert_eq!(
        answer(with_pause(429, "Wed, 21 Oct 2015 07:28:00 GMT")).await,
        Err(busy(0))
    );
    assert_eq!(answer(with_pause(429, "999999999")).await, Err(busy(3600)));
    for code in [500, 502, 503, 408] {
        assert!(
            matches!(answer(status(code)).await, Err(AskError::Failed(_))),
            "{code}"
        );
    }
    let endless = || vec![b'x'; 5 * 1024 * 1024].into_response();
    assert!(
        matches!(answer(endless()).await, Err(AskError::Failed(cause)) if cause.contains("4 MiB"))
    );
    let nobody = ask(&registry("http://127.0.0.1:9", "")).await;
    assert!(matches!(nobody, Err(AskError::Failed(cause)) if cause.contains("can't be reached")));
}

/// Resolves a tag at a registry that gives this answer to every request.
async fn answer(response: Response) -> Result<Option<Descriptor>, AskError> {
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let server =
        Server::start(move |_, _, _| Response::from_parts(parts.clone(), bytes.clone().into()))
            .await;
    ask(&registry(&server.url, "")).await
}

fn refused(outcome: Result<Option<Descriptor>, AskError>) -> String {
    match outcome {
        Err(AskError::Refused(cause)) => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn at_most_four_requests_run_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let now: Arc<Mutex<HashMap<&str, usize>>> = Arc::default();
    let counts = Arc::clone(&now);
    let router = Router::new().fallback(move || {
        let counts = Arc::clone(&counts);
        async move {
            {
                let mut counts = counts.lock().unwrap();
                let now = *counts.entry("now").and_modify(|now| *now += 1).or_insert(1);
                counts
                    .entry("most")
                    .and_modify(|most| *most = now.max(*most))
                    .or_insert(now);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            *counts.lock().unwrap().get_mut("now").unwrap() -= 1;
            manifest(Some(&Digest::sha256_of(MANIFEST).to_string()))
        }
    });
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let registry = Arc::new(registry(&url, ""));
    let mut questions = JoinSet::new();
    for _ in 0..20 {
        let registry = Arc::clone(&registry);
        questions.spawn(async move { ask(&registry).await.unwrap() });
    }
    assert_eq!(questions.join_all().await.len(), 20);
    assert_eq!(now.lock().unwrap()["most"], 4);
}

#[test]
fn a_wrong_entry_is_named_with_its_line_and_a_cure() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let refused = |more: &str| {
        let text = format!("[[registry]]\nname = \"registry.example.com\"\n{more}");
        let file = File::parse(&text, "tagtrail.toml".as_ref()).unwrap();
        RegistryClient::new(&file, &file.registry[0])
            .unwrap_err()
            .to_string()
    };
    let user = refused("url = \"https://ci:s3cret@registry.example.com\"");
    assert!(
        user.starts_with("tagtrail.toml:3: registry.url: ") && !user.contains("s3cret"),
        "{user}"
    );
    assert!(refused("url = \"https://\"").contains("is not a URL"));
    let unset = refused(
        "url = \"https://r.example.com\"\nusername = \"a\"\npassword = { env = \"TAGTRAIL_NEVER_SET\" }",
    );
    assert!(
        unset.contains("registry.password") && unset.contains("TAGTRAIL_NEVER_SET"),
        "{unset}"
    );
}
