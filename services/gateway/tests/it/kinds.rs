//! Every kind of source over a real socket: the fixtures, with headers and proof as each registry
//! sends them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use tagtrail_proto::{Event, Push, Quarantined};
use tagtrail_testkit::{SOON, TestNats, eventually};
use time::OffsetDateTime;

use crate::client::{Answer, head, post, send};
use crate::fixture;
use crate::gateway::Gateway;

const SECRET: &str = "tagtrail-fixture-secret";

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    file: String,
    kind: String,
    headers: BTreeMap<String, String>,
    route: Option<BTreeMap<String, String>>,
    events: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    action: String,
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
    event_id: String,
    index_effect: String,
}

impl Case {
    /// Returns the name of a source for the case's kind and settings.
    fn source(&self) -> String {
        let route = self.route.iter().flatten();
        let route = route.map(|(key, value)| format!("-{key}-{value}"));
        let name = format!("{}{}", self.kind, route.collect::<String>());
        name.replace(['_', '.', ':'], "-")
            .chars()
            .take(63)
            .collect()
    }

    fn toml(&self) -> String {
        let route = self.route.iter().flatten();
        let route: String = route
            .map(|(key, value)| format!("{key} = \"{value}\"\n"))
            .collect();
        format!(
            "[[source]]\nname = \"{}\"\nkind = \"{}\"\nsecret = {{ file = \"FOLDER/fixture\" }}\n{route}\n",
            self.source(),
            self.kind
        )
    }

    /// Returns the headers of the registry, and the path, which holds the secret if no header
    /// proves the sender's identity.
    fn request(&self) -> (Vec<(&str, &str)>, String) {
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .filter(|(name, value)| {
                !value.contains('<')
                    && !value.starts_with("(none")
                    && !name.starts_with("nats")
                    && *name != "transport"
            })
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let proves = |name: &str| {
            let name = name.to_lowercase();
            name.contains("auth") || name.contains("signature")
        };
        let path = match headers.iter().any(|(name, _)| proves(name)) {
            true => format!("/hooks/{}", self.source()),
            false => format!("/hooks/{}/{SECRET}", self.source()),
        };
        (headers, path)
    }
}

fn cases() -> Vec<Case> {
    let cases: Cases = serde_json::from_slice(&fixture("CASES.json")).unwrap();
    cases.cases
}

fn pushes(messages: Vec<(String, Vec<u8>)>) -> Vec<Push> {
    let push = |payload: &[u8]| serde_json::from_slice::<Event<Push>>(payload).unwrap().data;
    messages.iter().map(|(_, payload)| push(payload)).collect()
}

/// Returns the push as text.
fn text(push: &Push) -> String {
    let text = |value: Option<String>| value.unwrap_or_default();
    format!(
        "{} {}/{}:{} {} {}",
        push.action,
        push.registry,
        push.repository,
        text(push.tag.as_ref().map(ToString::to_string)),
        text(push.digest.as_ref().map(ToString::to_string)),
        push.event_id
    )
}

impl Expected {
    fn text(&self) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        format!(
            "{} {}/{}:{} {} {}",
            self.action,
            self.registry,
            self.repository,
            text(&self.tag),
            text(&self.digest),
            self.event_id
        )
    }
}

#[tokio::test]
async fn all_fixtures_arrive_as_their_registries_send_them() {
    let nats = TestNats::start().await;
    let cases = cases();
    let sources: BTreeMap<String, String> = cases
        .iter()
        .map(|case| (case.source(), case.toml()))
        .collect();
    let gateway = Gateway::with(&nats, &sources.into_values().collect::<String>()).await;
    let (mut resolved, mut unresolved) = (Vec::new(), Vec::new());
    for case in &cases {
        let (headers, path) = case.request();
        let body = fixture(&case.file);
        let answer = post(gateway.address, &path, &headers, &body).await;
        assert_eq!(answer.status, 202, "{}: {answer:?}", case.file);
        for event in &case.events {
            match event.index_effect.as_str() {
                "manifest-only" | "none" => {}
                "resolve-then-set-tag" => unresolved.push(event.text()),
                _ => resolved.push(event.text()),
            }
        }
        refused(&gateway, case, &headers, &path, &body).await;
    }
    let mut stored: Vec<String> = pushes(nats.messages("PUSHES").await)
        .iter()
        .map(text)
        .collect();
    let mut asked: Vec<String> = pushes(nats.messages("UNRESOLVED").await)
        .iter()
        .map(text)
        .collect();
    for list in [&mut stored, &mut asked, &mut resolved, &mut unresolved] {
        list.sort();
    }
    assert_eq!(stored, resolved);
    assert_eq!(asked, unresolved);
    let kept: Vec<Quarantined> = nats
        .messages("QUARANTINE")
        .await
        .iter()
        .map(|(_, payload)| serde_json::from_slice(payload).unwrap())
        .collect();
    let [kept] = kept.as_slice() else {
        panic!("{kept:?}")
    };
    assert_eq!(kept.source, "distribution");
    gateway.stop().await;
}

