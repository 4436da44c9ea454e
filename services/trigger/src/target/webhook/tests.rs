use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use tagtrail_testkit::{Answer, Sink, certificates};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::target::{configure, warnings};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_bmV3LWtleS1mb3ItdGhlLXRlc3RzLW9ubHktMDE=";

/// A folder with `tagtrail.toml` and its secrets.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("old", OLD);
        folder.write("new", NEW);
        folder.write("token", "glpat-0123456789abcdef");
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The file with one trigger whose target has these settings.
    fn file(&self, settings: &str) -> File {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\n[trigger.target.webhook]\n{settings}\n"
        );
        File::parse(&text, &self.0.path().join("tagtrail.toml")).unwrap()
    }

    fn target(&self, settings: &str) -> Box<dyn Target> {
        let file = self.file(settings);
        configure(&file, &file.trigger[0]).unwrap()
    }

    fn refused(&self, settings: &str) -> String {
        let file = self.file(settings);
        let refused = configure(&file, &file.trigger[0]);
        let error = refused.err().unwrap().to_string();
        let place = format!(
            "{}:4: trigger.target.webhook: ",
            self.0.path().join("tagtrail.toml").display()
        );
        error.strip_prefix(&place).unwrap().to_owned()
    }
}

fn order() -> Order {
    let rollout = serde_json::json!({
        "id": "0196a5f0-0000-7000-8000-000000000001", "trigger": "shop", "number": 7, "state": "running", "attempts": 2,
        "images": { "web": {
            "image": "registry.example.com/shop/web:latest", "revision": 3, "digest": format!("sha256:{}", "a".repeat(64)),
            "pinned": format!("registry.example.com/shop/web@sha256:{}", "a".repeat(64)),
        } },
        "cause": { "reason": "revision", "changed": ["web"] },
        "created_at": "2026-11-01T10:00:00Z", "finished_at": null, "error": null,
    });
    let trace = tagtrail_proto::TraceContext {
        trace: 1,
        parent: 1,
        sampled: false,
    };
    Order::new(&serde_json::from_value(rollout).unwrap(), trace).unwrap()
}

fn error_of(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done => panic!("the attempt succeeded"),
        Outcome::Refused(error) | Outcome::Failed { error, .. } => error,
    }
}

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
        let key = super::super::signature::SigningKey::parse(secret).unwrap();
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

#[test]
fn a_wrong_setting_is_named_with_its_key_and_cure() {
    let folder = Folder::new();
    folder.write("line", "a\u{7f}b");
    folder.write("address", "deploy.example.com/secret");
    let url = "url = 'https://receiver.example.com'\n";
    for (settings, expected) in [
        ("secret = { file = 'old' }", "missing field `url`"),
        (
            "url = 7",
            "url: write a text, or { env = \"VARIABLE\" } or { file = \"path\" }, with prefix = \"…\" if a text precedes the secret",
        ),
        (
            "url = { file = 'address' }",
            "url must start with https:// (or http://)",
        ),
        (
            "url = { env = 'TAGTRAIL_SURELY_NOT_SET' }",
            "url: the environment variable TAGTRAIL_SURELY_NOT_SET is not set; set it, or name another one",
        ),
        (
            &format!("{url}method = 'GET'"),
            "method: unknown variant `GET`, expected one of `POST`, `PUT`, `PATCH`",
        ),
        (
            &format!("{url}timeout_seconds = 0"),
            "timeout_seconds must be 1 to 600",
        ),
        (
            &format!("{url}timeout_seconds = 601"),
            "timeout_seconds must be 1 to 600",
        ),
        (
            &format!("{url}content_type = 'json'"),
            "content_type: \"json\" is no media type; write one such as \"application/json\"",
        ),
        (
            &format!("{url}headers.Content-Type = 'x'"),
            "headers.Content-Type: is set by content_type",
        ),
        (
            &format!("{url}headers.Webhook-Signature = 'x'"),
            "headers.Webhook-Signature: is set by Tagtrail or by the connection; remove it",
        ),
        (
            &format!("{url}headers.Transfer-Encoding = 'x'"),
            "headers.Transfer-Encoding: is set by Tagtrail or by the connection; remove it",
        ),
        (
            &format!("{url}headers.'X Token' = 'x'"),
            "headers.X Token: is no name of a header; write one such as X-Token",
        ),
        (
            &format!("{url}headers.X-A = \"a\\r\\nX-B: b\""),
            "headers.X-A: the value may have printable ASCII characters only, 8 KiB at most",
        ),
        (
            &format!("{url}headers.X-A = {{ file = 'line' }}"),
            "headers.X-A: the value may have printable ASCII characters only, 8 KiB at most",
        ),
        (
            &format!("{url}headers.X-A = 'a'\nheaders.x-a = 'b'"),
            "headers.x-a: the header is set twice; keep one",
        ),
        (
            &format!("{url}headers.X-A = {{ file = 'a', env = 'b' }}"),
            "headers.X-A: a secret is either { env = \"VARIABLE\" } or { file = \"path\" }",
        ),
        (
            &format!("{url}secret = []"),
            "secret: a list of secrets holds one or two, the old and the new",
        ),
        (
            &format!("{url}secret = {{ file = 'token' }}"),
            "the secret must be whsec_ and 24 to 64 bytes in Base64; make one with: echo \"whsec_$(head -c 32 /dev/urandom | base64)\"",
        ),
        (
            &format!("{url}verb = 'PUT'"),
            "unknown field `verb`, expected one of `url`, `secret`, `headers`, `method`, `content_type`, `body`, `ca`, `proxy`, `timeout_seconds`",
        ),
    ] {
        assert_eq!(folder.refused(settings), expected);
    }
}

