//! The way to a receiver: a private certificate authority, and proxies.

use tagtrail_testkit::certificates;

use super::*;

#[tokio::test]
async fn a_receiver_of_a_private_authority_is_trusted_by_ca_alone() {
    let folder = Folder::new();
    certificates(folder.0.path());
    let sink = Sink::start_tls(folder.0.path()).await;
    let url = format!("url = '{}'\n", sink.url());
    for (settings, expected) in [
        (
            "",
            Some(
                "invalid peer certificate: UnknownIssuer; if its certificate authority is private, set ca",
            ),
        ),
        ("ca = { file = 'ca.pem' }", None),
        (
            "ca = { file = 'other.pem' }",
            Some("invalid peer certificate"),
        ),
    ] {
        let outcome = folder
            .target(&format!("{url}{settings}"))
            .apply(&order())
            .await;
        match expected {
            None => assert_eq!(outcome, Outcome::Done),
            Some(expected) => {
                let error = error_of(outcome);
                assert!(error.contains(expected), "{settings}: {error}");
            }
        }
    }
    assert_eq!(sink.deliveries().len(), 1);
    for (ca, expected) in [
        ("missing.pem", "ca: the file "),
        ("server.key", "ca: the file has no certificate in PEM"),
    ] {
        let error = folder.refused(&format!("{url}ca = {{ file = '{ca}' }}"));
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn a_configured_proxy_receives_the_request_also_for_loopback() {
    let (folder, proxy, sink) = (Folder::new(), Sink::start().await, Sink::start().await);
    let address = reqwest::Url::parse(proxy.url()).unwrap();
    let address = format!("user:pass@127.0.0.1:{}", address.port().unwrap());
    folder.write("proxy", &format!("http://{address}"));
    for url in ["http://deploy.corp.example/hook?a=b", sink.url()] {
        let target = folder.target(&format!("url = '{url}'\nproxy = {{ file = 'proxy' }}"));
        assert_eq!(target.apply(&order()).await, Outcome::Done);
        let delivery = proxy.deliveries().pop().unwrap();
        assert_eq!(delivery.uri, url);
        assert_eq!(delivery.header("proxy-authorization"), "Basic dXNlcjpwYXNz");
    }
    let direct = folder.target(&format!("url = '{}'\nproxy = 'none'", sink.url()));
    assert_eq!(direct.apply(&order()).await, Outcome::Done);
    assert_eq!((proxy.deliveries().len(), sink.deliveries().len()), (2, 1));
    // TLS goes through a tunnel, so the proxy sees the name of the server alone.
    proxy.answer([Answer::Status(502)]);
    let tunnel =
        folder.target("url = 'https://deploy.corp.example/hidden'\nproxy = { file = 'proxy' }");
    let error = error_of(tunnel.apply(&order()).await);
    assert!(
        !error.contains("hidden") && !error.contains("pass"),
        "{error}"
    );
    let delivery = proxy.deliveries().pop().unwrap();
    assert_eq!(delivery.method, "CONNECT");
    assert_eq!(delivery.uri, "deploy.corp.example:443");
    let error = folder.refused("url = 'https://a.example.com'\nproxy = 'ftp://user:hidden@b'");
    assert_eq!(
        error,
        "proxy: is no URL of a proxy; write one such as http://proxy.example.com:3128"
    );
}