/// The request is refused with another secret, with another body if the body is signed, and without
/// a proof.
async fn refused(
    gateway: &Gateway,
    case: &Case,
    headers: &[(&str, &str)],
    path: &str,
    body: &[u8],
) {
    let wrong: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| match *value == SECRET {
            true => (*name, "another-secret"),
            false => (*name, *value),
        })
        .collect();
    let is_signed = headers.iter().any(|(name, _)| {
        name.to_lowercase().contains("signature") || *name == "X-JFrog-Event-Auth"
    });
    let body = match is_signed {
        true => [body, b" "].concat(),
        false => body.to_vec(),
    };
    let path = path.replace(SECRET, "another-secret");
    let answer = post(gateway.address, &path, &wrong, &body).await;
    // The path holds the secret of Distribution's fixtures, whose headers have none.
    assert_eq!(answer.status, 401, "{}: {answer:?}", case.file);
}

/// Returns a body as a form, with the headers of the case except the proof of the sender.
fn form<'a>(case: &'a Case, body: &[u8]) -> (Vec<(&'a str, &'a str)>, String) {
    let (mut headers, _) = case.request();
    headers.retain(|(name, _)| {
        let name = name.to_lowercase();
        !name.contains("auth") && !name.contains("signature") && name != "content-type"
    });
    headers.push(("content-type", "application/x-www-form-urlencoded"));
    let json = String::from_utf8(body.to_vec()).unwrap();
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &json)
        .finish();
    (headers, form)
}

#[tokio::test]
async fn every_kind_takes_its_json_in_a_form() {
    let nats = TestNats::start().await;
    let cases = cases();
    let sources: BTreeMap<String, String> = cases
        .iter()
        .map(|case| (case.source(), case.toml()))
        .collect();
    let gateway = Gateway::with(&nats, &sources.into_values().collect::<String>()).await;
    for case in &cases {
        let body = fixture(&case.file);
        let path = format!("/hooks/{}/{SECRET}", case.source());
        let (headers, form) = form(case, &body);
        let from_form = post(gateway.address, &path, &headers, form.as_bytes()).await;
        let json: Vec<_> = headers
            .into_iter()
            .filter(|(name, _)| *name != "content-type")
            .collect();
        let from_json = post(gateway.address, &path, &json, &body).await;
        assert_eq!(from_form.status, 202, "{}: {from_form:?}", case.file);
        assert_eq!(from_form.json(), from_json.json(), "{}", case.file);
    }
}

#[tokio::test]
async fn the_signature_of_a_form_covers_the_raw_body() {
    let nats = TestNats::start().await;
    let gateway = Gateway::with(
        &nats,
        "[[source]]\nname = \"hub\"\nkind = \"ghcr\"\nsecret = { file = \"FOLDER/fixture\" }\n",
    )
    .await;
    let json = String::from_utf8(fixture("ghcr-package-published.json")).unwrap();
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &json)
        .finish();
    let sign = |text: &str| {
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        let mac = mac.chain_update(text).finalize().into_bytes();
        let digits: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256={digits}")
    };
    let deliver = async |signature: String, body: &str| {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-github-event", "package"),
            ("x-github-delivery", "one"),
            ("x-hub-signature-256", signature.as_str()),
        ];
        post(gateway.address, "/hooks/hub", &headers, body.as_bytes()).await
    };
    let answer = deliver(sign(&json), &form).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    let answer = deliver(sign(&form), &form).await;
    assert_eq!(
        (answer.status, &answer.json()["accepted"]),
        (202, &json!(1)),
        "{answer:?}"
    );
    let push = &pushes(nats.messages("PUSHES").await)[0];
    assert_eq!(push.event_id, "one");

    // A form without the field: the sender's setting is the cure.
    let wrong = "package=app&tag=v1";
    let answer = deliver(sign(wrong), wrong).await;
    assert_eq!(answer.json()["quarantined"], 1, "{answer:?}");
    let reason = answer.json()["reasons"][0].as_str().unwrap().to_owned();
    for part in [
        "content type application/x-www-form-urlencoded",
        "package=",
        "set the content type of the webhook to application/json",
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
}

