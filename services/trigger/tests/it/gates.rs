//! Heads that are recorded and not rolled out yet, and the end of each wait.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tagtrail_proto::Gate;
use tagtrail_proto::RolloutState::{Pending, Running, Succeeded, Superseded};
use tagtrail_testkit::Answer;

use crate::world::*;

/// The registry of the images, which the resolver can ask.
const REGISTRY: &str =
    "[[registry]]\nname = \"registry.example.com\"\nurl = \"https://registry.example.com\"\n";

/// A world whose trigger rolled out digest 1 and then digest 2 of the image `web`.
async fn after_two_rollouts(more: &str) -> (World, Service) {
    let mut world = World::new().await;
    let mut text = world.shop(more);
    if more == REGISTRY {
        // Of one image whose registry is asked, `settle` has no default.
        let worker = format!("images.worker = \"{WORKER}\"\n");
        text = text.replace(&worker, "").replace("settle = \"0s\"\n", "");
    }
    world.configure(&text);
    // Known digests pass at once.
    for n in [1, 2] {
        world.read_manifest(n, false).await;
    }
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    (world, service)
}

/// Replays the push of digest 1, which had no time of its own, a number of seconds ago.
async fn replay(world: &mut World, ago: i32) {
    world.head_of(WEB, Some(1), "event", "received", ago).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_push_is_rolled_out_only_after_the_registry_confirms_it() {
    let (mut world, service) = after_two_rollouts(REGISTRY).await;
    replay(&mut world, 0).await;
    let waiting = world.waiting(1).await;
    assert_eq!(
        (waiting[0].gate, waiting[0].image.to_string().as_str()),
        (Gate::Recheck, WEB)
    );
    assert_eq!(waiting[0].registry.as_ref(), "registry.example.com");
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);
    // The answer makes no revision, so no message wakes the planner.
    world.confirm(WEB).await;
    world.wait(3, Succeeded).await;
    world.waiting(0).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_push_that_the_registry_contradicts_is_never_rolled_out() {
    let (mut world, service) = after_two_rollouts(REGISTRY).await;
    replay(&mut world, 0).await;
    world.waiting(1).await;
    world.head_of(WEB, Some(2), "resolved", "received", 0).await;
    world.waiting(0).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_with_a_time_or_without_a_registry_is_rolled_out_at_once() {
    let (mut world, service) = after_two_rollouts(REGISTRY).await;
    world.push(WEB, 1).await;
    world.wait(3, Succeeded).await;
    service.stop().await;
    let (mut world, service) = after_two_rollouts("").await;
    replay(&mut world, 0).await;
    world.wait(3, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_and_resuming_skips_the_wait() {
    let (mut world, service) = after_two_rollouts(REGISTRY).await;
    replay(&mut world, 0).await;
    world.waiting(1).await;
    world.switch("paused").await;
    world.switch("resuming").await;
    world.wait(3, Succeeded).await;
    world.waiting(0).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_was_lost_is_asked_again() {
    let (mut world, service) = after_two_rollouts(REGISTRY).await;
    replay(&mut world, 30).await;
    world.waiting(1).await;
    assert_eq!(world.nats.messages("UNRESOLVED").await, []);
    replay(&mut world, 120).await;
    let questions =
        tagtrail_testkit::eventually("a question", tagtrail_testkit::SOON, async || {
            Some(world.nats.messages("UNRESOLVED").await).filter(|messages| !messages.is_empty())
        })
        .await;
    let question: Value = serde_json::from_slice(&questions[0].1).unwrap();
    assert_eq!(
        (&question["data"]["digest"], &question["data"]["event_id"]),
        (&Value::Null, &json!(format!("doubt:{WEB}#4")))
    );
    a_while().await;
    assert_eq!(world.nats.messages("UNRESOLVED").await.len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_digest_waits_for_its_manifest_and_a_known_digest_for_nothing() {
    let (mut world, service) = after_two_rollouts(REGISTRY).await;
    world.push(WEB, 3).await;
    let waiting = world.waiting(1).await;
    assert_eq!(waiting[0].gate, Gate::Manifest);
    assert_eq!(world.rollouts().await.len(), 2);
    world.read_manifest(3, false).await;
    let read = Instant::now();
    world.wait(3, Succeeded).await;
    assert!(read.elapsed() < Duration::from_secs(1), "{read:?}");
    world.push(WEB, 1).await;
    world.wait(4, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_ends_after_five_seconds_if_the_registry_does_not_answer() {
    let (mut world, service) = after_two_rollouts(REGISTRY).await;
    world.push(WEB, 3).await;
    let pushed = Instant::now();
    world.wait(3, Succeeded).await;
    let waited = pushed.elapsed();
    assert!(waited > Duration::from_millis(4500), "{waited:?}");
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_manifest_waits_until_the_registry_confirms_the_tag() {
    let (mut world, service) = after_two_rollouts(REGISTRY).await;
    world.missing_manifest(3).await;
    world.head_of(WEB, Some(3), "event", "event", 6).await;
    let waiting = world.waiting(1).await;
    assert_eq!(
        (waiting[0].gate, waiting[0].opens_at),
        (Gate::Manifest, None)
    );
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);
    world.confirm(WEB).await;
    world.wait(3, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explicit_settle_and_an_unknown_registry_wait_for_no_manifest() {
    for more in [format!("settle = \"0s\"\n{REGISTRY}"), String::new()] {
        let (mut world, service) = after_two_rollouts(&more).await;
        world.push(WEB, 3).await;
        let pushed = Instant::now();
        world.wait(3, Succeeded).await;
        assert!(pushed.elapsed() < Duration::from_secs(2), "{more}");
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_leaves_the_last_rollout_as_it_is() {
    let (mut world, service) = after_two_rollouts("").await;
    world.read_manifest(9, true).await;
    world.push(WEB, 9).await;
    let waiting = world.waiting(1).await;
    assert_eq!(
        (waiting[0].gate, waiting[0].image.to_string().as_str()),
        (Gate::Tombstone, WEB)
    );
    world.head(WEB, None, "event").await;
    world.waiting(0).await;
    world.push(WEB, 2).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_whose_image_is_gone_is_not_begun() {
    let (mut world, service) = after_two_rollouts("").await;
    world
        .sink
        .answer([Answer::Late(Duration::from_secs(2), 200)]);
    world.push(WEB, 3).await;
    world.wait(3, Running).await;
    world.push(WEB, 4).await;
    world.wait(4, Pending).await;
    world.head(WEB, None, "event").await;
    world.wait(4, Superseded).await;
    world.wait(3, Succeeded).await;
    a_while().await;
    let error = world.error().await.unwrap();
    assert!(
        error.contains(WEB) && error.contains("not begun"),
        "{error}"
    );
    assert_eq!(
        world.rollouts().await[2..],
        [(3, Succeeded, 1), (4, Superseded, 0)]
    );
    // The withdrawal may come before the end of the attempt that runs.
    let mut published = world.published().await.split_off(6);
    published.sort_by_key(|(number, _)| *number);
    assert_eq!(
        published,
        [
            (3, Pending),
            (3, Running),
            (3, Succeeded),
            (4, Pending),
            (4, Superseded)
        ]
    );
    // The withdrawn rollout does not count as the last one.
    world.push(WEB, 4).await;
    world.wait(5, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_images_settle_for_two_seconds_by_default() {
    let mut world = World::new().await;
    let text = world.shop("").replace("settle = \"0s\"\n", "");
    world.configure(&text);
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    world.push(WEB, 2).await;
    let pushed = Instant::now();
    let waiting = world.waiting(1).await;
    assert_eq!(waiting[0].gate, Gate::Settle);
    world.push(WORKER, 2).await;
    world.wait(2, Succeeded).await;
    assert!(pushed.elapsed() > Duration::from_millis(1900), "{pushed:?}");
    assert_eq!(world.rollouts().await.len(), 2, "no half of a build");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_tag_settles_for_a_shorter_time_than_a_changed_one() {
    let mut world = World::new().await;
    let secret = world.folder.path().join("secret");
    let trigger = |name: &str, image: &str| {
        format!(
            "[[trigger]]\nname = \"{name}\"\nimages.web = \"{image}\"\n\
             target.webhook = {{ url = \"{}\", secret = {{ file = \"{}\" }} }}\n",
            world.sink.url(),
            secret.display(),
        )
    };
    world.configure(&(trigger("shop", WEB) + &trigger("other", WORKER)));
    let service = world.start().await;
    // Nothing is known of this tag before its tombstone.
    world.push(WORKER, 9).await;
    world.head(WORKER, None, "event").await;
    for (number, from, until) in [(1, 0.5, 2.0), (2, 2.0, 20.0)] {
        world.push(WEB, u8::try_from(number).unwrap()).await;
        world.wait(number, Succeeded).await;
        let settled: f64 = sqlx::query_scalar(
            "select extract(epoch from o.created_at - v.recorded_at)::float8 from rollout o, revision v
             join tag t on t.id = v.tag_id join repository r on r.id = t.repository_id
             where o.number = $1 and v.number = $1 and r.name = 'shop/web'",
        )
        .bind(number)
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
        assert!((from..until).contains(&settled), "{number}: {settled} s");
    }
    assert_eq!(world.rollouts().await.len(), 2, "none of the tombstone");
    service.stop().await;
}
