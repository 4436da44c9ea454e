//! The way to a registry: a proxy and a private certificate authority.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use tagtrail_config::File;
use tagtrail_registry::RegistryClient;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

fn registry(folder: &Path, settings: &str) -> Result<RegistryClient, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = format!("[[registry]]\nname = 'registry.corp.example'\n{settings}");
    let file = File::parse(&text, &folder.join("tagtrail.toml")).unwrap();
    RegistryClient::new(&file, &file.registry[0]).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_registry_is_asked_by_its_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let (seen, mut requests) = mpsc::channel(10);
    let router = Router::new().fallback(move |request: Request| {
        let seen = seen.clone();
        async move {
            seen.send(request.uri().to_string()).await.unwrap();
            StatusCode::OK.into_response()
        }
    });
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("proxy"), format!("http://{proxy}\n")).unwrap();
    let settings = "url = 'http://registry.corp.example'\nproxy = { file = 'proxy' }";
    let registry = registry(folder.path(), settings).unwrap();
    registry.ping().await.unwrap();
    let request = requests.recv().await.unwrap();
    assert_eq!(request, "http://registry.corp.example/v2/");
}

#[test]
fn a_wrong_way_is_named_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty.pem"), "no certificate").unwrap();
    let url = "url = 'https://registry.corp.example'\n";
    for (settings, expected) in [
        (
            "ca = { file = 'empty.pem' }",
            "registry.ca: the file has no certificate in PEM",
        ),
        ("ca = { file = 'missing.pem' }", "registry.ca: the file "),
        ("proxy = 'ftp://a'", "registry.proxy: is no URL of a proxy"),
    ] {
        let error = registry(folder.path(), &format!("{url}{settings}")).unwrap_err();
        let (_, error) = error.split_once(":2: ").unwrap();
        assert!(error.starts_with(expected), "{error}");
    }
}