#[tokio::test]
async fn azure_asks_before_it_sends() {
    let nats = TestNats::start().await;
    let gateway = Gateway::with(
        &nats,
        "[[source]]\nname = \"azure\"\nkind = \"acr\"\nsecret = { file = \"FOLDER/fixture\" }\n",
    )
    .await;
    let question = json!([{
        "id": "1", "topic": "", "subject": "", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}
    }]);
    let path = format!("/hooks/azure/{SECRET}");
    let answer = post(
        gateway.address,
        &path,
        &[("aeg-event-type", "SubscriptionValidation")],
        question.to_string().as_bytes(),
    )
    .await;
    assert_eq!(
        (answer.status, answer.json()),
        (
            200,
            json!({"validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"})
        )
    );
    // With the schema of CloudEvents, Event Grid asks by OPTIONS.
    let handshake = |path: String| {
        let head = head(
            "OPTIONS",
            &path,
            &[("WebHook-Request-Origin", "eventgrid.azure.net")],
        );
        let address = gateway.address;
        async move { send(address, format!("{head}\r\n").as_bytes()).await }
    };
    let answer: Answer = handshake(path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.header("webhook-allowed-origin"),
        Some("eventgrid.azure.net")
    );
    assert_eq!(handshake("/hooks/azure".to_owned()).await.status, 401);
    assert_eq!(handshake("/hooks/azure/wrong".to_owned()).await.status, 401);
}

/// Returns a token of the form of Google's, signed with the test key.
fn token(claims: &Value) -> String {
    let key = RsaKeyPair::from_pkcs8(&fixture("id-token-test-key.pk8")).unwrap();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        encode(&json!({"alg": "RS256", "kid": "one"})),
        encode(claims)
    );
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn google_shows_a_token_instead_of_a_secret() {
    let nats = TestNats::start().await;
    let key = RsaKeyPair::from_pkcs8(&fixture("id-token-test-key.pk8")).unwrap();
    let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(key.public());
    let encode = |bytes| URL_SAFE_NO_PAD.encode(bytes);
    let keys = json!({"keys": [{"kty": "RSA", "kid": "one", "n": encode(n), "e": encode(e)}]});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), keys.to_string()).unwrap();
    let gateway = Gateway::with(
        &nats,
        &format!(
            "[[source]]\nname = \"google\"\nkind = \"gar\"\naudience = \"https://a/hooks/google\"\nemail = \"push@acme\"\nkeys = {{ file = \"{}\" }}\n",
            file.path().display()
        ),
    )
    .await;
    let claims = |audience: &str| {
        json!({
            "iss": "accounts.google.com", "aud": audience, "email": "push@acme", "email_verified": true,
            "exp": OffsetDateTime::now_utc().unix_timestamp() + 60,
        })
    };
    let post = |value: String| {
        let address = gateway.address;
        async move {
            let headers = [("authorization", value.as_str())];
            post(
                address,
                "/hooks/google",
                &headers,
                &fixture("gar-unwrapped.json"),
            )
            .await
            .status
        }
    };
    assert_eq!(post(token(&claims("https://a/hooks/google"))).await, 202);
    assert_eq!(post(token(&claims("https://b/hooks/google"))).await, 401);
    assert_eq!(post("Bearer ".to_owned()).await, 401);
    assert_eq!(post(SECRET.to_owned()).await, 401);
    assert_eq!(nats.messages("PUSHES").await.len(), 1);
}