#[test]
fn a_receiver_without_any_secret_is_warned_about() {
    let folder = Folder::new();
    folder.write("url", "https://receiver.example.com/T0");
    let plain = "url = 'https://receiver.example.com/T0'\n";
    for (settings, warned) in [
        (plain, true),
        (&format!("{plain}headers.X-Stage = 'prod'"), true),
        (
            &format!("{plain}headers.X-Token = {{ file = 'token' }}"),
            false,
        ),
        (&format!("{plain}secret = {{ file = 'old' }}"), false),
        ("url = { file = 'url' }", false),
    ] {
        let lines = warnings(&folder.file(settings)).unwrap();
        let found = lines.iter().any(|line| {
            line.contains("https://receiver.example.com cannot tell rollouts from requests of strangers; set secret")
        });
        assert_eq!(found, warned, "{settings}: {lines:?}");
        assert_eq!(lines.len(), usize::from(warned), "{lines:?}");
    }
    let token = folder.0.path().join("token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let settings = format!("{plain}headers.X-Token = {{ file = 'token' }}");
    let lines = warnings(&folder.file(&settings)).unwrap();
    assert!(lines[0].contains("chmod 600"), "{lines:?}");
}

#[test]
fn the_page_names_every_key_and_its_examples_are_valid() {
    let (folder, page) = (
        Folder::new(),
        include_str!("../../../../../docs/webhook.md"),
    );
    let refused = folder.refused("no_such_key = 1");
    let (_, keys) = refused.split_once("expected one of ").unwrap();
    for key in keys.split('`').skip(1).step_by(2) {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
    let examples: Vec<&str> = page.split("```toml\n").skip(1).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let example = example.split("```").next().unwrap();
        let (_, settings) = example.split_once('\n').unwrap();
        let file = folder.file(settings);
        let parsed = Settings::parse(file.trigger[0].target().value, &file);
        assert!(parsed.is_ok(), "{}\n{example}", parsed.err().unwrap());
    }
}

#[tokio::test]
async fn a_body_is_rendered_from_the_rollout_as_recorded() {
    let (folder, sink) = (Folder::new(), Sink::start().await);
    let url = sink.url();
    let pinned = format!("registry.example.com/shop/web@sha256:{}", "a".repeat(64));
    for (settings, content_type, expected) in [
        (
            "body = '{\"image\": {{ images.web.pinned }}, \"n\": {{ number }}, \"all\": {{ cause }}, \"at\": {{ attempts }}}'",
            "application/json",
            format!(
                "{{\"image\": \"{pinned}\", \"n\": 7, \"all\": {{\"changed\":[\"web\"],\"reason\":\"revision\"}}, \"at\": 0}}"
            ),
        ),
        (
            "body = '{\"text\": {{ \"*deploy* \" ~ images.web.pinned }}, \"bold\": \"*\"}'\nsecret = { file = 'old' }",
            "application/json",
            format!("{{\"text\": \"*deploy* {pinned}\", \"bold\": \"*\"}}"),
        ),
        (
            "body = '{% for name, one in images|items %}{{ name }} {{ one.digest[:14] }} {{ one.image|split(\":\")|last|upper }}{% if not loop.last %}, {% endif %}{% endfor %}'\ncontent_type = 'text/plain'",
            "text/plain",
            "web sha256:aaaaaaa LATEST".to_owned(),
        ),
    ] {
        let target = folder.target(&format!("url = '{url}'\n{settings}"));
        for _ in 0..2 {
            assert_eq!(target.apply(&order()).await, Outcome::Done);
        }
        let deliveries = sink.deliveries();
        let [.., first, second] = &deliveries[..] else {
            panic!("two requests");
        };
        assert_eq!(String::from_utf8_lossy(&first.body), expected);
        assert_eq!(first.body, second.body);
        assert_eq!(first.header("content-type"), content_type);
        let signature = first.header("webhook-signature");
        if settings.contains("secret") {
            let key = super::super::signature::SigningKey::parse(OLD).unwrap();
            let at = first.header("webhook-timestamp").parse().unwrap();
            let id = first.header("webhook-id");
            assert_eq!(signature, signatures(&[key], id, at, &first.body).unwrap());
        }
    }
}

#[test]
fn a_wrong_body_is_refused_with_its_place() {
    let folder = Folder::new();
    for (body, expected) in [
        (
            "{\"a\": {{ images.wbe.pinned }}}",
            "body: line 1: undefined value: `images.wbe` is undefined",
        ),
        ("{\n\"a\": {{ number }\n}", "body: line 2: syntax error"),
        (
            "{\"a\": \"{{ images.web.pinned }}\"}",
            "body: with a sample rollout the body is not JSON: expected `,` or `}` at line 1 column 9, after \"{\\\"a\\\": \\\"\\\"r\"; an expression prints its own quotes",
        ),
        (
            "deploy",
            "body: with a sample rollout the body is not JSON: expected value at line 1 column 1",
        ),
        (
            "{% set a = 1 %}1",
            "body: line 1: {% set %} is not supported; the tags are for, if, elif and else",
        ),
        (
            "1\n{%- include 'x' %}",
            "body: line 2: {% include %} is not supported",
        ),
        (
            "{% for a in cause.changed recursive %}{{ loop(a) }}{% endfor %}1",
            "body: line 1: a loop goes over a part of the rollout, such as {% for name, one in images|items %}",
        ),
        (
            "\n{% for a in [id ~ id] %}{% for b in [a ~ a] %}{{ b ~ b }}{% endfor %}{% endfor %}",
            "body: line 1: a loop goes over a part of the rollout",
        ),
        ("{{ 'x' * 100000000000 }}", "body: line 1: syntax error"),
        (
            "{{ number|replace('1', '11') }}",
            "body: line 1: unknown filter",
        ),
        ("{{ range(3) }}", "body: line 1: unknown function"),
        (
            "{% for a in id %}{% for b in id %}{% for c in id %}{% for d in id %}1{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
            "body: line 1: engine ran out of fuel",
        ),
        (
            &format!(
                "{{% for a in id %}}{{% for b in id %}}{}{{% endfor %}}{{% endfor %}}",
                "x".repeat(2000)
            ),
            "body: failed to write output: I/O error during rendering: the body has more than 1 MiB",
        ),
        (
            &"x".repeat(16 * 1024 + 1),
            "body: the template has more than 16384 bytes",
        ),
    ] {
        let settings = format!("url = 'https://a.example.com'\nbody = '''{body}'''");
        let error = folder.refused(&settings);
        assert!(error.starts_with(expected), "{body}: {error}");
    }
}

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
    let key = super::super::signature::SigningKey::parse(NEW).unwrap();
    let at = delivery.header("webhook-timestamp").parse().unwrap();
    let expected = signatures(&[key], &order.rollout.id, at, &order.body).unwrap();
    assert_eq!(delivery.header("webhook-signature"), expected);
    // A half-written secret leaves the one before.
    folder.write("old", "whsec_");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(target.apply(&order).await, Outcome::Done);
    let last = other.deliveries().pop().unwrap();
    let key = super::super::signature::SigningKey::parse(NEW).unwrap();
    let at = last.header("webhook-timestamp").parse().unwrap();
    let expected = signatures(&[key], &order.rollout.id, at, &order.body).unwrap();
    assert_eq!(last.header("webhook-signature"), expected);
}
