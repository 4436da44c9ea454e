//! The quarantine, on a real nats-server. The test answers the requests to replay in place of a
//! gateway.

use std::time::Duration;

use serde_json::json;
use tagtrail_bus::publish::Message;
use tagtrail_bus::{Bus, BusArgs};
use tagtrail_proto::{Quarantined, ReplayAnswer, ReplayRequest, Replayed, Subject};
use tagtrail_testkit::{SOON, TestNats, eventually};
use tokio::task::JoinSet;

use crate::server::{Api, secret};

/// Writes an entry, as the gateway does.
async fn write(bus: &Bus, reason: &str, body: &[u8]) {
    let subject = Subject::Quarantine {
        source: "nexus-ci".parse().unwrap(),
    };
    let mut entry = Quarantined::new(
        "nexus-ci",
        "nexus",
        reason.to_owned(),
        crate::rows::time(0),
        Some("application/json".to_owned()),
        body,
    );
    let value = "rm:repository:component<i>".to_owned();
    entry.headers.insert("x-nexus-webhook-id".to_owned(), value);
    let message = Message::of(&subject, &entry).unwrap();
    bus.publish(message).await.unwrap();
}

/// Answers requests to replay: entry 1 is replayed, entry 2 is still malformed.
async fn stand_in(bus: Bus) {
    let mut requests = bus
        .requests(ReplayRequest::SUBJECT, "gateway")
        .await
        .unwrap();
    while let Some(request) = requests.next().await {
        let ReplayRequest { number } = serde_json::from_slice(&request.payload).unwrap();
        let answer = match number {
            1 => ReplayAnswer::Replayed(Replayed {
                accepted: 3,
                unresolved: 1,
                ignored: 0,
            }),
            2 => ReplayAnswer::Refused("it has <b>no</b> repository".to_owned()),
            _ => ReplayAnswer::Unknown,
        };
        let answer = serde_json::to_vec(&answer).unwrap();
        request.answer(answer.into()).await;
    }
}

const TOKENS: [(&str, &str, &str); 4] = [
    ("reader", "read", ""),
    ("operator", "operate", ""),
    ("of-all", "operate", "triggers = [\"*\"]"),
    ("of-shop", "operate", "triggers = [\"shop*\"]"),
];

async fn start() -> (TestNats, Bus, Api, tempfile::TempDir, JoinSet<()>) {
    let nats = TestNats::start().await;
    let args = BusArgs::new(nats.url());
    let bus = Bus::connect_within(&args, "test", Duration::from_secs(20))
        .await
        .unwrap();
    let (api, folder) = Api::with_tokens_and_bus(&TOKENS, nats.url()).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(stand_in(bus.clone()));
    (nats, bus, api, folder, tasks)
}

