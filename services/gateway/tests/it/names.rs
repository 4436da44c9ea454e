//! Registries with several names.

use serde_json::json;
use tagtrail_config::File;
use tagtrail_proto::{Action, Event, Origin, Push, Quarantined, Scope, TimeSource};
use tagtrail_testkit::TestNats;
use time::OffsetDateTime;

use crate::client::post;
use crate::gateway::{DIGEST, Gateway};

const SOURCES: &str = r#"
[[registry]]
name = "hub.example.com"
url = "https://hub.example.com"
aliases = ["127.0.0.1:5000", "mirror.example.com"]

[[registry]]
name = "forge.example.com"
url = "https://forge.example.com"
aliases = ["forge:3000"]

[[source]]
name = "any"
kind = "distribution"
registry = "any"
secret = { file = "FOLDER/fixture" }

[[source]]
name = "one"
kind = "generic"
registry = "mirror.example.com"
repositories = ["127.0.0.1.example.com/x", "mirror.example.com/shop/*"]
secret = { file = "FOLDER/fixture" }

[[source]]
name = "forge"
kind = "gitea"
registry = "forge:3000"
secret = { file = "FOLDER/fixture" }

[[source]]
name = "script"
kind = "generic"
registry = "forge.example.com"
secret = { file = "FOLDER/fixture" }
"#;

async fn images(nats: &TestNats) -> Vec<String> {
    let messages = nats.messages("PUSHES").await;
    let image = |payload: &[u8]| {
        let push: Event<Push> = serde_json::from_slice(payload).unwrap();
        assert_eq!(push.subject, push.data.image().unwrap().to_string());
        push.subject
    };
    messages.iter().map(|(_, payload)| image(payload)).collect()
}

#[tokio::test]
async fn events_under_an_alias_are_the_registrys() {
    let nats = TestNats::start().await;
    let gateway = Gateway::with(&nats, SOURCES).await;
    let event = |host: &str, tag: &str| {
        json!({ "events": [{
            "id": host, "action": "push", "timestamp": "2026-03-03T14:00:00Z",
            "target": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST,
                "repository": "shop/web", "tag": tag, "url": format!("http://{host}/v2/shop/web/manifests/{DIGEST}") },
            "request": { "host": host },
        }] })
    };
    let script = |repository: &str, tag: &str| json!({ "repository": repository, "tag": tag, "digest": DIGEST });
    for (source, body) in [
        ("any", event("127.0.0.1:5000", "A")),
        ("any", event("hub.example.com", "B")),
        ("any", event("127.0.0.1:5001", "C")),
        ("one", script("shop/web", "D")),
        ("one", script("base/web", "E")),
        ("script", script("team/app", "RC1")),
    ] {
        let secret = [("authorization", "Bearer tagtrail-fixture-secret")];
        let body = body.to_string();
        let path = format!("/hooks/{source}");
        let answer = post(gateway.address, &path, &secret, body.as_bytes()).await;
        assert_eq!(answer.status, 202);
    }
    assert_eq!(
        images(&nats).await,
        [
            "hub.example.com/shop/web:A",
            "hub.example.com/shop/web:B",
            "127.0.0.1:5001/shop/web:C",
            "hub.example.com/shop/web:D",
            // Gitea folds the case of tags, and a script may not.
            "forge.example.com/team/app:rc1",
        ]
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_question_that_is_replayed_goes_to_the_registry_of_the_alias() {
    let nats = TestNats::start().await;
    let bus = bus(&nats).await;
    let file = File::parse(
        &SOURCES.replace("FOLDER", "/none"),
        "tagtrail.toml".as_ref(),
    )
    .unwrap();
    let push = Push {
        action: Action::Push,
        scope: Scope::Tag,
        registry: "forge:3000".parse().unwrap(),
        repository: "team/app".parse().unwrap(),
        tag: Some("RC2".parse().unwrap()),
        digest: None,
        media_type: None,
        size: None,
        actor: None,
        occurred_at: OffsetDateTime::UNIX_EPOCH,
        occurred_at_source: TimeSource::Received,
        source: "forge".to_owned(),
        origin: Origin::Event,
        event_id: "1".to_owned(),
    };
    let body = serde_json::to_vec(&push.event()).unwrap();
    let kept = Quarantined::new(
        "forge",
        Quarantined::PUSH,
        "not configured".to_owned(),
        OffsetDateTime::now_utc(),
        None,
        &body,
    );
    let receipt = tagtrail_gateway::replay(&bus, &file, &kept).await.unwrap();
    assert_eq!(receipt.unresolved, 1);
    let asked = nats.messages("UNRESOLVED").await;
    assert_eq!(
        asked[0].0,
        "tagtrail.unresolved.forge%2Eexample%2Ecom.team.app.rc2"
    );
}

async fn bus(nats: &TestNats) -> tagtrail_bus::Bus {
    let stop = tokio_util::sync::CancellationToken::new();
    let args = tagtrail_bus::BusArgs::new(nats.url());
    tagtrail_bus::Bus::connect(&args, "gateway", &stop)
        .await
        .unwrap()
}
