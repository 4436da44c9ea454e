//! The states of rollouts after each kind of answer of a webhook target.

use std::time::Duration;

use tagtrail_proto::RolloutState::{Failed, Pending, Running, Succeeded};
use tagtrail_testkit::{Answer, SOON, Sink, eventually};
use tagtrail_trigger::Pace;

use crate::world::*;

/// Returns a running service whose webhook target gives these answers to the first rollout.
async fn meets(answers: impl IntoIterator<Item = Answer>) -> (World, Service) {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.sink.answer(answers);
    let service = world.start().await;
    (world, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_failure_is_retried_with_the_same_id_and_body() {
    let again = [500, 503, 408, 425, 429];
    let (mut world, service) = meets(again.map(Answer::Status)).await;
    world.wait(1, Succeeded).await;
    let deliveries = world.sink.deliveries();
    assert_eq!(deliveries.len(), 6);
    for delivery in &deliveries {
        assert_eq!(
            delivery.header("webhook-id"),
            deliveries[0].header("webhook-id")
        );
        assert_eq!(delivery.body, deliveries[0].body);
    }
    assert_eq!(world.rollouts().await, [(1, Succeeded, 6)]);
    assert_eq!(
        world.error().await,
        None,
        "a success clears the error of earlier attempts"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_during_a_repair_of_the_receiver_is_retried() {
    let elsewhere = Sink::start().await;
    for (answer, said) in [
        (
            Answer::Status(404),
            "the target refused the rollout (404 Not Found)",
        ),
        (
            Answer::Status(401),
            "the target refused the rollout (401 Unauthorized)",
        ),
        (
            Answer::With(307, "location", elsewhere.url().to_owned()),
            "the target redirects (307 Temporary Redirect to 127.0.0.1), which is not followed; configure the final URL",
        ),
    ] {
        let mut world = World::new().await;
        world.push(WEB, 1).await;
        world.push(WORKER, 1).await;
        world.sink.answer([answer]);
        // Long enough to read the error.
        let first = Duration::from_secs(1);
        let service = world.start_at(Pace { first, ..PACE }).await;
        let error = eventually("an error", SOON, async || world.error().await).await;
        assert_eq!(error, said);
        world.wait(1, Succeeded).await;
        assert_eq!(world.rollouts().await, [(1, Succeeded, 2)]);
        service.stop().await;
    }
    assert_eq!(elsewhere.deliveries().len(), 0, "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_gone_is_attempted_again_only_by_order() {
    let (mut world, service) = meets([Answer::Status(410)]).await;
    world.wait(1, Failed).await;
    let said = "the target is gone for good (410)";
    assert_eq!(world.error().await.unwrap(), said);
    service.stop().await;
    // Neither time nor a start of the service brings another attempt.
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Failed, 1)]);
    world.order_retry().await;
    world.wait(1, Succeeded).await;
    // A second order has nothing to do.
    world.order_retry().await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 2)]);
    // A failure does not block the next rollout.
    world.sink.answer([Answer::Status(410)]);
    world.push(WEB, 2).await;
    world.wait(2, Failed).await;
    world.push(WEB, 3).await;
    world.wait(3, Succeeded).await;
    let states = [Pending, Running, Failed, Running, Succeeded];
    let published = world.published().await;
    let of_first: Vec<_> = published.iter().filter(|entry| entry.0 == 1).collect();
    assert!(
        of_first.iter().map(|entry| entry.1).eq(states),
        "{published:?}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_failed_for_a_long_time_is_attempted_until_it_succeeds() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.sink.answer([503; 9].map(Answer::Status));
    let pace = Pace {
        patience: Duration::from_millis(200),
        slow: Duration::from_secs(2),
        ..PACE
    };
    let service = world.start_at(pace).await;
    world.wait(1, Failed).await;
    let error = world.error().await.unwrap();
    assert!(
        error.starts_with("no success in 0 s; the last of "),
        "{error}"
    );
    let before = world.rollouts().await[0].2;
    eventually("slow attempts", SOON, async || {
        (world.rollouts().await[0].2 > before).then_some(())
    })
    .await;
    assert_eq!(world.rollouts().await[0].1, Failed);
    world.sink.calm();
    world.wait(1, Succeeded).await;
    assert_eq!(world.error().await, None);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_of_the_service_attempts_what_had_failed() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.sink.answer([503; 9].map(Answer::Status));
    let patience = Duration::ZERO;
    let service = world.start_at(Pace { patience, ..PACE }).await;
    world.wait(1, Failed).await;
    service.stop().await;
    world.sink.calm();
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_rollout_below_a_newer_one_stays_as_it_is() {
    let (mut world, service) = meets([]).await;
    world.wait(1, Succeeded).await;
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    // A service of an earlier version leaves a failed rollout so.
    sqlx::query("update rollout set state = 'failed', ended = false where number = 1")
        .execute(&mut world.sql)
        .await
        .unwrap();
    world.order_retry().await;
    a_while().await;
    service.stop().await;
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await[1], (2, Succeeded, 1));
    assert_eq!(world.sink.deliveries().len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_set_is_rolled_out_again_when_the_trigger_is_resumed() {
    let (mut world, service) = meets([Answer::Status(410)]).await;
    world.wait(1, Failed).await;
    world.switch("paused").await;
    world.switch("resuming").await;
    world.wait(2, Succeeded).await;
    let images = |n: usize| world.sink.deliveries()[n].json()["data"]["images"].take();
    assert_eq!(images(0), images(1));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_may_ask_for_a_pause() {
    let begun = std::time::Instant::now();
    // Longer than the longest pause of the test, 400 ms, to which the service cuts it.
    let (mut world, service) = meets([Answer::With(429, "retry-after", "3600".to_owned())]).await;
    world.wait(1, Succeeded).await;
    assert!(begun.elapsed() >= std::time::Duration::from_millis(400));
    assert_eq!(world.rollouts().await, [(1, Succeeded, 2)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_target_is_retried() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = world
        .shop("")
        .replace(world.sink.url(), &format!("http://{nobody}/?token=hidden"));
    world.configure(&config);
    let service = world.start().await;
    let error = tagtrail_testkit::eventually("two attempts", tagtrail_testkit::SOON, async || {
        let rollouts = world.rollouts().await;
        if rollouts.first()?.2 < 2 {
            None
        } else {
            world.error().await
        }
    })
    .await;
    assert!(error.starts_with("no answer from the target: "), "{error}");
    assert!(
        error.contains("onnection refused") && !error.contains("hidden"),
        "{error}"
    );
    service.stop().await;
}
