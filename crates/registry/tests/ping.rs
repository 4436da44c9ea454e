//! Checks of registries, with the answers that real ones give.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tagtrail_config::File;
use tagtrail_registry::{AskError, Ping, RegistryClient};
use time::{Duration, OffsetDateTime};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Checks a registry that answers by `answer`: as `ci` with the password `s3cret`, or without
/// credentials.
async fn ping(
    credentials: bool,
    answer: impl Fn(&str, &str, &HeaderMap) -> Response + Clone + Send + Sync + 'static,
) -> Result<Ping, AskError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let own = url.clone();
    let router = Router::new().fallback(move |request: Request| {
        let response = answer(&own, &request.uri().to_string(), request.headers());
        async move { response }
    });
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    registry(&url, credentials).ping().await
}

fn registry(url: &str, credentials: bool) -> RegistryClient {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "s3cret\n").unwrap();
    let credentials = match credentials {
        true => format!("username = 'ci'\npassword = {{ file = {path:?} }}\n"),
        false => String::new(),
    };
    let text = format!(
        "[[registry]]\nname = 'registry.example.com'\nurl = '{url}/behind/'\n{credentials}"
    );
    let file = File::parse(&text, "tagtrail.toml".as_ref()).unwrap();
    RegistryClient::new(&file, &file.registry[0]).unwrap()
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

fn challenge(text: &str) -> Response {
    (
        StatusCode::UNAUTHORIZED,
        [("www-authenticate", text.to_owned())],
    )
        .into_response()
}

fn shown(headers: &HeaderMap) -> &str {
    let header = headers.get("authorization");
    header.map_or("", |value| value.to_str().unwrap())
}

/// `ci:s3cret`.
const BASIC: &str = "Basic Y2k6czNjcmV0";

#[tokio::test]
async fn an_open_registry_asks_for_no_credentials() {
    let found = ping(true, |_, path, headers| {
        assert_eq!((path, shown(headers)), ("/behind/v2/", ""));
        status(200)
    })
    .await
    .unwrap();
    assert_eq!((found.scheme, found.admitted), (None, Ok(())));
}

#[tokio::test]
async fn a_missing_password_is_told_apart_from_a_right_one() {
    let basic = |_: &str, _: &str, headers: &HeaderMap| match shown(headers) {
        BASIC => status(200),
        _ => challenge("Basic realm=\"x\""),
    };
    let found = ping(true, basic).await.unwrap();
    assert_eq!((found.scheme, found.admitted), (Some("Basic"), Ok(())));
    let found = ping(false, basic).await.unwrap();
    let refused = found.admitted.unwrap_err().to_string();
    assert!(refused.contains("add username and password"), "{refused}");
    let found = ping(true, |_, _, _| challenge("Basic realm=\"x\"")).await;
    let refused = found.unwrap().admitted.unwrap_err().to_string();
    assert!(refused.contains("check username and password"), "{refused}");
}

#[tokio::test]
async fn a_token_is_fetched_without_a_scope() {
    let tokens = |own: &str, path: &str, headers: &HeaderMap| match (path, shown(headers)) {
        ("/token?service=it", BASIC) => r#"{"token":"good"}"#.into_response(),
        ("/behind/v2/", "Bearer good") => status(200),
        ("/behind/v2/", _) => challenge(&format!(
            r#"Bearer realm="{own}/token",service="it",scope="repository:user/image:pull""#
        )),
        _ => status(401),
    };
    let found = ping(true, tokens).await.unwrap();
    assert_eq!((found.scheme, found.admitted), (Some("Bearer"), Ok(())));
    let found = ping(false, tokens).await.unwrap();
    let refused = found.admitted.unwrap_err().to_string();
    assert!(
        refused.starts_with("while requesting a token: "),
        "{refused}"
    );
}

#[tokio::test]
async fn what_is_no_registry_is_said_to_be_none() {
    for (code, word) in [(404, "check url"), (403, "denies access"), (500, "500")] {
        let found = ping(true, move |_, _, _| status(code)).await.unwrap();
        let refused = found.admitted.unwrap_err().to_string();
        assert!(refused.contains(word), "{code}: {refused}");
    }
    let found = ping(true, |_, _, _| {
        let to = [("location", "https://elsewhere.example.com/v2/")];
        (StatusCode::MOVED_PERMANENTLY, to).into_response()
    })
    .await;
    let refused = found.unwrap().admitted.unwrap_err().to_string();
    assert!(
        refused.contains("https://elsewhere.example.com:"),
        "{refused}"
    );
    // Nobody is there at all.
    let nobody = registry("http://127.0.0.1:1", false).ping().await;
    assert!(matches!(nobody, Err(AskError::Failed(_))), "{nobody:?}");
}

#[tokio::test]
async fn a_clock_that_is_off_is_noticed() {
    for (offset, expected) in [(0, 0..=0), (-300, -300..=-298), (90, 88..=90)] {
        let found = ping(true, move |_, _, _| {
            let now = OffsetDateTime::now_utc() + Duration::seconds(offset);
            let date = now
                .format(&time::format_description::well_known::Rfc2822)
                .unwrap();
            (StatusCode::OK, [("date", date.replace("+0000", "GMT"))]).into_response()
        })
        .await
        .unwrap();
        let ahead = found.ahead.unwrap().whole_seconds();
        assert!(expected.contains(&ahead), "{offset}: {ahead}");
    }
}