async fn ask(api: &Api, method: &str, path: &str, token: &str) -> (u16, String) {
    let mut request = api.request(method, path).bearer_auth(secret(token));
    if method == "POST" && !path.starts_with("/v1") {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn entries_are_listed_shown_and_replayed_by_operators_alone() {
    let (_nats, bus, api, _folder, _tasks) = start().await;
    write(
        &bus,
        "no repository in the body",
        br#"{"name":"<script>alert(1)</script>"}"#,
    )
    .await;
    write(&bus, "not JSON \u{202e}", b"\xffnot JSON").await;
    write(&bus, "no repository in the body", b"{}").await;
    let get = async |path: &str| {
        let (status, text) = ask(&api, "GET", path, "operator").await;
        (
            status,
            serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default(),
        )
    };
    eventually("the connection of the api", SOON, async || {
        (get("/v1/quarantine").await.0 == 200).then_some(())
    })
    .await;
    let (_, list) = get("/v1/quarantine?limit=2").await;
    let numbers = [&list["items"][0]["number"], &list["items"][1]["number"]];
    assert_eq!(numbers, [3, 2], "{list}");
    let next = list["next"].as_str().unwrap();
    let (_, rest) = get(&format!("/v1/quarantine?limit=2&cursor={next}")).await;
    assert_eq!(rest["items"][0]["number"], 1);
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next"], json!(null));
    let (_, one) = get("/v1/quarantine/1").await;
    assert_eq!(
        (&one["number"], &one["source"]),
        (&json!(1), &json!("nexus-ci"))
    );
    assert!(one["body"].is_string() && list["items"][0].get("body").is_none());
    let (status, problem) = get("/v1/quarantine/9").await;
    assert_eq!(
        (status, &problem["code"]),
        (404, &json!("quarantine_unknown"))
    );

    // Without the role nothing can be read, not even the reasons.
    for path in ["/v1/quarantine", "/v1/quarantine/1", "/quarantine/1"] {
        assert_eq!(ask(&api, "GET", path, "reader").await.0, 403, "{path}");
    }
    for path in ["/v1/quarantine/1/replay", "/quarantine/1/replay"] {
        assert_eq!(ask(&api, "POST", path, "reader").await.0, 403, "{path}");
    }
    // A body may be about the images of any trigger.
    for path in ["/v1/quarantine", "/v1/quarantine/1", "/quarantine/1"] {
        let (status, text) = ask(&api, "GET", path, "of-shop").await;
        assert_eq!(status, 403, "{path}: {text}");
        assert!(text.contains("belong to no trigger"), "{path}: {text}");
        assert_eq!(ask(&api, "GET", path, "of-all").await.0, 200, "{path}");
    }
    for path in ["/v1/quarantine/1/replay", "/quarantine/1/replay"] {
        assert_eq!(ask(&api, "POST", path, "of-shop").await.0, 403, "{path}");
    }
    for token in ["reader", "of-shop"] {
        let (_, text) = ask(&api, "GET", "/sources", token).await;
        assert!(text.contains("Bodies may hold secrets"), "{text}");
        assert!(!text.contains("no repository in the body"), "{text}");
    }

    let (_, text) = ask(&api, "POST", "/v1/quarantine/1/replay", "operator").await;
    let expected = json!({ "accepted": 3, "unresolved": 1, "ignored": 0 });
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        expected
    );
    let (status, text) = ask(&api, "POST", "/v1/quarantine/2/replay", "operator").await;
    assert!(
        status == 409 && text.contains("not_replayed"),
        "{status} {text}"
    );
    let (status, _) = ask(&api, "POST", "/v1/quarantine/9/replay", "operator").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_pages_show_bodies_harmlessly_and_replay_one() {
    let (_nats, bus, api, _folder, _tasks) = start().await;
    write(
        &bus,
        "no <b>repository</b>",
        br#"{"name":"<script>alert(1)</script>"}"#,
    )
    .await;
    write(&bus, "not JSON \u{202e}", b"\xffnot JSON").await;
    let text = eventually("the list", SOON, async || {
        let (_, text) = ask(&api, "GET", "/sources", "operator").await;
        text.contains("Show 2").then_some(text)
    })
    .await;
    assert!(text.contains("href=\"/quarantine/1\""), "{text}");
    assert!(
        !text.contains("<b>repository") && !text.contains('\u{202e}'),
        "{text}"
    );
    let (status, text) = ask(&api, "GET", "/quarantine/1", "operator").await;
    assert_eq!(status, 200);
    assert!(text.contains("&lt;script&gt;alert(1)"), "{text}");
    assert!(
        !text.contains("<script>alert") && !text.contains("component<i>"),
        "{text}"
    );
    assert!(text.contains("action=\"/quarantine/1/replay\""), "{text}");
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let form = client
        .build()
        .unwrap()
        .post(format!("{}/quarantine/1/replay", api.url()))
        .bearer_auth(secret("operator"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("reason=the+kind+is+right+now");
    let answer = form.send().await.unwrap();
    assert_eq!(answer.status(), 303);
    assert_eq!(answer.headers()["location"], "/quarantine/1?replayed=4");
    let (_, acts) = ask(&api, "GET", "/v1/acts", "operator").await;
    let acts: serde_json::Value = serde_json::from_str(&acts).unwrap();
    let act = &acts["items"][0];
    assert_eq!(
        json!([
            act["act"],
            act["actor"],
            act["trigger"],
            act["reason"],
            act["details"]
        ]),
        json!(["replay", "operator", null, "the kind is right now", { "quarantine": 1 }])
    );
    let (_, text) = ask(&api, "GET", "/quarantine/1?replayed=4", "operator").await;
    assert!(text.contains("Replayed: 4 pushes are stored"), "{text}");
    let (status, text) = ask(&api, "POST", "/quarantine/2/replay", "operator").await;
    assert_eq!(status, 409);
    assert!(
        text.contains("it has &lt;b&gt;no&lt;/b&gt; repository"),
        "{text}"
    );
    let (status, text) = ask(&api, "GET", "/quarantine/7", "operator").await;
    assert!(
        status == 404 && text.contains("no entry 7 in quarantine"),
        "{text}"
    );
}

#[tokio::test]
async fn without_nats_the_answer_is_503_and_pages_go_on() {
    let (api, _rows) = Api::start().await;
    let problem = api.get("/v1/quarantine").await.problem();
    assert_eq!(problem, "503 quarantine_unavailable");
    assert_eq!(api.found("/v1/status").await["quarantined"], json!(null));
    let text = crate::pages_home::page(&api, "/sources").await;
    assert!(text.contains("NATS was not reached"), "{text}");
}
