//! Requests over real sockets, and the errors that follow from answers.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn a_request_has_the_configured_method_headers_and_type() {
    let (folder, sink) = (Folder::new(), Sink::start().await);
    let url = sink.url();
    for (settings, method, content_type) in [
        (
            "secret = { file = 'old' }",
            "POST",
            "application/cloudevents+json",
        ),
        (
            "method = 'PUT'\ncontent_type = 'application/json'\nheaders.X-Stage = 'prod'\nheaders.Authorization = { file = 'token', prefix = 'Bearer ' }",
            "PUT",
            "application/json",
        ),
        (
            "method = 'PATCH'\nheaders.User-Agent = 'ours'",
            "PATCH",
            "application/cloudevents+json",
        ),
    ] {
        let target = folder.target(&format!("url = '{url}'\n{settings}"));
        let order = order();
        assert_eq!(target.apply(&order).await, Outcome::Done);
        let delivery = sink.deliveries().pop().unwrap();
        assert_eq!(delivery.method, method);
        assert_eq!(delivery.header("content-type"), content_type);
        assert_eq!(delivery.body, order.body);
    }
    let [signed, with_token, named] = &sink.deliveries()[..] else {
        panic!("three requests");
    };
    assert!(signed.header("webhook-signature").starts_with("v1,"));
    assert_eq!(signed.header("authorization"), "");
    assert_eq!(with_token.header("x-stage"), "prod");
    assert_eq!(
        with_token.header("authorization"),
        "Bearer glpat-0123456789abcdef"
    );
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert_eq!(with_token.header(name), "", "a signature without a secret");
    }
    assert_eq!(named.headers.get_all("user-agent").iter().count(), 1);
    assert_eq!(named.header("user-agent"), "ours");
}

#[tokio::test]
async fn a_rollout_has_a_signature_by_each_live_secret() {
    let (folder, sink) = (Folder::new(), Sink::start().await);
    let order = order();
    let settings = format!(
        "url = '{}'\nsecret = [{{ file = 'old' }}, {{ file = 'new' }}]",
        sink.url()
    );
    assert_eq!(folder.target(&settings).apply(&order).await, Outcome::Done);
    let delivery = sink.deliveries().pop().unwrap();
    let (id, time) = (&order.rollout.id, delivery.header("webhook-timestamp"));
    assert_eq!(delivery.header("webhook-id"), id);
    let by = |secret: &str| {
        let key = crate::target::signature::SigningKey::parse(secret).unwrap();
        signatures(&[key], id, time.parse().unwrap(), &order.body).unwrap()
    };
    let both = format!("{} {}", by(OLD), by(NEW));
    assert_eq!(delivery.header("webhook-signature"), both);
}

#[tokio::test]
async fn no_error_shows_the_url_or_a_secret() {
    let (folder, sink) = (Folder::new(), Sink::start().await);
    sink.judge(|delivery| {
        let echo = format!(
            "Cannot POST {} with {} {} from https://elsewhere.example.com",
            delivery.uri,
            delivery.header("authorization"),
            delivery
                .uri
                .query()
                .unwrap_or_default()
                .replace('&', "&amp;"),
        );
        Answer::Said(500, echo)
    });
    folder.write(
        "url",
        &format!(
            "{}/T0/hidden-segment-of-a-path?a=1&token=hidden%2Dvalue",
            sink.url()
        ),
    );
    let settings =
        "url = { file = 'url' }\nheaders.Authorization = { file = 'token', prefix = 'Bearer ' }";
    let target = folder.target(settings);
    let error = error_of(target.apply(&order()).await);
    assert!(
        error.starts_with(
            "the target failed (500 Internal Server Error): Cannot POST … with Bearer … "
        ),
        "{error}"
    );
    assert!(error.contains("https://elsewhere.example.com"), "{error}");
    for secret in ["hidden", "glpat", "T0", sink.url()] {
        assert!(!error.contains(secret), "{secret}: {error}");
    }
    // A redirect names the host alone.
    let away = "https://user:hidden@final.example.com/hidden?hidden".to_owned();
    sink.answer([Answer::With(308, "location", away)]);
    let error = error_of(target.apply(&order()).await);
    assert_eq!(
        error,
        "the target redirects (308 Permanent Redirect to final.example.com), which is not followed; configure the final URL"
    );
    // Nobody listens there, and no such host exists.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = port.local_addr().unwrap();
    drop(port);
    for url in [
        format!("http://{free}/hidden?token=hidden"),
        format!("https://{free}/hidden"),
        "https://receiver.invalid/hidden".to_owned(),
    ] {
        folder.write("url", &url);
        let error = error_of(folder.target(settings).apply(&order()).await);
        assert!(error.starts_with("no answer from the target: "), "{error}");
        assert!(!error.contains("hidden"), "{error}");
    }
}

