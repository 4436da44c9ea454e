//! The rights of the accounts of `deploy/nats/nats.conf`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tagtrail_testkit::SOON;

use super::accounts::Up;

/// The accounts that may send requests from outside the account of the streams.
const OUTSIDE: [&str; 5] = ["gateway", "resolver", "trigger", "api", "subscriber"];

/// The streams that hold messages.
const STREAMS: [&str; 7] = [
    "PUSHES",
    "PUSHES_0",
    "UNRESOLVED",
    "REVISIONS",
    "ROLLOUTS",
    "MANIFESTS",
    "QUARANTINE",
];

/// A subject of each stream, which no service uses.
const STORED: [&str; 9] = [
    "tagtrail.push.0.forged",
    "tagtrail.unresolved.forged",
    "tagtrail.revision.forged",
    "tagtrail.fence.4711",
    "tagtrail.rollout.forged.pending",
    "tagtrail.hold.ffffffffffffffff",
    "tagtrail.trigger.forged.broken",
    "tagtrail.manifest.forged",
    "tagtrail.quarantine.forged",
];

/// Checks that NATS itself refuses the requests that an account must not make.
pub(super) async fn refuses_requests(up: &Up) {
    for (account, subject) in [
        ("gateway", "tagtrail.revision.a%2Eb.c.d"),
        ("gateway", "tagtrail.fence.0"),
        ("gateway", "$JS.API.STREAM.DELETE.PUSHES"),
        ("gateway", "$JS.API.STREAM.PURGE.PUSHES"),
        ("gateway", "$JS.API.STREAM.MSG.GET.PUSHES"),
        ("gateway", "$JS.API.CONSUMER.CREATE.PUSHES"),
        ("resolver", "tagtrail.revision.a%2Eb.c.d"),
        ("resolver", "$JS.API.CONSUMER.DELETE.UNRESOLVED.resolver"),
        ("resolver", "$JS.API.CONSUMER.CREATE.REVISIONS.other"),
        ("indexer", "tagtrail.push.0.a%2Eb.c.d"),
        ("indexer", "tagtrail.rollout.shop.succeeded"),
        ("subscriber", "tagtrail.hold.ffffffffffffffff"),
        ("subscriber", "tagtrail.trigger.shop.broken"),
        ("trigger", "$JS.API.CONSUMER.CREATE.ROLLOUTS"),
        ("trigger", "$JS.API.CONSUMER.DELETE.ROLLOUTS.other"),
        ("indexer", "tagtrail.manifest.sha256.00"),
        ("gateway", "tagtrail.manifest.sha256.00"),
        ("indexer", "$JS.API.STREAM.UPDATE.REVISIONS"),
        ("trigger", "tagtrail.revision.a%2Eb.c.d"),
        ("trigger", "tagtrail.push.0.a%2Eb.c.d"),
        ("api", "tagtrail.push.0.a%2Eb.c.d"),
        ("api", "$JS.API.STREAM.INFO.PUSHES"),
        ("api", "$JS.API.STREAM.MSG.GET.PUSHES"),
        ("api", "$JS.API.STREAM.PURGE.QUARANTINE"),
        ("api", "tagtrail.quarantine.forged"),
        ("gateway", "$JS.API.STREAM.MSG.GET.REVISIONS"),
        ("subscriber", "$JS.API.STREAM.MSG.GET.QUARANTINE"),
        ("subscriber", "tagtrail.replay"),
        ("operator", "$JS.API.STREAM.DELETE.QUARANTINE"),
        ("subscriber", "tagtrail.revision.a%2Eb.c.d"),
        ("subscriber", "$JS.API.STREAM.MSG.DELETE.REVISIONS"),
        ("subscriber", "$JS.API.CONSUMER.CREATE.PUSHES"),
        ("subscriber", "$JS.API.CONSUMER.CREATE.REVISIONS"),
        ("subscriber", "$JS.API.CONSUMER.CREATE.REVISIONS.manifests"),
        (
            "subscriber",
            "$JS.API.CONSUMER.CREATE.REVISIONS.manifests.tagtrail.revision.>",
        ),
        (
            "subscriber",
            "$JS.API.CONSUMER.DURABLE.CREATE.REVISIONS.manifests",
        ),
        ("subscriber", "$JS.API.CONSUMER.DELETE.REVISIONS.other"),
        ("subscriber", "$JS.API.STREAM.INFO.PUSHES"),
        ("subscriber", "$JS.API.DIRECT.GET.PUSHES"),
        ("subscriber", "$JS.API.STREAM.LIST"),
        ("trigger", "$JS.API.CONSUMER.CREATE.REVISIONS"),
        (
            "trigger",
            "$JS.API.CONSUMER.CREATE.REVISIONS.manifests.tagtrail.revision.>",
        ),
        ("trigger", "$JS.API.CONSUMER.MSG.NEXT.REVISIONS.manifests"),
        ("subscriber", "$JS.API.CONSUMER.DELETE.REVISIONS.manifests"),
        (
            "subscriber",
            "$JS.API.CONSUMER.MSG.NEXT.REVISIONS.manifests",
        ),
        ("subscriber", "tagtrail.manifest.sha256.00"),
        ("migrate", "tagtrail.push.0.a%2Eb.c.d"),
        ("migrate", "$JS.API.STREAM.DELETE.PUSHES"),
    ] {
        let client = up.nats(account).await;
        // A request that the permissions refuse gets no answer at all.
        let answer = client.request(subject, "{}".into()).await;
        assert!(
            answer.is_err(),
            "{account} may publish to {subject}: {answer:?}"
        );
    }
    for (account, subject) in [
        ("gateway", "tagtrail.>"),
        ("resolver", "tagtrail.push.>"),
        ("api", "tagtrail.push.>"),
        ("subscriber", "tagtrail.push.>"),
        ("subscriber", "tagtrail.quarantine.*"),
        ("subscriber", "_INBOX_gateway.>"),
        ("indexer", "_INBOX_gateway.>"),
    ] {
        let (events, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let password = up.env[&format!("NATS_{}_PASSWORD", account.to_uppercase())].clone();
        let client =
            async_nats::ConnectOptions::with_user_and_password(account.to_owned(), password)
                .event_callback(move |event| {
                    let _ = events.send(event.to_string());
                    std::future::ready(())
                })
                .connect(&up.nats)
                .await
                .unwrap();
        let _subscription = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        let refused = async {
            loop {
                let event = heard.recv().await.unwrap();
                if event
                    .to_lowercase()
                    .contains("permissions violation for subscription")
                {
                    return;
                }
            }
        };
        tokio::time::timeout(SOON, refused)
            .await
            .unwrap_or_else(|_| panic!("{account} may subscribe to {subject}"));
    }
}

/// Checks that no account outside that of the streams can make the server store an answer, by a
/// reply subject that a stream keeps.
pub(super) async fn stores_no_answer(up: &Up) {
    let mut requests: Vec<String> = ["INFO", "STREAM.NAMES", "STREAM.LIST"]
        .map(|request| format!("$JS.API.{request}"))
        .into();
    for stream in STREAMS {
        requests.extend(
            [
                "STREAM.INFO.#",
                "STREAM.MSG.GET.#",
                "DIRECT.GET.#",
                "DIRECT.GET.#.tagtrail.revision.>",
                "CONSUMER.NAMES.#",
                "CONSUMER.LIST.#",
                "CONSUMER.CREATE.#.mine",
                "CONSUMER.INFO.#.mine",
                "CONSUMER.INFO.#.manifests",
                "CONSUMER.MSG.NEXT.#.mine",
                "CONSUMER.MSG.NEXT.#.manifests",
                "CONSUMER.MSG.NEXT.#.resolver",
            ]
            .map(|request| format!("$JS.API.{}", request.replace('#', stream))),
        );
        requests.push(format!("$JS.ACK.{stream}.mine.1.1.1.1.0"));
    }
    requests.push("$JS.FC.mine".to_owned());
    let before = stored(up).await;
    for account in OUTSIDE {
        let client = up.nats(account).await;
        for request in &requests {
            let body = match request {
                next if next.contains("MSG.NEXT") => r#"{"batch":1,"no_wait":true}"#,
                get if get.contains(".GET.") => r#"{"seq":1}"#,
                _ => "",
            };
            for reply in STORED {
                client
                    .publish_with_reply(request.clone(), reply, body.into())
                    .await
                    .unwrap();
            }
        }
        client.flush().await.unwrap();
        // An answer comes within milliseconds; the time is for a loaded machine.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = stored(up).await;
        assert_eq!(after, before, "{account} made the server store an answer");
    }
}

/// Checks that subscribers can't take all connections of the server.
pub(super) async fn leaves_connections_to_services(up: &Up) {
    const MOST: usize = 500;
    let mut clients = Vec::new();
    while let Ok(client) = up.try_nats("subscriber").await {
        clients.push(client);
        assert!(clients.len() <= MOST);
    }
    assert!(clients.len() > MOST / 2, "{}", clients.len());
    up.nats("gateway").await;
}

/// Returns the number of messages in the forged subjects of each stream.
async fn stored(up: &Up) -> BTreeMap<&'static str, Value> {
    let client = up.nats("migrate").await;
    let mut found = BTreeMap::new();
    for stream in STREAMS {
        let answer = client
            .request(
                format!("$JS.API.STREAM.INFO.{stream}"),
                r#"{"subjects_filter":">"}"#.into(),
            )
            .await
            .unwrap();
        let info: Value = serde_json::from_slice(&answer.payload).unwrap();
        let subjects = info["state"]["subjects"].as_object().cloned();
        let forged = subjects
            .unwrap_or_default()
            .into_iter()
            .filter(|(subject, _)| STORED.contains(&subject.as_str()))
            .collect();
        found.insert(stream, Value::Object(forged));
    }
    found
}
