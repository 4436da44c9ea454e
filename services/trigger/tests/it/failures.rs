//! Rollouts that have failed: holds, roll-backs and the pauses of a trigger; and the order of
//! rollouts whose result is not known yet.

use tagtrail_proto::ReasonCode;
use tagtrail_proto::RolloutState::{self, Failed, Held, Pending, Running, Succeeded, Watching};
use tagtrail_testkit::{Answer, SOON, eventually};

use crate::world::*;

/// Fails for the digest 2 alone.
const BAD_TWO: &str = "echo $TAGTRAIL_ROLLOUT_NUMBER >> deploys\ncase $TAGTRAIL_IMAGE_WEB in *$(cat bad)*) exit 7;; esac";

impl World {
    /// Configures a trigger `shop` of the image `web` that fails for the digest 2, with more lines.
    fn failing(&self, more: &str) {
        std::fs::write(self.folder.path().join("bad"), digest(2).to_string()).unwrap();
        std::fs::write(self.folder.path().join("deploy.sh"), BAD_TWO).unwrap();
        self.configure(&format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"{WEB}\"\n{more}\n\
             target.command = {{ run = [\"sh\", \"./deploy.sh\"] }}\n"
        ));
    }

    /// Returns kind, actor and reason of the holds in force, the newest last.
    async fn holds(&mut self) -> Vec<(String, String, String)> {
        sqlx::query_as(
            "select kind::text, actor, reason from hold where released_at is null order by id",
        )
        .fetch_all(&mut self.sql)
        .await
        .unwrap()
    }

    /// Ends all holds as the api does, with the order to look at the present images.
    pub(crate) async fn release(&mut self) {
        sqlx::query(
            "with a as (insert into act (actor, act, trigger, request_id) values ('ann', 'release', 'shop', 'x') returning id),
                 h as (update hold set released_at = now(), released_by = 'ann' where released_at is null)
             insert into rollout_order (act_id, trigger_id, kind, cause, actor)
             select a.id, t.id, 'release', 'release', 'ann' from a, trigger t where t.name = 'shop'",
        )
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    async fn states(&mut self) -> Vec<(i64, RolloutState)> {
        let rollouts = self.rollouts().await.into_iter();
        rollouts.map(|(number, state, _)| (number, state)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_trigger_begins_nothing_until_its_release() {
    let mut world = World::new().await;
    world.failing("on_failure = \"hold\"\nretry = { attempts = 1 }");
    world.push(WEB, 2).await;
    let service = world.start().await;
    world.wait(1, Failed).await;
    let holds = world.holds().await;
    assert_eq!(holds.len(), 1);
    assert_eq!(
        (holds[0].0.as_str(), holds[0].1.as_str()),
        ("fault", "tagtrail")
    );
    let reason =
        "rollout 1 failed: no success in 1 attempts: the command ended with exit status: 7";
    assert_eq!(holds[0].2, reason);
    // A newer set is recorded, and does not begin; neither does the failed one after a restart.
    world.push(WEB, 3).await;
    world.wait(2, Held).await;
    service.stop().await;
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Failed, 1), (2, Held, 0)]);
    world.release().await;
    world.wait(2, Succeeded).await;
    assert_eq!(world.holds().await, []);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_rollout_is_rolled_back_to_the_last_known_set() {
    let mut world = World::new().await;
    world.failing("on_failure = \"roll-back\"\nretry = { attempts = 2 }");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    world.push(WEB, 2).await;
    world.wait(3, Succeeded).await;
    assert_eq!(world.states().await[1].0, 2);
    let (cause, actor, image): (String, String, String) = sqlx::query_as(
        "select cause ->> 'reason', actor, images -> 'web' ->> 'digest' from rollout where number = 3",
    )
    .fetch_one(&mut world.sql)
    .await
    .unwrap();
    assert_eq!(
        (cause.as_str(), actor.as_str(), image),
        ("rollback", "tagtrail", digest(1).to_string())
    );
    let holds = world.holds().await;
    assert_eq!(holds.len(), 1);
    assert!(
        holds[0].0 == "pin" && holds[0].2.starts_with("rollout 2 failed: "),
        "{holds:?}"
    );
    // Pushes roll nothing out until the release.
    world.push(WEB, 3).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 3);
    world.release().await;
    world.wait(4, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_another_known_set_nothing_is_rolled_back() {
    let mut world = World::new().await;
    world.failing("on_failure = \"roll-back\"\nretry = { attempts = 1 }");
    world.push(WEB, 2).await;
    let service = world.start().await;
    world.wait(1, Failed).await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Failed, 1)]);
    assert_eq!(world.holds().await, []);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_failure_is_rolled_back_and_a_failed_roll_back_is_not() {
    let mut world = World::new().await;
    world.reported("on_failure = \"roll-back\"");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    world.report(1, "succeeded", "all").await;
    world.wait(1, Succeeded).await;
    world.push(WEB, 2).await;
    world.wait(2, Watching).await;
    world.report(2, "failed", "crash loop").await;
    world.wait(3, Watching).await;
    world.report(3, "failed", "still").await;
    world.wait(3, Failed).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 3);
    assert_eq!(world.holds().await.len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_decide_that_no_attempt_follows() {
    let mut world = World::new().await;
    world.failing("retry = { longest = \"1s\", attempts = 2, then = \"never\" }");
    world.push(WEB, 2).await;
    let service = world.start().await;
    world.wait(1, Failed).await;
    let ended: bool = sqlx::query_scalar("select ended from rollout")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    assert!(ended);
    service.stop().await;
    // A restart attempts it no more, and an order does.
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Failed, 2)]);
    world.order_retry().await;
    eventually("another attempt", SOON, async || {
        (world.rollouts().await[0].2 > 2).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_finish_a_newer_rollout_waits_for_the_result() {
    let mut world = World::new().await;
    world.reported("concurrency = \"finish\"");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    world.push(WEB, 2).await;
    world.wait(2, Pending).await;
    a_while().await;
    assert_eq!(world.states().await, [(1, Watching), (2, Pending)]);
    let judged = tagtrail_condition::judge(&world.facts().await);
    let reason = &judged.reasons[0];
    assert_eq!((judged.reasons.len(), reason.code), (1, ReasonCode::Finish));
    assert!(reason.why.contains("rollout 1"), "{reason:?}");
    world.report(1, "succeeded", "all").await;
    world.wait(1, Succeeded).await;
    world.wait(2, Watching).await;
    // A failure below a newer rollout makes way for it.
    world.push(WEB, 3).await;
    world.wait(3, Pending).await;
    world.report(2, "failed", "crash loop").await;
    world.wait(2, RolloutState::Superseded).await;
    world.wait(3, Watching).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_gone_a_trigger_is_held_too() {
    let mut world = World::new().await;
    world.reported("on_failure = \"hold\"");
    world.sink.answer([Answer::Status(410)]);
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Failed).await;
    assert_eq!(world.holds().await.len(), 1);
    let published = world.published().await;
    assert_eq!(published, [(1, Pending), (1, Running), (1, Failed)]);
    service.stop().await;
}
