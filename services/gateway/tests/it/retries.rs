//! Bodies that are sent again after an answer other than 2xx.

use serde_json::{Value, json};
use tagtrail_proto::{Event, Push};
use tagtrail_testkit::{SOON, TestNats, eventually};

use crate::gateway::{DIGEST, Gateway, OTHER_DIGEST};

fn list(digest: &str, count: usize) -> Vec<u8> {
    let event =
        |n: usize| json!({ "repository": "shop/web", "tag": format!("t{n}"), "digest": digest });
    Value::from((0..count).map(event).collect::<Vec<_>>())
        .to_string()
        .into_bytes()
}

/// Posts while NATS stands still, then lets NATS store the messages that it has received.
async fn post_in_vain(nats: &TestNats, gateway: &Gateway, body: &[u8], stored: usize) {
    nats.pause().await;
    let answer = gateway.post("ci", body).await;
    nats.unpause().await;
    assert_eq!(answer.status, 503, "{answer:?}");
    eventually("the messages to be stored", SOON, async || {
        let messages = nats.messages("PUSHES").await.len();
        (messages == stored).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_list_without_ids_that_is_sent_again_after_503_is_stored_once() {
    let (nats, gateway) = Gateway::with_nats().await;
    let body = list(DIGEST, 7);
    post_in_vain(&nats, &gateway, &body, 7).await;
    assert_eq!(gateway.post("ci", &body).await.status, 202);
    let stored = nats.messages("PUSHES").await;
    assert_eq!(stored.len(), 7, "the retry is a duplicate");
    let times = stored.iter().map(|(_, payload)| {
        let push = serde_json::from_slice::<Event<Push>>(payload).unwrap().data;
        push.occurred_at
    });
    let times: Vec<_> = times.collect();
    assert!(times.iter().all(|time| *time == times[0]), "{times:?}");

    // The tags move, and move back: the list was accepted before, so it is a new one.
    for body in [list(OTHER_DIGEST, 7), body] {
        assert_eq!(gateway.post("ci", &body).await.status, 202);
    }
    assert_eq!(nats.messages("PUSHES").await.len(), 21);
    gateway.stop().await;
}

#[tokio::test]
async fn a_retry_of_one_body_is_no_retry_of_an_equal_one_before_it() {
    let (nats, gateway) = Gateway::with_nats().await;
    let body = list(DIGEST, 1);
    assert_eq!(gateway.post("ci", &body).await.status, 202);
    assert_eq!(gateway.post("ci", &list(OTHER_DIGEST, 1)).await.status, 202);
    // The third body equals the first, and is stored in its own right, once.
    post_in_vain(&nats, &gateway, &body, 3).await;
    post_in_vain(&nats, &gateway, &body, 3).await;
    assert_eq!(gateway.post("ci", &body).await.status, 202);
    assert_eq!(nats.messages("PUSHES").await.len(), 3);
    gateway.stop().await;
}

#[tokio::test]
async fn as_many_events_as_documented_are_stored_at_once() {
    let (nats, gateway) = Gateway::with_nats().await;
    let answer = gateway.post("ci", &list(DIGEST, 1000)).await;
    assert_eq!(
        (answer.status, &answer.json()["accepted"]),
        (202, &json!(1000))
    );
    assert_eq!(nats.messages("PUSHES").await.len(), 1000);
    gateway.stop().await;
}
