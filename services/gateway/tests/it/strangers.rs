//! Senders without a proof of identity, or with a wrong one: they keep no other sender out.

use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;
use tagtrail_testkit::TestNats;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::{answer, head, post};
use crate::gateway::Gateway;

const SECRET: &str = "tagtrail-fixture-secret";
const SOURCES: &str = r#"
[[source]]
name = "hub"
kind = "ghcr"
secret = { file = "FOLDER/fixture" }

[[source]]
name = "main"
kind = "distribution"
secret = { file = "FOLDER/fixture" }
"#;

/// Returns the signature of a body.
fn sign(body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    let mac = mac.chain_update(body).finalize().into_bytes();
    let digits: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

#[tokio::test]
async fn strangers_do_not_take_the_memory_for_bodies() {
    let nats = TestNats::start().await;
    let gateway = Gateway::with(&nats, SOURCES).await;
    let wrong = format!("sha256={}", "0".repeat(64));
    let mut strangers = Vec::new();
    // The first one sends most of a large body, the others begin one of unknown size.
    for size in [20 << 20].into_iter().chain([1000; 60]) {
        let headers = [
            ("x-hub-signature-256", wrong.as_str()),
            ("transfer-encoding", "chunked"),
        ];
        let head = head("POST", "/hooks/hub", &headers);
        let mut request = format!("{head}\r\n{:x}\r\n", 24 << 20).into_bytes();
        request.resize(request.len() + size, b' ');
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&request).await.unwrap();
        strangers.push(stream);
    }
    let begun = Instant::now();
    let large = format!("{{{}", " ".repeat(15 << 20));
    for body in ["{}", &large] {
        let started = Instant::now();
        let signature = sign(body.as_bytes());
        let headers = [("x-hub-signature-256", signature.as_str())];
        let answer = post(gateway.address, "/hooks/hub", &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let path = format!("/hooks/main/{SECRET}");
        let answer = post(gateway.address, &path, &[], b"{}").await;
        assert_eq!(answer.status, 202, "{answer:?}");
        eprintln!(
            "a body of {} bytes took {:?}",
            body.len(),
            started.elapsed()
        );
    }
    // The large body took the memory of the larger one.
    let displaced = answer(strangers.remove(0)).await;
    assert_eq!(displaced.json()["code"], "busy", "{displaced:?}");
    for stream in strangers {
        let answer = answer(stream).await;
        assert_eq!(answer.json()["code"], "body_too_slow", "{answer:?}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn many_wrong_secrets_are_answered_slowly_and_a_right_one_at_once() {
    let nats = TestNats::start().await;
    let gateway = Gateway::with(&nats, SOURCES).await;
    let send = async |source: &str, secret: &str| {
        let path = format!("/hooks/{source}/{secret}");
        post(gateway.address, &path, &[], b"{}").await
    };
    let mut limited = None;
    for guess in 0..60 {
        let started = Instant::now();
        let answer = send("main", &format!("guess-{guess}")).await;
        if answer.status != 401 {
            limited = Some((answer, started.elapsed()));
            break;
        }
    }
    let (answer, took) = limited.expect("no limit");
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (429, &json!("too_many_refusals"))
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(took >= Duration::from_secs(1), "{took:?}");
    // The sender behind the same proxy, and another source, are not concerned.
    assert_eq!(send("main", SECRET).await.status, 202);
    assert_eq!(send("hub", "wrong").await.status, 401);
}
