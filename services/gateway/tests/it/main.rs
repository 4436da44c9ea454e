//! The gateway as a whole: a real nats-server, a real socket, the service as in production.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in tests a panic is the report"
)]

mod client;
mod gateway;
mod kinds;
mod names;
mod retries;
mod secrecy;
mod strangers;

use std::time::{Duration, Instant};

use serde_json::json;
use tagtrail_proto::{Event, Push, Quarantined, Subject};
use tagtrail_testkit::{SOON, TestNats, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use client::{answer, head, post, send};
use gateway::{DIGEST, Gateway, OTHER_DIGEST};

const MIB: usize = 1 << 20;

fn fixture(file: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/tests/fixtures/{file}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

#[tokio::test]
async fn a_push_is_stored_under_its_subject_and_identifier() {
    let (nats, gateway) = Gateway::with_nats().await;
    let answer = gateway
        .post("main", &fixture("distribution-push-nested-port.json"))
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({ "accepted": 1, "unresolved": 0, "ignored": 0, "quarantined": 0 })
    );

    let stream = nats.jetstream().await.get_stream("PUSHES").await.unwrap();
    let message = stream.get_raw_message(1).await.unwrap();
    let event: Event<Push> = serde_json::from_slice(&message.payload).unwrap();
    let subject: Subject = message.subject.as_str().parse().unwrap();
    assert!(
        matches!(&subject, Subject::Push { tag: Some(tag), .. } if tag == event.data.tag.as_ref().unwrap())
    );
    assert_eq!(
        message.subject.as_str(),
        "tagtrail.push.4.registry%2Eexample%2Ecom%3A5443.org.unit.team.service.api.v2%2E0%2E0-rc%2E1_build%2E7"
    );
    assert_eq!(
        event.subject,
        "registry.example.com:5443/org/unit/team/service/api:v2.0.0-rc.1_build.7"
    );
    assert_eq!(event.data.source, "main");
    let id = message.headers.get("Nats-Msg-Id").unwrap();
    assert_eq!(id.as_str(), event.data.message_id());
    gateway.stop().await;
}

#[tokio::test]
async fn an_event_sent_again_is_stored_once() {
    let (nats, gateway) = Gateway::with_nats().await;
    for _ in 0..3 {
        assert_eq!(
            gateway
                .post(
                    "main",
                    &fixture("distribution-delete-digest-then-tags.json")
                )
                .await
                .status,
            202
        );
    }
    assert_eq!(nats.messages("PUSHES").await.len(), 3);
}

#[tokio::test]
async fn a_tag_that_moves_back_is_three_pushes_although_the_script_gives_no_time() {
    let (nats, gateway) = Gateway::with_nats().await;
    for digest in [DIGEST, OTHER_DIGEST, DIGEST] {
        let body = json!({ "repository": "shop/web", "tag": "v1", "digest": digest }).to_string();
        assert_eq!(gateway.post("ci", body.as_bytes()).await.status, 202);
    }
    assert_eq!(nats.messages("PUSHES").await.len(), 3);
}

#[tokio::test]
async fn events_that_move_no_tag_are_accepted_and_not_stored() {
    let (nats, gateway) = Gateway::with_nats().await;
    for file in [
        "distribution-push-blob.json",
        "distribution-push-by-digest.json",
        "distribution-multi-event-mixed.json",
        "distribution-empty-envelope.json",
    ] {
        let answer = gateway.post("main", &fixture(file)).await;
        assert_eq!(
            (answer.status, &answer.json()["accepted"]),
            (202, &json!(0)),
            "{file}"
        );
    }
    nats_is_empty(&nats).await;
}

#[tokio::test]
async fn a_resent_push_without_a_digest_is_resolved_again() {
    let (nats, gateway) = Gateway::with_nats().await;
    let body =
        json!({ "repository": "shop/web", "tag": "v1", "id": "1", "time": "2026-03-09T11:00:00Z" })
            .to_string();
    for _ in 0..2 {
        let answer = gateway.post("ci", body.as_bytes()).await;
        assert_eq!(
            (answer.status, &answer.json()["unresolved"]),
            (202, &json!(1))
        );
    }
    let messages = nats.messages("UNRESOLVED").await;
    assert_eq!(messages.len(), 2);
    assert_eq!(
        messages[0].0,
        "tagtrail.unresolved.registry%2Eexample%2Ecom.shop.web.v1"
    );
    assert!(nats.messages("PUSHES").await.is_empty());
}

/// Sources of a registry that may be asked. `quiet` leaves pulls out.
const OBSERVED: &str = r#"
[[source]]
name = "main"
kind = "distribution"
secret = { file = "FOLDER/first" }

[[source]]
name = "quiet"
kind = "gitlab"
secret = { file = "FOLDER/ci" }
pulls = "ignore"

[[registry]]
name = "registry.example.com:5000"
url = "http://127.0.0.1:1"
"#;

/// Returns an event of distribution about `shop/web:v1`.
fn event(action: &str, host: &str, digest: &str) -> serde_json::Value {
    json!({
        "id": format!("{action}-{digest}"), "timestamp": "2026-03-10T09:00:00Z", "action": action,
        "target": { "repository": "shop/web", "tag": "v1", "digest": digest },
        "request": { "host": host, "useragent": "crane/v0.22.1" },
    })
}

#[tokio::test]
async fn a_pull_of_a_digest_that_no_event_reported_is_a_question_with_the_digest() {
    const HOST: &str = "registry.example.com:5000";
    let nats = TestNats::start().await;
    let gateway = Gateway::with(&nats, OBSERVED).await;
    let send = async |source: &str, events: &[serde_json::Value]| {
        let body = json!({ "events": events }).to_string();
        let answer = gateway.post(source, body.as_bytes()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let accepted = answer.json()["accepted"].as_u64().unwrap();
        (accepted, nats.messages("UNRESOLVED").await.len())
    };
    let pull = |digest| event("pull", HOST, digest);
    assert_eq!(send("main", &[event("push", HOST, DIGEST)]).await, (1, 0));
    assert_eq!(send("main", &[pull(DIGEST)]).await, (0, 0), "as pushed");
    // The source leaves pulls out, and the other registry can't be asked.
    assert_eq!(send("quiet", &[pull(OTHER_DIGEST)]).await, (0, 0));
    let foreign = event("pull", "other.example.com", DIGEST);
    assert_eq!(send("main", &[foreign]).await, (0, 0));
    // One question for all pulls of the other digest.
    let pulls = [pull(OTHER_DIGEST), pull(OTHER_DIGEST)];
    assert_eq!(send("main", &pulls).await, (0, 1));
    assert_eq!(send("main", &pulls).await, (0, 1));
    let (subject, body) = nats.messages("UNRESOLVED").await.remove(0);
    let place = "registry%2Eexample%2Ecom%3A5000.shop.web.v1";
    assert_eq!(subject, format!("tagtrail.unresolved.{place}"));
    let question: Event<Push> = serde_json::from_slice(&body).unwrap();
    assert_eq!(question.data.digest, Some(OTHER_DIGEST.parse().unwrap()));
    let id = format!("observed:pull-{OTHER_DIGEST}");
    assert_eq!(question.data.event_id, id);
    assert_eq!(nats.messages("PUSHES").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn each_live_secret_is_accepted_in_every_form() {
    let (_nats, gateway) = Gateway::with_nats().await;
    let body = b"{}";
    for headers in [
        [("authorization", "Bearer first-secret")],
        [("authorization", "bearer second/secret")],
        [("Authorization", "Basic cmVnaXN0cnk6Zmlyc3Qtc2VjcmV0")],
        [("authorization", "second/secret")],
        [("x-hook-secret", "first-secret")],
    ] {
        assert_eq!(
            post(gateway.address, "/hooks/main", &headers, body)
                .await
                .status,
            202,
            "{headers:?}"
        );
    }
    for path in ["/hooks/main/first-secret", "/hooks/main/second%2Fsecret"] {
        assert_eq!(
            post(gateway.address, path, &[], body).await.status,
            202,
            "{path}"
        );
    }
}

#[tokio::test]
async fn without_the_secret_nothing_is_stored() {
    let (nats, gateway) = Gateway::with_nats().await;
    let push = fixture("distribution-push-sha512.json");
    for (path, headers) in [
        ("/hooks/main", vec![]),
        ("/hooks/main/wrong", vec![]),
        ("/hooks/main/%00", vec![]),
        ("/hooks/main", vec![("authorization", "Bearer wrong")]),
        ("/hooks/main", vec![("authorization", "Basic Og==")]),
        ("/hooks/main", vec![("x-hook-secret", "")]),
        // Each source has its own secrets.
        ("/hooks/ci", vec![("authorization", "Bearer first-secret")]),
    ] {
        for body in [push.as_slice(), b"not JSON"] {
            let answer = post(gateway.address, path, &headers, body).await;
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (401, &json!("unauthenticated")),
                "{path} {headers:?}"
            );
            assert!(
                answer
                    .header("www-authenticate")
                    .is_some_and(|challenge| challenge.starts_with("Bearer"))
            );
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json")
            );
        }
    }
    nats_is_empty(&nats).await;
}

#[tokio::test]
async fn a_header_that_proves_the_identity_is_sent_once() {
    let (nats, gateway) = Gateway::with_nats().await;
    for headers in [
        [("authorization", "Bearer first-secret"); 2],
        [
            ("authorization", "Bearer wrong"),
            ("Authorization", "first-secret"),
        ],
        [
            ("x-hook-secret", "wrong"),
            ("x-hook-secret", "first-secret"),
        ],
    ] {
        // The answer does not wait for the body, which never arrives.
        let head = head("POST", "/hooks/main/first-secret", &headers);
        let request = head + "expect: 100-continue\r\ncontent-length: 100\r\n\r\n";
        let answer = send(gateway.address, request.as_bytes()).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (400, &json!("header_repeated")),
            "{headers:?}"
        );
    }
    nats_is_empty(&nats).await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_with_their_code() {
    let (nats, gateway) = Gateway::with_nats().await;
    let secret = [("authorization", "Bearer first-secret")];
    for (method, path, status, code) in [
        ("POST", "/hooks/other", 404, "source_unknown"),
        ("POST", "/hooks/MAIN", 404, "source_unknown"),
        ("POST", "/hooks/%ff/x", 404, "source_unknown"),
        ("POST", "/hooks/main/x/y", 404, "path_unknown"),
        ("POST", "/hooks/", 404, "path_unknown"),
        ("GET", "/", 404, "path_unknown"),
        ("GET", "/v1/history", 404, "path_unknown"),
        ("GET", "/hooks/main", 405, "method_not_allowed"),
        ("PUT", "/hooks/main/first-secret", 405, "method_not_allowed"),
    ] {
        let request = head(method, path, &secret) + "content-length: 2\r\n\r\n{}";
        let answer = send(gateway.address, request.as_bytes()).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (status, &json!(code)),
            "{method} {path}"
        );
        assert_eq!(answer.header("allow"), (status == 405).then_some("POST"));
    }
    nats_is_empty(&nats).await;
}

#[tokio::test]
async fn a_slash_after_a_path_is_accepted() {
    let (nats, gateway) = Gateway::with_nats().await;
    let push = fixture("distribution-push-sha512.json");
    let secret = [("authorization", "Bearer first-secret")];
    for (path, headers, status) in [
        ("/hooks/main/", secret.as_slice(), 202),
        ("/hooks/main/first-secret/", &[], 202),
        ("/hooks/main/second%2Fsecret/?x=1", &[], 202),
        ("/hooks/main/wrong/", &[], 401),
        ("/hooks/main/", &[], 401),
        ("/hooks/main//", &[], 401),
    ] {
        let answer = post(gateway.address, path, headers, &push).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    assert_eq!(nats.messages("PUSHES").await.len(), 1);
}

#[tokio::test]
async fn each_404_is_counted_and_names_the_form_of_a_path() {
    let (_nats, gateway) = Gateway::with_nats().await;
    for (method, path) in [
        ("POST", "/hooks/mian"),
        ("POST", "/hooks/main/x/y"),
        ("POST", "/hooks"),
        ("POST", "/webhook"),
        ("GET", "/"),
        ("OPTIONS", "/hooks/mian"),
    ] {
        let request = head(method, path, &[]) + "content-length: 2\r\n\r\n{}";
        let answer = send(gateway.address, request.as_bytes()).await;
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        let text = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(text.contains("/hooks/SOURCE/SECRET"), "{path}: {text}");
        assert!(!text.contains("main"), "a stranger learns no name: {text}");
    }
    let metrics = gateway.ctx.metrics.text().unwrap();
    let counted = "tagtrail_gateway_requests_total{source=\"\",status=\"404\"} 6";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_time_that_cannot_be_read_is_reported_and_counted() {
    let (nats, gateway) = Gateway::with_nats().await;
    let event = |tag: &str, time: serde_json::Value| json!({ "repository": "shop/web", "tag": tag, "digest": DIGEST, "id": tag, "time": time });
    let body = json!([
        event("a", json!("2026-05-06T07:08:09")),
        event("b", json!("2026-05-06T09:08:09+0200")),
        event("c", json!("soon")),
        event("d", json!(1_778_051_289_000_u64)),
        event("e", json!(null)),
    ]);
    let answer = gateway.post("ci", body.to_string().as_bytes()).await;
    assert_eq!(
        (answer.status, &answer.json()["accepted"]),
        (202, &json!(5))
    );
    assert_eq!(
        answer.json()["reasons"],
        json!([
            "the time in `time` has no zone (such as Z or +01:00), so the time of receipt counts: \"2026-05-06T07:08:09\"",
            "the time in `time` is not understood, so the time of receipt counts: \"soon\"",
        ])
    );
    let stored = nats.messages("PUSHES").await;
    let own = stored.iter().filter(|(_, payload)| {
        let push = serde_json::from_slice::<Event<Push>>(payload).unwrap().data;
        push.occurred_at.unix_timestamp() == 1_778_051_289
    });
    assert_eq!(own.count(), 2);
    let metrics = gateway.ctx.metrics.text().unwrap();
    let counted = "tagtrail_gateway_unread_times_total{source=\"ci\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_malformed_body_is_quarantined_and_its_sender_gets_the_reason() {
    let (nats, gateway) = Gateway::with_nats().await;
    for _ in 0..2 {
        let answer = gateway.post("main", b"\xffnot JSON").await;
        assert_eq!(
            (answer.status, &answer.json()["quarantined"]),
            (202, &json!(1))
        );
        assert!(answer.json()["reasons"][0].is_string(), "{answer:?}");
    }
    let messages = nats.messages("QUARANTINE").await;
    assert_eq!(messages.len(), 1, "sent again, it is kept once");
    assert_eq!(messages[0].0, "tagtrail.quarantine.main");
    let kept: Quarantined = serde_json::from_slice(&messages[0].1).unwrap();
    assert_eq!(
        (
            kept.source.as_str(),
            kept.kind.as_str(),
            kept.length,
            kept.truncated
        ),
        ("main", "distribution", 9, false)
    );
    assert_eq!(kept.body, "/25vdCBKU09O");
    assert_eq!(kept.content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn a_malformed_event_leaves_its_sibling_stored() {
    let (nats, gateway) = Gateway::with_nats().await;
    let answer = gateway
        .post("main", &fixture("distribution-bad-digest-sibling.json"))
        .await;
    assert_eq!(answer.status, 202);
    assert_eq!(
        (&answer.json()["accepted"], &answer.json()["quarantined"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(nats.messages("PUSHES").await.len(), 1);
    assert_eq!(nats.messages("QUARANTINE").await.len(), 1);
}

#[tokio::test]
async fn a_source_may_report_only_its_own_repositories() {
    let (nats, gateway) = Gateway::with_nats().await;
    let event = |repository: &str| json!({ "repository": repository, "tag": "v1", "digest": DIGEST, "id": "1" });
    let body = json!([event("shop/web"), event("shop"), event("other/web"), { "repository": "other", "action": "delete" }]);
    let answer = gateway.post("ci", body.to_string().as_bytes()).await;
    assert_eq!(answer.status, 202);
    let receipt = answer.json();
    assert_eq!(
        (&receipt["accepted"], &receipt["ignored"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(
        receipt["reasons"][1],
        "other/web is not one of the `repositories` of this source"
    );
    assert_eq!(nats.messages("PUSHES").await.len(), 1);
}

#[tokio::test]
async fn the_longest_names_are_stored() {
    let (nats, gateway) = Gateway::with_nats().await;
    let deepest = format!("shop/{}", vec!["a"; 125].join("/"));
    let longest = format!("shop/{}", "b.".repeat(124) + "c");
    for repository in [deepest, longest] {
        let body = json!({ "repository": repository, "tag": "._".repeat(64).replacen('.', "_", 1), "digest": DIGEST });
        let answer = gateway.post("ci", body.to_string().as_bytes()).await;
        assert_eq!(
            (answer.status, &answer.json()["accepted"]),
            (202, &json!(1)),
            "{answer:?}"
        );
    }
    for (subject, _) in nats.messages("PUSHES").await {
        assert!(matches!(subject.parse().unwrap(), Subject::Push { .. }));
    }
}

#[tokio::test]
async fn a_body_may_have_8_mib_and_no_more() {
    let (nats, gateway) = Gateway::with_nats().await;
    let most = vec![b' '; 8 * MIB];
    assert_eq!(gateway.post("main", &most).await.status, 202);
    let kept: Quarantined =
        serde_json::from_slice(&nats.messages("QUARANTINE").await[0].1).unwrap();
    assert_eq!(
        (kept.length, kept.truncated, kept.body.len()),
        (8 << 20, true, 699_052)
    );

    let more = vec![b' '; 12 * MIB];
    let answer = gateway.post("main", &more).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (413, &json!("body_too_large"))
    );

    let mut chunked = head(
        "POST",
        "/hooks/main/first-secret",
        &[("transfer-encoding", "chunked")],
    )
    .into_bytes();
    chunked.extend_from_slice(format!("\r\n{:x}\r\n", more.len()).as_bytes());
    chunked.extend_from_slice(&more);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(send(gateway.address, &chunked).await.status, 413);

    // A sender that asks before sending is refused at once.
    let asking = head(
        "POST",
        "/hooks/main/first-secret",
        &[("expect", "100-continue")],
    ) + "content-length: 90000000\r\n\r\n";
    assert_eq!(send(gateway.address, asking.as_bytes()).await.status, 413);
    assert_eq!(nats.messages("QUARANTINE").await.len(), 1);
}

#[tokio::test]
async fn a_slow_body_is_refused_after_10_s() {
    let (nats, gateway) = Gateway::with_nats().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let start = Instant::now();
    let request = head("POST", "/hooks/main/first-secret", &[]) + "content-length: 100\r\n\r\n{";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = answer(stream).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (408, &json!("body_too_slow"))
    );
    assert!(
        (9..15).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    nats_is_empty(&nats).await;
}

#[tokio::test]
async fn the_memory_for_bodies_is_bounded() {
    let (_nats, gateway) = Gateway::with_nats().await;
    let mut under_way = Vec::new();
    for _ in 0..32 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let request = head("POST", "/hooks/main/first-secret", &[])
            + &format!("content-length: {}\r\n\r\n{{", 8 * MIB);
        stream.write_all(request.as_bytes()).await.unwrap();
        under_way.push(stream);
    }
    let refused = eventually("a refusal", SOON, async || {
        let answer = gateway.post("main", b"{}").await;
        (answer.status != 202).then_some(answer)
    });
    let refused = refused.await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (503, &json!("busy"))
    );
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(under_way);
    eventually("a place", SOON, async || {
        (gateway.post("main", b"{}").await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    let (_nats, gateway) = Gateway::with_nats().await;
    for (encoding, status) in [
        ("gzip", 415),
        ("identity, gzip", 415),
        ("br", 415),
        ("Identity", 202),
    ] {
        let headers = [
            ("authorization", "first-secret"),
            ("content-encoding", encoding),
        ];
        assert_eq!(
            post(gateway.address, "/hooks/main", &headers, b"{}")
                .await
                .status,
            status,
            "{encoding}"
        );
    }
}

#[tokio::test]
async fn while_nats_is_down_bodies_are_refused_and_afterwards_accepted() {
    let (nats, gateway) = Gateway::with_nats().await;
    let push = fixture("distribution-push-sha512.json");
    nats.stop().await;
    eventually("not ready", SOON, async || {
        (!gateway.ctx.health.ready()).then_some(())
    })
    .await;
    for body in [push.as_slice(), b"malformed"] {
        let start = Instant::now();
        let answer = gateway.post("main", body).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (503, &json!("not_stored"))
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
    }
    // Refused requests, and requests that store nothing, do not depend on NATS.
    assert_eq!(gateway.post("main", b"{}").await.status, 202);
    assert_eq!(
        post(gateway.address, "/hooks/main/wrong", &[], &push)
            .await
            .status,
        401
    );

    nats.resume().await;
    eventually("recovery", SOON, async || {
        (gateway.post("main", &push).await.status == 202).then_some(())
    })
    .await;
    gateway.ctx.health.wait_ready().await;
    assert_eq!(nats.messages("PUSHES").await.len(), 1);
    assert!(
        nats.messages("QUARANTINE").await.is_empty(),
        "what was answered 503 is not stored behind the sender's back"
    );
}

#[tokio::test]
async fn a_hanging_nats_is_not_waited_for() {
    let (nats, gateway) = Gateway::with_nats().await;
    let push = fixture("distribution-push-sha512.json");
    nats.pause().await;
    let start = Instant::now();
    let answer = gateway.post("main", &push).await;
    let took = start.elapsed();
    nats.unpause().await;
    assert_eq!(answer.status, 503);
    assert!(
        took < Duration::from_secs(1),
        "Distribution gives up after 1 s, this took {took:?}"
    );
    eventually("recovery", SOON, async || {
        (gateway.post("main", &push).await.status == 202).then_some(())
    })
    .await;
    assert_eq!(
        nats.messages("PUSHES").await.len(),
        1,
        "sent again, it is recognised"
    );
}

#[tokio::test]
async fn started_before_nats_the_gateway_waits_for_it() {
    let nats = TestNats::stopped().await;
    let gateway = Gateway::start(&nats).await;
    let push = fixture("distribution-push-sha512.json");
    let answer = gateway.post("main", &push).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert!(!gateway.ctx.health.ready());
    nats.resume().await;
    gateway.ctx.health.wait_ready().await;
    assert_eq!(gateway.post("main", &push).await.status, 202);
    assert_eq!(nats.messages("PUSHES").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn the_gateway_stops_although_nats_never_came() {
    let nats = TestNats::stopped().await;
    let gateway = Gateway::start(&nats).await;
    assert_eq!(gateway.post("main", b"{}").await.status, 202);
    gateway.stop().await;
}

#[tokio::test]
async fn a_file_that_is_no_toml_is_refused_with_its_place() {
    let nats = TestNats::stopped().await;
    let error = Gateway::refused(&nats, "[[source]]\nname = \"a\nkind = \"generic\"\n").await;
    assert!(error.contains("tagtrail.toml:2: "), "{error}");
    let error = Gateway::refused(&nats, "[[sauce]]\n").await;
    assert!(error.ends_with("did you mean `source`?"), "{error}");
}

#[tokio::test]
async fn the_sender_of_a_broken_source_keeps_its_events_and_others_are_heard() {
    let nats = TestNats::start().await;
    let gateway = Gateway::with(
        &nats,
        "[[source]]\nname = \"unset\"\nkind = \"distribution\"\nsecret = { env = \"TAGTRAIL_NEVER_SET\" }\n\
         [[source]]\nname = \"unread\"\nkind = \"distribution\"\nsekret = { env = \"PATH\" }\n\
         [[source]]\nname = \"main\"\nkind = \"distribution\"\nsecret = { file = \"FOLDER/first\" }\n",
    )
    .await;
    let body = fixture("distribution-push-nested-port.json");
    for broken in ["unset", "unread"] {
        let answer = gateway.post(broken, &body).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.json()["code"], "source_broken");
    }
    assert_eq!(gateway.post("main", &body).await.status, 202);
    assert_eq!(gateway.post("other", &body).await.status, 404);
    assert_eq!(nats.messages("PUSHES").await.len(), 1);
}

async fn nats_is_empty(nats: &TestNats) {
    for stream in ["PUSHES", "UNRESOLVED", "QUARANTINE"] {
        let messages = nats.messages(stream).await;
        assert!(messages.is_empty(), "{stream}: {messages:?}");
    }
}
