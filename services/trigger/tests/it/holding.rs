//! Gates of recorded rollouts: the states that they keep, their events, and their ends.

use std::time::Duration;

use tagtrail_proto::ClosedGate;
use tagtrail_proto::RolloutState::{Cancelled, Held, Pending, Running, Succeeded, Superseded};
use tagtrail_testkit::Answer;
use time::OffsetDateTime;

use crate::world::*;

impl World {
    /// Freezes all triggers as the api does.
    pub(crate) async fn freeze(&mut self, until: Option<OffsetDateTime>) {
        sqlx::query(
            "with t as (update trigger set touched = true)
             insert into hold (kind, triggers, actor, reason, until) values ('freeze', '*', 'ann', 'fair', $1)",
        )
        .bind(until)
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    /// Ends all holds as the api does.
    pub(crate) async fn thaw(&mut self) {
        sqlx::query(
            "with t as (update trigger set touched = true)
             update hold set released_at = now(), released_by = 'ann' where released_at is null",
        )
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    /// Returns the recorded gates of a rollout with the time at which all open.
    pub(crate) async fn gates(&mut self, number: i64) -> (Vec<ClosedGate>, Option<OffsetDateTime>) {
        let (gates, opens_at) =
            sqlx::query_as("select gates, opens_at from rollout where number = $1")
                .bind(number)
                .fetch_one(&mut self.sql)
                .await
                .unwrap();
        (ClosedGate::known(gates), opens_at)
    }
}

/// A world in which the digest 1 of both images succeeded.
pub(crate) async fn one_rollout() -> (World, Service) {
    let (world, service) = World::rolled_out().await;
    (world, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_rollout_is_held_and_superseded_and_the_last_one_begins_after_the_thaw() {
    let (mut world, service) = one_rollout().await;
    world.freeze(None).await;
    world.push(WEB, 2).await;
    world.wait(2, Held).await;
    let (gates, opens_at) = world.gates(2).await;
    assert_eq!(gates[0].why, "frozen by ann: fair");
    assert_eq!((gates.len(), opens_at), (1, None));
    world.push(WEB, 3).await;
    world.wait(3, Held).await;
    world.wait(2, Superseded).await;
    world.thaw().await;
    world.wait(3, Succeeded).await;
    assert_eq!(world.sink.deliveries().len(), 2);
    let body = String::from_utf8(world.sink.deliveries()[1].body.to_vec()).unwrap();
    assert!(!body.contains("gates"), "{body}");
    let published = world.published().await;
    let expected = [
        (2, Held),
        (2, Superseded),
        (3, Held),
        (3, Pending),
        (3, Running),
        (3, Succeeded),
    ];
    assert_eq!(published[3..], expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_opens_at_its_time_without_an_act() {
    let (mut world, service) = one_rollout().await;
    let until = OffsetDateTime::now_utc() + Duration::from_secs(3);
    let until = until.replace_nanosecond(0).unwrap();
    world.freeze(Some(until)).await;
    world.push(WEB, 2).await;
    world.wait(2, Held).await;
    let (gates, opens_at) = world.gates(2).await;
    assert_eq!((gates[0].opens_at, opens_at), (Some(until), Some(until)));
    world.wait(2, Succeeded).await;
    assert!(OffsetDateTime::now_utc() >= until);
    assert_eq!(world.gates(2).await.0, []);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_rollout_becomes_held_and_pending_again() {
    let (mut world, service) = one_rollout().await;
    // Its first attempt is not due yet.
    sqlx::query(
        "with t as (update trigger set issued = 2)
         insert into rollout (id, trigger_id, number, images, cause, next_attempt_at)
         select gen_random_uuid(), trigger_id, 2, images, cause, now() + interval '1 hour' from rollout",
    )
    .execute(&mut world.sql)
    .await
    .unwrap();
    world.freeze(None).await;
    world.wait(2, Held).await;
    world.thaw().await;
    world.wait(2, Pending).await;
    // A paused trigger keeps its gates. A service that starts evaluates the others anew.
    world.switch("paused").await;
    world.freeze(None).await;
    a_while().await;
    assert_eq!(world.rollouts().await[1].1, Pending);
    service.stop().await;
    world.switch("resuming").await;
    let service = world.start().await;
    world.wait(2, Held).await;
    assert_eq!(world.rollouts().await.len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_rollout_can_be_cancelled() {
    let (mut world, service) = one_rollout().await;
    world.freeze(None).await;
    world.push(WEB, 2).await;
    world.wait(2, Held).await;
    let order = world.order("cancel", "order", Some(2), false).await;
    assert_eq!(world.answer(order).await, "rollout 2 is cancelled");
    world.wait(2, Cancelled).await;
    world.thaw().await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2, "not offered again");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begun_rollout_keeps_its_state_while_a_freeze_holds_its_attempts() {
    let (mut world, service) = one_rollout().await;
    world.sink.answer((0..100).map(|_| Answer::Status(500)));
    world.push(WEB, 2).await;
    world.wait(2, Running).await;
    world.sink.wait(3).await;
    world.freeze(None).await;
    a_while().await;
    let attempts = world.sink.deliveries().len();
    a_while().await;
    assert_eq!(world.sink.deliveries().len(), attempts);
    assert_eq!(world.rollouts().await[1].1, Running);
    assert_eq!(world.gates(2).await.0.len(), 1);
    world.sink.calm();
    world.thaw().await;
    world.wait(2, Succeeded).await;
    service.stop().await;
}
