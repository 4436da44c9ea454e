//! Orders of people, written as the api writes them, and holds.

use serde_json::{Value, json};
use sqlx::types::Json;
use tagtrail_proto::RolloutState::{Cancelled, Held, Running, Succeeded};
use tagtrail_testkit::{Answer, SOON, eventually};

use crate::world::*;

impl World {
    /// Records an order of the trigger `shop`, and returns its id. The set is that of a rollout.
    pub(crate) async fn order(
        &mut self,
        kind: &str,
        cause: &str,
        set_of: Option<i64>,
        again: bool,
    ) -> i64 {
        sqlx::query_scalar(
            "with a as (
                 insert into act (actor, act, trigger, request_id) values ('ann', $1, 'shop', 'x') returning id)
             insert into rollout_order (act_id, trigger_id, kind, cause, images, rollout_id, again, actor, reason)
             select a.id, t.id, $1, $2, (select images from rollout where $1 = 'rollout' and number = $3),
                 (select id from rollout where $1 = 'cancel' and number = $3), $4, 'ann', 'why'
             from a, trigger t where t.name = 'shop' returning id",
        )
        .bind(kind)
        .bind(cause)
        .bind(set_of)
        .bind(again)
        .fetch_one(&mut self.sql)
        .await
        .unwrap()
    }

    /// Pins the trigger `shop` to the set of a rollout.
    async fn pin(&mut self, number: i64) {
        sqlx::query(
            "insert into hold (kind, triggers, images, actor) select 'pin', 'shop', images, 'ann' from rollout where number = $1",
        )
        .bind(number)
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    async fn unpin(&mut self) {
        sqlx::query("update hold set released_at = now(), released_by = 'ann' where kind = 'pin' and released_at is null")
            .execute(&mut self.sql)
            .await
            .unwrap();
    }

    /// Waits until the planner has answered an order, and returns the answer.
    pub(crate) async fn answer(&mut self, order: i64) -> String {
        eventually("an answer to the order", SOON, async || {
            let answer: Option<String> = sqlx::query_scalar(
                "select answer from rollout_order where id = $1 and done_at is not null",
            )
            .bind(order)
            .fetch_optional(&mut self.sql)
            .await
            .unwrap();
            answer
        })
        .await
    }

    /// Returns cause, actor and digest of the image `web` of a rollout.
    async fn recorded(&mut self, number: i64) -> (String, Option<String>, String) {
        let (cause, actor, images): (Json<Value>, Option<String>, Json<Value>) =
            sqlx::query_as("select cause, actor, images from rollout where number = $1")
                .bind(number)
                .fetch_one(&mut self.sql)
                .await
                .unwrap();
        let digest = images["web"]["digest"].as_str().unwrap().to_owned();
        (cause["reason"].as_str().unwrap().to_owned(), actor, digest)
    }
}

