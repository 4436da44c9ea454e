//! The gates `window`, `gap`, `group` and `approval` of recorded rollouts.

use std::time::Duration;

use sqlx::Connection as _;
use tagtrail_proto::RolloutState::{
    AwaitingApproval, Held, Pending, Rejected, Running, Succeeded, Superseded,
};
use tagtrail_proto::{Gate, RolloutState};
use tagtrail_testkit::{Answer, SOON, eventually};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::world::*;

/// A time some seconds from now, as ranges of a window have it.
fn clock(seconds: u64) -> (OffsetDateTime, String) {
    let at = OffsetDateTime::now_utc() + Duration::from_secs(seconds);
    let at = at.replace_nanosecond(0).unwrap();
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    (at, at.format(form).unwrap())
}

impl World {
    /// Records the verdict of a person about a rollout as the api does.
    pub(crate) async fn verdict(&mut self, number: i64, actor: &str, verdict: &str) {
        sqlx::query(
            "with a as (
                 insert into act (actor, act, trigger, request_id) values ($2, 'approve', 'shop', 'x') returning id
             ), t as (update trigger set touched = true)
             insert into approval (trigger_id, set, rollout_id, act_id, actor, verdict, reason)
             select o.trigger_id, image_set(o.images), o.id, a.id, $2, $3, 'why' from rollout o, a where o.number = $1",
        )
        .bind(number)
        .bind(actor)
        .bind(verdict)
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    /// Waits until the rollout of this number has this reason at its only closed gate.
    async fn why(&mut self, number: i64, why: &str) {
        eventually(why, SOON, async || {
            let (gates, _) = self.gates(number).await;
            (gates.len() == 1 && gates[0].why == why).then_some(())
        })
        .await;
    }

    /// The number of pairs of attempts at different rollouts that ran at the same time.
    async fn overlapping_attempts(&mut self) -> i64 {
        sqlx::query_scalar(
            "select count(*) from rollout_attempt a join rollout_attempt b
             on a.rollout_id < b.rollout_id and a.started_at < b.finished_at and b.started_at < a.finished_at",
        )
        .fetch_one(&mut self.sql)
        .await
        .unwrap()
    }