#[tokio::test]
async fn zot_events_are_received_on_its_nats_subject() {
    let (nats, foreign) = (TestNats::start().await, TestNats::start().await);
    let sources = format!(
        "[[source]]\nname = \"zot\"\nkind = \"zot\"\nregistry = \"zot.example.com:5000\"\nnats = {{ url = \"{}\", subject = \"zot.events\" }}\n",
        foreign.url()
    );
    let (one, two) = (
        Gateway::with(&nats, &sources).await,
        Gateway::with(&nats, &sources).await,
    );
    let zot = foreign.client().await.unwrap();
    let say = async |file: &str| {
        zot.publish("zot.events", fixture(file).into())
            .await
            .unwrap();
        zot.flush().await.unwrap();
    };
    // Repeats until both gateways are subscribed.
    eventually("the first event is stored", SOON, async || {
        say("zot-nats-image-updated.json").await;
        (nats.messages("PUSHES").await.len() == 1).then_some(())
    })
    .await;
    for file in [
        "zot-nats-image-deleted-tag.json",
        "zot-nats-image-scanned.json",
        "zot-nats-custom-prefix.json",
    ] {
        say(file).await;
    }
    zot.publish("zot.events", "{".into()).await.unwrap();
    zot.flush().await.unwrap();
    eventually("the others are stored", SOON, async || {
        let (pushes, kept) = (
            nats.messages("PUSHES").await,
            nats.messages("QUARANTINE").await,
        );
        (pushes.len() == 3 && kept.len() == 1).then_some(())
    })
    .await;
    // Without a secret, no request is accepted.
    let answer = post(one.address, "/hooks/zot", &[("authorization", "")], b"{}").await;
    assert_eq!(answer.status, 401);
    // The loss of the foreign server leaves the gateway ready.
    drop(foreign);
    tokio::time::timeout(SOON, one.ctx.health.wait_ready())
        .await
        .unwrap();
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_request_of_the_api_replays_the_body_that_it_names() {
    let nats = TestNats::start().await;
    let gateway = Gateway::with(
        &nats,
        "[[source]]\nname = \"zot\"\nkind = \"zot\"\nregistry = \"zot.example.com\"\nsecret = { file = \"FOLDER/fixture\" }\n",
    )
    .await;
    let client = nats.client().await.unwrap();
    let jetstream = nats.jetstream().await;
    // Entry 1 was written by a version that could not interpret a body which this one can. Entry 2
    // is still malformed.
    let body = json!({"name": "shop/web", "reference": "v1", "digest": crate::DIGEST});
    for body in [body, json!({"name": "Not A Name"})] {
        let mut entry = Quarantined::new(
            "zot",
            "zot",
            "of an earlier version".to_owned(),
            tagtrail_proto::instant::parse("2026-03-03T14:00:00Z").unwrap(),
            Some("application/json".to_owned()),
            body.to_string().as_bytes(),
        );
        for (name, value) in [("ce-type", "zotregistry.image.updated"), ("ce-id", "one")] {
            entry.headers.insert(name.to_owned(), value.to_owned());
        }
        let text = serde_json::to_vec(&entry).unwrap();
        let stored = jetstream.publish("tagtrail.quarantine.zot", text.into());
        stored.await.unwrap().await.unwrap();
    }
    let ask = async |request: Value| -> Value {
        let text = request.to_string();
        let answer = client
            .request("tagtrail.replay", text.into())
            .await
            .unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    // The gateway listens for requests shortly after it is ready.
    let answer = eventually("an answer", SOON, async || {
        let request = client.request("tagtrail.replay", r#"{"number":1}"#.into());
        let answer = request.await.ok()?;
        Some(serde_json::from_slice::<Value>(&answer.payload).unwrap())
    })
    .await;
    let expected = json!({ "replayed": { "accepted": 1, "unresolved": 0, "ignored": 0 } });
    assert_eq!(answer, expected);
    // A replay that is repeated records the push once: equal content, at the first time of receipt.
    assert_eq!(ask(json!({ "number": 1 })).await, expected);
    let refused = ask(json!({ "number": 2 })).await;
    assert!(
        refused["refused"]
            .as_str()
            .unwrap()
            .contains("still malformed"),
        "{refused}"
    );
    assert_eq!(ask(json!({ "number": 9 })).await, json!("unknown"));
    // A request can't bring a body along.
    let refused = ask(json!({ "number": 1, "body": "e30=" })).await;
    assert!(refused["refused"].is_string(), "{refused}");
    drop(gateway);
}

#[tokio::test]
async fn a_quarantined_body_keeps_the_headers_of_its_kind() {
    let nats = TestNats::start().await;
    let gateway = Gateway::with(
        &nats,
        "[[source]]\nname = \"zot\"\nkind = \"zot\"\nregistry = \"zot.example.com\"\nsecret = { file = \"FOLDER/fixture\" }\n",
    )
    .await;
    let headers = [
        ("authorization", SECRET),
        ("ce-type", "zotregistry.image.updated"),
        ("ce-id", "one"),
        ("x-other", "is not kept"),
    ];
    let body =
        json!({"name": "Not A Name", "reference": "v1", "digest": crate::DIGEST}).to_string();
    let answer = post(gateway.address, "/hooks/zot", &headers, body.as_bytes()).await;
    assert_eq!(answer.json()["quarantined"], 1, "{answer:?}");
    let messages = nats.messages("QUARANTINE").await;
    let kept: Quarantined = serde_json::from_slice(&messages[0].1).unwrap();
    let headers: Vec<(&str, &str)> = kept
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        headers,
        [("ce-id", "one"), ("ce-type", "zotregistry.image.updated")]
    );
}
