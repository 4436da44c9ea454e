//! The rollouts that follow from heads.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use tagtrail_proto::RolloutState::{Pending, Running, Succeeded, Superseded};
use tagtrail_testkit::Answer;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_target_receives_the_set_of_images_pinned_and_signed() {
    let mut world = World::new().await;
    let service = world.start().await;
    world.push(WEB, 1).await;
    a_while().await;
    assert_eq!(
        world.sink.deliveries().len(),
        0,
        "an incomplete set starts no rollout"
    );
    world.push(WORKER, 2).await;
    let delivery = world.sink.wait(1).await.remove(0);

    assert_eq!(
        delivery.header("content-type"),
        "application/cloudevents+json"
    );
    let event = delivery.json();
    assert_eq!(event["type"], "dev.tagtrail.rollout.v1");
    let rollout = &event["data"];
    assert_eq!(rollout["id"], delivery.header("webhook-id"));
    assert_eq!(
        (&rollout["trigger"], &rollout["number"], &rollout["state"]),
        (&json!("shop"), &json!(1), &json!("pending"))
    );
    assert_eq!(
        rollout["cause"],
        json!({ "reason": "start", "changed": ["web", "worker"] })
    );
    assert_eq!(
        rollout["images"],
        json!({
            "web": { "image": WEB, "revision": 1, "digest": digest(1), "pinned": format!("registry.example.com/shop/web@{}", digest(1)) },
            "worker": { "image": WORKER, "revision": 1, "digest": digest(2), "pinned": format!("registry.example.com/shop/worker@{}", digest(2)) },
        })
    );

    // The signature is computed here by the specification, without the code under test.
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(
        &STANDARD
            .decode(SECRET.strip_prefix("whsec_").unwrap())
            .unwrap(),
    )
    .unwrap();
    mac.update(
        format!(
            "{}.{}.",
            delivery.header("webhook-id"),
            delivery.header("webhook-timestamp")
        )
        .as_bytes(),
    );
    mac.update(&delivery.body);
    assert_eq!(
        delivery.header("webhook-signature"),
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    );
    let sent: i64 = delivery.header("webhook-timestamp").parse().unwrap();
    assert!((time::OffsetDateTime::now_utc().unix_timestamp() - sent).abs() < 60);

    world.wait(1, Succeeded).await;
    assert_eq!(
        world.published().await,
        [(1, Pending), (1, Running), (1, Succeeded)]
    );
    a_while().await;
    assert_eq!(world.sink.deliveries().len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_during_an_attempt_wait_and_only_the_last_is_rolled_out() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world
        .sink
        .answer([Answer::Late(Duration::from_secs(2), 200)]);
    let service = world.start().await;
    world.sink.wait(1).await;
    for n in 2..6 {
        world.push(WEB, n).await;
        world.wait(i64::from(n), Pending).await;
    }
    assert_eq!(
        world.sink.deliveries().len(),
        1,
        "one live rollout at a time"
    );
    world.wait(5, Succeeded).await;
    let deliveries = world.sink.deliveries();
    let numbers: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.json()["data"]["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 5]);
    assert_eq!(
        deliveries[1].json()["data"]["images"]["web"]["digest"],
        json!(digest(5))
    );
    let expected = [
        (1, Succeeded, 1),
        (2, Superseded, 0),
        (3, Superseded, 0),
        (4, Superseded, 0),
        (5, Succeeded, 1),
    ];
    assert_eq!(world.rollouts().await, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_rollout_supersedes_a_failing_rollout_between_attempts() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    // Without a newer rollout the retries would go on for a day.
    world.sink.answer((0..3).map(|_| Answer::Status(500)));
    let service = world.start().await;
    world.sink.wait(2).await;
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    world.wait(1, Superseded).await;
    let last = world.sink.deliveries().pop().unwrap();
    assert_eq!(last.json()["data"]["number"], 2);
    let published = world.published().await;
    assert_eq!(
        published
            .iter()
            .filter(|(number, _)| *number == 1)
            .map(|(_, state)| *state)
            .collect::<Vec<_>>(),
        [Pending, Running, Superseded]
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_paused_nothing_starts_and_resuming_rolls_out_the_present_heads_once() {
    let (mut world, service) = World::rolled_out().await;
    world.switch("paused").await;
    for n in 2..18 {
        world.push(WEB, n).await;
    }
    a_while().await;
    service.stop().await;
    // The pause survives a restart.
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    world.switch("resuming").await;
    world.wait(2, Succeeded).await;
    let last = world.sink.deliveries().pop().unwrap().json();
    assert_eq!(last["data"]["images"]["web"]["revision"], 17);
    assert_eq!(last["data"]["cause"]["reason"], "resume");
    a_while().await;
    assert_eq!(world.sink.deliveries().len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_pending_at_the_pause_is_superseded_when_the_heads_have_moved_on() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world
        .sink
        .answer([Answer::Late(Duration::from_secs(2), 200)]);
    let service = world.start().await;
    world.sink.wait(1).await;
    world.push(WEB, 2).await;
    world.wait(2, Pending).await;
    world.switch("paused").await;
    world.push(WEB, 3).await;
    world.wait(1, Succeeded).await;
    a_while().await;
    assert_eq!(
        world.sink.deliveries().len(),
        1,
        "a pending rollout stays pending during a pause"
    );
    world.switch("resuming").await;
    world.wait(3, Succeeded).await;
    assert_eq!(
        world.rollouts().await,
        [(1, Succeeded, 1), (2, Superseded, 0), (3, Succeeded, 1)]
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_continues_a_pending_rollout_that_is_still_wanted() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world
        .sink
        .answer([Answer::Late(Duration::from_secs(1), 200)]);
    let service = world.start().await;
    world.sink.wait(1).await;
    world.push(WEB, 2).await;
    world.wait(2, Pending).await;
    world.switch("paused").await;
    world.wait(1, Succeeded).await;
    a_while().await;
    world.switch("resuming").await;
    world.wait(2, Succeeded).await;
    assert_eq!(
        world.rollouts().await,
        [(1, Succeeded, 1), (2, Succeeded, 1)]
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_heads_are_adopted_and_deleted_ones_start_nothing() {
    let mut world = World::new().await;
    world.head(WEB, Some(1), "imported").await;
    world.head(WORKER, Some(1), "imported").await;
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 0)]);
    assert_eq!(world.sink.deliveries().len(), 0);
    assert_eq!(world.published().await, [(1, Succeeded)]);
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    world.head(WORKER, None, "event").await;
    world.push(WEB, 3).await;
    a_while().await;
    assert_eq!(
        world.rollouts().await,
        [(1, Succeeded, 0), (2, Succeeded, 1)],
        "an incomplete set starts no rollout"
    );
    world.push(WORKER, 2).await;
    world.wait(3, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_sends_adopted_images_once() {
    let mut world = World::new().await;
    world.head(WEB, Some(1), "imported").await;
    world.head(WORKER, Some(1), "imported").await;
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    for _ in 0..2 {
        world.switch("paused").await;
        world.switch("resuming").await;
        world.wait(2, Succeeded).await;
        a_while().await;
    }
    assert_eq!(
        world.rollouts().await,
        [(1, Succeeded, 0), (2, Succeeded, 1)]
    );
    assert_eq!(world.sink.deliveries().len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_settle_first_where_that_is_configured() {
    let mut world = World::new().await;
    world.configure(&world.shop("settle = \"2s\""));
    let service = world.start().await;
    let begun = std::time::Instant::now();
    world.push(WORKER, 1).await;
    for n in 1..5 {
        world.push(WEB, n).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    world.wait(1, Succeeded).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(2900),
        "{:?}",
        begun.elapsed()
    );
    let delivery = world.sink.deliveries().remove(0).json();
    assert_eq!(delivery["data"]["images"]["web"]["revision"], 4);
    assert_eq!(world.rollouts().await.len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_another_set_and_a_removed_trigger_does_nothing() {
    let (mut world, service) = World::rolled_out().await;
    service.stop().await;

    world.configure(&world.shop("").replace("images.worker", "images.jobs"));
    let service = world.start().await;
    world.wait(2, Succeeded).await;
    assert_eq!(
        world.sink.deliveries()[1].json()["data"]["cause"],
        json!({ "reason": "configuration", "changed": ["jobs"] })
    );
    service.stop().await;

    world.configure("");
    let service = world.start().await;
    world.push(WEB, 2).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);
    let configured: bool = sqlx::query_scalar("select configured from trigger")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    assert!(!configured);
    service.stop().await;
}