#[tokio::test]
async fn the_answer_is_kept_after_a_success_too_without_secrets() {
    let (folder, sink) = (Folder::new(), Sink::start().await);
    let target = folder.target(&format!(
        "url = '{}'\nheaders.X-Token = {{ file = 'token' }}",
        sink.url()
    ));
    for status in [202, 500] {
        let answer = "queued as 17\nby glpat-0123456789abcdef\u{1b}".to_owned();
        sink.answer([Answer::Said(status, answer)]);
        let order = order();
        target.apply(&order).await;
        assert_eq!(order.said.text(), "queued as 17\nby …\u{fffd}");
        assert_eq!(order.said.status(), Some(status.into()));
    }
}

#[tokio::test]
async fn the_time_limit_is_that_of_the_settings() {
    let (folder, sink) = (Folder::new(), Sink::start().await);
    let late = || Answer::Late(Duration::from_millis(1500), 200);
    sink.answer([late(), late()]);
    let of = |seconds: u32| {
        let url = sink.url();
        folder.target(&format!("url = '{url}'\ntimeout_seconds = {seconds}"))
    };
    assert_eq!(of(10).apply(&order()).await, Outcome::Done);
    let error = error_of(of(1).apply(&order()).await);
    assert!(error.contains("timed out"), "{error}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_read_for_4_kib() {
    let (folder, listener) = (
        Folder::new(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let mut receiver = JoinSet::new();
    receiver.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        let head = b"HTTP/1.1 500 Broken\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(b"4\r\nnope\r\n").await.is_ok() {}
    });
    let begun = Instant::now();
    let target = folder.target(&format!("url = '{url}'\ntimeout_seconds = 20"));
    let error = error_of(target.apply(&order()).await);
    assert!(error.contains("nopenope") && error.len() < 600, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_changed_secret_is_used_at_the_next_attempt() {
    let (folder, sink) = (Folder::new(), Sink::start().await);
    let other = Sink::start().await;
    folder.write("url", sink.url());
    let settings =
        "url = { file = 'url' }\nsecret = { file = 'old' }\nheaders.X-Token = { file = 'token' }";
    let target = folder.target(settings);
    assert_eq!(target.apply(&order()).await, Outcome::Done);
    folder.write("old", NEW);
    folder.write("token", "changed");
    folder.write("url", other.url());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let order = order();
    assert_eq!(target.apply(&order).await, Outcome::Done);
    assert_eq!(sink.deliveries().len(), 1);
    let delivery = other.deliveries().pop().unwrap();
    assert_eq!(delivery.header("x-token"), "changed");
    let key = crate::target::signature::SigningKey::parse(NEW).unwrap();
    let at = delivery.header("webhook-timestamp").parse().unwrap();
    let expected = signatures(&[key], &order.rollout.id, at, &order.body).unwrap();
    assert_eq!(delivery.header("webhook-signature"), expected);
    // A half-written secret leaves the one before.
    folder.write("old", "whsec_");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(target.apply(&order).await, Outcome::Done);
    let last = other.deliveries().pop().unwrap();
    let key = crate::target::signature::SigningKey::parse(NEW).unwrap();
    let at = last.header("webhook-timestamp").parse().unwrap();
    let expected = signatures(&[key], &order.rollout.id, at, &order.body).unwrap();
    assert_eq!(last.header("webhook-signature"), expected);
}