    /// Starts with settings of the gates of `shop`, after rollout 1 succeeded.
    async fn with(settings: &str) -> (World, Service) {
        let mut world = World::new().await;
        world.configure(&world.shop(settings));
        world.push(WEB, 1).await;
        world.push(WORKER, 1).await;
        let service = world.start().await;
        (world, service)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_holds_rollouts_until_it_opens_and_attempts_once_it_has_closed() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let (opens, from) = clock(5);
    let (closes, to) = clock(9);
    let window = format!("window = {{ open = [\"{from}/{to}\"] }}");
    world.configure(&world.shop(&window));
    let service = world.start().await;
    world.wait(1, Held).await;
    let (gates, opens_at) = world.gates(1).await;
    assert_eq!((gates[0].gate, opens_at), (Gate::Window, Some(opens)));
    assert_eq!(gates[0].why, format!("open only {from}/{to} (UTC)"));
    world.sink.answer((0..1000).map(|_| Answer::Status(500)));
    world.wait(1, Running).await;
    assert!(OffsetDateTime::now_utc() >= opens);
    let closes_at: Option<OffsetDateTime> = sqlx::query_scalar("select closes_at from rollout")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    assert_eq!(closes_at, Some(closes));
    // The target would take the next attempt, but the window is closed.
    eventually("the end of the window", SOON, async || {
        (OffsetDateTime::now_utc() > closes + Duration::from_millis(500)).then_some(())
    })
    .await;
    let attempts = world.sink.deliveries().len();
    world.sink.calm();
    a_while().await;
    assert_eq!(world.sink.deliveries().len(), attempts);
    assert_eq!(world.rollouts().await[0].1, Running);
    assert_eq!(world.gates(1).await.0[0].gate, Gate::Window);
    service.stop().await;
    // Without the window the attempts go on.
    world.configure(&world.shop(""));
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_and_a_skip_pass_a_closed_window() {
    let (mut world, service) = World::with("").await;
    world.wait(1, Succeeded).await;
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    service.stop().await;
    world.configure(&world.shop("window = { closed = [\"00:00-24:00\"] }"));
    let service = world.start().await;
    world.push(WEB, 3).await;
    world.wait(3, Held).await;
    let order = world.order("rollout", "rollback", Some(1), false).await;
    world.answer(order).await;
    world.wait(4, Succeeded).await;
    let order = world.order("rollout", "order", None, true).await;
    world.answer(order).await;
    world.wait(5, Held).await;
    sqlx::query(
        "with a as (insert into act (actor, act, trigger, request_id) values ('ann', 'rollout', 'shop', 'x') returning id)
         insert into rollout_order (act_id, trigger_id, kind, cause, skip, again, actor, reason)
         select a.id, t.id, 'rollout', 'order', '{window}', true, 'ann', 'why' from a, trigger t",
    )
    .execute(&mut world.sql)
    .await
    .unwrap();
    world.wait(6, Succeeded).await;
    world.wait(5, Superseded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_spaces_the_begins_of_rollouts_and_only_the_last_one_begins() {
    let (mut world, service) = World::with("gap = \"4s\"").await;
    world.wait(1, Succeeded).await;
    world.push(WEB, 2).await;
    world.wait(2, Held).await;
    world.push(WEB, 3).await;
    world.wait(3, Held).await;
    world.wait(3, Succeeded).await;
    let (gap, superseded): (f64, i64) = sqlx::query_as(
        "select extract(epoch from max(started_at) - min(started_at))::float8, count(*) filter (where state = 'superseded') from rollout",
    )
    .fetch_one(&mut world.sql)
    .await
    .unwrap();
    assert!(gap >= 4.0, "{gap}");
    assert_eq!(superseded, 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_begin_of_a_rollout_is_the_time_of_its_attempt_and_not_of_the_transaction() {
    let (mut world, service) = World::with("gap = \"1s\"").await;
    world.wait(1, Succeeded).await;
    // The gap is over, so that the statement that records the next rollout begins it too. The
    // statement waits for the row of the trigger.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut other = world.db.connect().await;
    let mut held = other.begin().await.unwrap();
    sqlx::query("select from trigger for update")
        .execute(&mut *held)
        .await
        .unwrap();
    world.push(WEB, 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    held.commit().await.unwrap();
    world.wait(2, Succeeded).await;
    let apart: f64 = sqlx::query_scalar(
        "select max(abs(extract(epoch from a.started_at - o.started_at)))::float8
         from rollout o join rollout_attempt a on a.rollout_id = o.id and a.number = 1",
    )
    .fetch_one(&mut world.sql)
    .await
    .unwrap();
    assert!(apart < 1.0, "{apart} s");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trigger_of_a_group_is_rolled_out_at_a_time() {
    let mut world = World::new().await;
    let mut text = String::new();
    for name in ["one", "shop", "two"] {
        text += &world
            .shop("group = \"db\"")
            .replace("\"shop\"", &format!("\"{name}\""));
    }
    world.configure(&text);
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let slow = Duration::from_secs(1);
    world.sink.answer((0..3).map(|_| Answer::Late(slow, 200)));
    let service = world.start().await;
    let mut busiest = 0;
    eventually("three rollouts", SOON, async || {
        let (done, busy): (i64, i64) = sqlx::query_as(
            "select count(*) filter (where state = 'succeeded'), count(*) filter (where state in ('pending', 'running')) from rollout",
        )
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
        busiest = busiest.max(busy);
        (done == 3).then_some(())
    })
    .await;
    assert_eq!(busiest, 1);
    assert_eq!(world.overlapping_attempts().await, 0);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_attempts_of_a_group_run_at_once_also_after_failures() {
    let mut world = World::new().await;
    let two = world.shop("group = \"db\"").replace("\"shop\"", "\"two\"");
    world.configure(&format!("{}{two}", world.shop("group = \"db\"")));
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let service = world.start().await;
    eventually("two rollouts", SOON, async || {
        let rollouts = world.rollouts().await;
        let done = rollouts.iter().all(|one| one.1 == Succeeded);
        (done && rollouts.len() == 2).then_some(())
    })
    .await;
    // Both have failed and are due, as after a restart.
    world
        .sink
        .answer((0..2).map(|_| Answer::Late(Duration::from_secs(1), 200)));
    sqlx::query("update rollout set state = 'failed', finished_at = null, next_attempt_at = now()")
        .execute(&mut world.sql)
        .await
        .unwrap();
    eventually("two more successes", SOON, async || {
        let done: i64 = sqlx::query_scalar(
            "select count(*) from rollout_attempt where finished_at is not null",
        )
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
        (done == 4).then_some(())
    })
    .await;
    assert_eq!(world.overlapping_attempts().await, 0);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_belong_to_a_set_of_images() {
    let settings = "approvals = { needs = 2, by = [\"release-*\"] }";
    let (mut world, service) = World::with(settings).await;
    world.wait(1, AwaitingApproval).await;
    world.why(1, "0 of 2 approvals by release-*").await;
    for actor in ["release-ann", "release-ann", "bob"] {
        world.verdict(1, actor, "approved").await;
    }
    world.why(1, "1 of 2 approvals by release-*").await;
    // A newer set needs approvals of its own.
    world.push(WEB, 2).await;
    world.wait(2, AwaitingApproval).await;
    world.wait(1, Superseded).await;
    world.why(2, "0 of 2 approvals by release-*").await;
    // The old set comes back, with its approvals.
    world.push(WEB, 1).await;
    world.wait(3, AwaitingApproval).await;
    world.why(3, "1 of 2 approvals by release-*").await;
    world.verdict(3, "release-cat", "approved").await;
    world.wait(3, Succeeded).await;
    let published = world.published().await;
    let third: Vec<RolloutState> = published
        .iter()
        .filter(|(number, _)| *number == 3)
        .map(|(_, state)| *state)
        .collect();
    assert_eq!(third, [AwaitingApproval, Pending, Running, Succeeded]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_set_is_not_offered_again_until_an_image_changes() {
    let (mut world, service) = World::with("approvals = { needs = 1 }").await;
    world.wait(1, AwaitingApproval).await;
    world.verdict(1, "ann", "rejected").await;
    world.wait(1, Rejected).await;
    assert_eq!(world.error().await.unwrap(), "rejected by ann: why");
    service.stop().await;
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 1);
    world.push(WEB, 2).await;
    world.wait(2, AwaitingApproval).await;
    // The rejected set comes back: it is offered, and needs an approval.
    world.push(WEB, 1).await;
    world.wait(3, AwaitingApproval).await;
    world.verdict(3, "bob", "approved").await;
    world.wait(3, Succeeded).await;
    assert_eq!(world.sink.deliveries().len(), 1);
    let published = world.published().await;
    assert!(published.contains(&(1, Rejected)), "{published:?}");
    service.stop().await;
}