/// A world in which the digests 1 and then 2 of both images succeeded.
async fn two_rollouts() -> (World, Service) {
    let (mut world, service) = World::rolled_out().await;
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    (world, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_stays_until_its_release() {
    let (mut world, service) = two_rollouts().await;
    world.pin(1).await;
    let order = world.order("rollout", "rollback", Some(1), false).await;
    assert_eq!(world.answer(order).await, "rollout 3 is recorded");
    world.wait(3, Succeeded).await;
    let expected = (
        "rollback".to_owned(),
        Some("ann".to_owned()),
        digest(1).to_string(),
    );
    assert_eq!(world.recorded(3).await, expected);
    // The images of the rollout are not the heads, and pushes change nothing.
    world.push(WEB, 3).await;
    world.push(WORKER, 3).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 3);
    // The same order again has nothing to do.
    let order = world.order("rollout", "rollback", Some(1), false).await;
    assert!(world.answer(order).await.starts_with("nothing to do"));
    world.unpin().await;
    let order = world.order("release", "release", None, false).await;
    assert_eq!(world.answer(order).await, "rollout 4 is recorded");
    world.wait(4, Succeeded).await;
    let expected = (
        "release".to_owned(),
        Some("ann".to_owned()),
        digest(3).to_string(),
    );
    assert_eq!(world.recorded(4).await, expected);
    let order = world.order("release", "release", None, false).await;
    assert!(world.answer(order).await.contains("no rollout follows"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_rolls_the_current_set_out_again_once_also_after_a_restart() {
    let (mut world, service) = two_rollouts().await;
    service.stop().await;
    // Nobody plans: the order waits.
    let order = world.order("rollout", "order", None, true).await;
    let service = world.start().await;
    assert_eq!(world.answer(order).await, "rollout 3 is recorded");
    world.wait(3, Succeeded).await;
    let expected = (
        "order".to_owned(),
        Some("ann".to_owned()),
        digest(2).to_string(),
    );
    assert_eq!(world.recorded(3).await, expected);
    service.stop().await;
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 3);
    assert_eq!(world.sink.deliveries().len(), 3);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_while_the_trigger_is_paused() {
    let (mut world, service) = two_rollouts().await;
    world.switch("paused").await;
    world.order("rollout", "order", None, true).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);
    world.switch("resuming").await;
    world.wait(3, Succeeded).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 3, "one rollout");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_rollout_is_not_attempted_again_and_its_set_not_offered_again() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.sink.answer((0..100).map(|_| Answer::Status(500)));
    let service = world.start().await;
    world.wait(1, Running).await;
    world.sink.wait(2).await;
    let order = world.order("cancel", "order", Some(1), false).await;
    assert_eq!(world.answer(order).await, "rollout 1 is cancelled");
    world.wait(1, Cancelled).await;
    assert_eq!(world.error().await.unwrap(), "cancelled by ann: why");
    a_while().await;
    let attempts = world.sink.deliveries().len();
    a_while().await;
    assert_eq!(world.sink.deliveries().len(), attempts);
    assert_eq!(world.rollouts().await.len(), 1);
    let order = world.order("cancel", "order", Some(1), false).await;
    assert!(world.answer(order).await.starts_with("nothing to do"));
    // A restart offers nothing either; another image does.
    service.stop().await;
    world.sink.answer([Answer::Status(200)]);
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 1);
    world.push(WEB, 2).await;
    eventually("a second rollout", SOON, async || {
        (world.rollouts().await.len() == 2).then_some(())
    })
    .await;
    let published = json!(world.published().await).to_string();
    assert!(published.contains(r#"[1,"cancelled"]"#), "{published}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_holds_new_sets_and_lets_a_rollback_pass_unless_it_is_hard() {
    let (mut world, service) = two_rollouts().await;
    let freeze =
        "insert into hold (kind, triggers, hard, actor) values ('freeze', 's*p', $1, 'ann')";
    let thaw = "update hold set released_at = now(), released_by = 'ann' where kind = 'freeze' and released_at is null";
    sqlx::query("insert into hold (kind, triggers, hard, actor, until) values ('freeze', 'shop', true, 'ann', now()), ('freeze', 'blog-*', true, 'ann', null)")
        .execute(&mut world.sql)
        .await
        .unwrap();
    sqlx::query(freeze)
        .bind(false)
        .execute(&mut world.sql)
        .await
        .unwrap();
    world.push(WEB, 3).await;
    a_while().await;
    world.wait(3, Held).await;
    assert_eq!(world.rollouts().await[2].2, 0, "frozen");
    // The usual incident: freeze, then roll back.
    world.pin(1).await;
    let order = world.order("rollout", "rollback", Some(1), false).await;
    world.answer(order).await;
    world.wait(4, Succeeded).await;
    sqlx::query(thaw).execute(&mut world.sql).await.unwrap();
    sqlx::query(freeze)
        .bind(true)
        .execute(&mut world.sql)
        .await
        .unwrap();
    let order = world.order("rollout", "order", Some(1), true).await;
    world.answer(order).await;
    a_while().await;
    world.wait(5, Held).await;
    assert_eq!(world.rollouts().await[4].2, 0, "a hard freeze");
    sqlx::query(thaw).execute(&mut world.sql).await.unwrap();
    world.wait(5, Succeeded).await;
    service.stop().await;
}
