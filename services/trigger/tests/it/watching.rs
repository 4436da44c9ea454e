//! Rollouts whose result comes after the attempt: reported by the receiver.

use std::time::Duration;

use tagtrail_proto::RolloutState::{
    Cancelled, Failed, Pending, Running, Succeeded, Superseded, Watching,
};
use tagtrail_testkit::{Answer, SOON, Sink, eventually};

use crate::world::*;

impl World {
    /// Configures a trigger `shop` of the image `web` whose receiver reports results.
    pub(crate) fn reported(&self, more: &str) {
        let secret = self.folder.path().join("secret");
        self.configure(&format!(
            "[[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\n{more}\n\
             target.webhook = {{ url = \"{}\", secret = {{ file = \"{}\" }}, done = \"reported\" }}\n",
            self.sink.url(),
            secret.display(),
        ));
    }

    /// Reports a result as the api does.
    pub(crate) async fn report(&mut self, number: i64, state: &str, text: &str) {
        sqlx::query(
            "insert into rollout_report (rollout_id, state, text, actor)
             select id, $2, $3, 'receiver' from rollout where number = $1",
        )
        .bind(number)
        .bind(state)
        .bind(text)
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    /// Waits until the last finding of the last rollout has this text.
    pub(crate) async fn seen(&mut self, part: &str) -> String {
        eventually(&format!("a finding with {part:?}"), SOON, async || {
            let seen: Option<String> =
                sqlx::query_scalar("select seen from rollout order by number desc limit 1")
                    .fetch_one(&mut self.sql)
                    .await
                    .unwrap();
            seen.filter(|seen| seen.contains(part))
        })
        .await
    }

    /// Returns outcome and error of each attempt, by number.
    pub(crate) async fn outcomes(&mut self) -> Vec<String> {
        sqlx::query_scalar("select outcome::text from rollout_attempt order by rollout_id, number")
            .fetch_all(&mut self.sql)
            .await
            .unwrap()
    }

    /// Returns the number of looks that run, by their rows.
    pub(crate) async fn looks(&mut self) -> i64 {
        sqlx::query_scalar("select count(*) from rollout_look")
            .fetch_one(&mut self.sql)
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_rollout_succeeds_with_the_report() {
    let mut world = World::new().await;
    world.reported("");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    world.seen("no result yet").await;
    world.report(1, "progressing", "1 of 3 hosts").await;
    let seen = world.seen("1 of 3").await;
    assert_eq!(seen, "the receiver reported progress: 1 of 3 hosts");
    world.report(1, "succeeded", "all hosts").await;
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    assert_eq!(world.outcomes().await, ["applied"]);
    assert_eq!(
        world.published().await,
        [(1, Pending), (1, Running), (1, Watching), (1, Succeeded)]
    );
    assert_eq!(world.looks().await, 0);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_before_the_answer_counts() {
    let mut world = World::new().await;
    world.reported("");
    world.push(WEB, 1).await;
    world
        .sink
        .answer([Answer::Late(Duration::from_millis(700), 202)]);
    let service = world.start().await;
    world.sink.wait(1).await;
    world.report(1, "succeeded", "fast").await;
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_failure_is_observed_on_and_may_recover() {
    let mut world = World::new().await;
    world.reported("");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    world.report(1, "failed", "port in use").await;
    world.wait(1, Failed).await;
    let error = world.error().await.unwrap();
    assert_eq!(error, "the receiver reported a failure: port in use");
    // The rollout is not ended, and no attempt follows soon.
    let (ended, hour): (bool, bool) = sqlx::query_as(
        "select ended, next_attempt_at > now() + interval '50 minutes' from rollout",
    )
    .fetch_one(&mut world.sql)
    .await
    .unwrap();
    assert!(!ended && hour);
    world.report(1, "succeeded", "port is free").await;
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    assert_eq!(world.error().await, None);
    assert_eq!(world.sink.deliveries().len(), 1);
    assert_eq!(
        world.published().await,
        [
            (1, Pending),
            (1, Running),
            (1, Watching),
            (1, Failed),
            (1, Succeeded)
        ]
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_reports_fails_after_the_timeout_and_retry_sends_again() {
    let mut world = World::new().await;
    world.reported("timeout = \"1s\"");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Failed).await;
    let error = world.error().await.unwrap();
    assert_eq!(
        error,
        "no result within 1 s: the receiver has reported no result yet"
    );
    // A report of the attempt before is no result of the next attempt.
    world.report(1, "failed", "late").await;
    world.order_retry().await;
    world.sink.wait(2).await;
    world.wait(1, Watching).await;
    world.seen("no result yet").await;
    world.report(1, "succeeded", "now").await;
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 2)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_progress_gives_the_whole_time_again() {
    let mut world = World::new().await;
    world.reported("timeout = \"2s\"");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    for step in 1..=3 {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        world
            .report(1, "progressing", &format!("{step} of 3"))
            .await;
    }
    assert_eq!(world.rollouts().await, [(1, Watching, 1)]);
    world.wait(1, Failed).await;
    assert!(world.error().await.unwrap().contains("3 of 3"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_rollout_supersedes_one_that_is_watched() {
    let mut world = World::new().await;
    world.reported("");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    world.push(WEB, 2).await;
    world.wait(1, Superseded).await;
    world.wait(2, Watching).await;
    // Its receiver reports too late.
    world.report(1, "failed", "late").await;
    world.report(2, "succeeded", "all hosts").await;
    world.wait(2, Succeeded).await;
    assert_eq!(
        world.rollouts().await,
        [(1, Superseded, 1), (2, Succeeded, 1)]
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_freeze_end_no_observation() {
    let mut world = World::new().await;
    world.reported("");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    world.switch("paused").await;
    sqlx::query(
        "insert into hold (kind, triggers, hard, actor) values ('freeze', 'sh*', true, 'ann')",
    )
    .execute(&mut world.sql)
    .await
    .unwrap();
    // While paused, a new head leads to no rollout.
    world.push(WEB, 2).await;
    world.report(1, "progressing", "half").await;
    world.seen("half").await;
    world.report(1, "succeeded", "all").await;
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_while_it_watches_loses_nothing() {
    let mut world = World::new().await;
    world.reported("");
    world.push(WEB, 1).await;
    let mut first = world.process();
    world.wait(1, Watching).await;
    world.seen("no result yet").await;
    first.kill();
    world.report(1, "succeeded", "all").await;
    let second = world.process();
    world.wait(1, Succeeded).await;
    assert_eq!(world.sink.deliveries().len(), 1);
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_before_it_recorded_the_answer_sends_again_and_watches() {
    let mut world = World::new().await;
    world.reported("");
    world.push(WEB, 1).await;
    let mut first = world.process_with(&[("TAGTRAIL_FAILPOINT", "trigger.told:abort")]);
    world.sink.wait(1).await;
    first.ended(SOON).await;
    let second = world.process();
    world.wait(1, Watching).await;
    world.report(1, "succeeded", "all").await;
    world.wait(1, Succeeded).await;
    let deliveries = world.sink.deliveries();
    assert_eq!(deliveries.len(), 2);
    let ids: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.header("webhook-id"))
        .collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(world.outcomes().await, ["interrupted", "applied"]);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_looks() {
    let mut world = World::new().await;
    world.reported("");
    world.push(WEB, 1).await;
    let services = [world.start().await, world.start().await];
    world.wait(1, Watching).await;
    world.seen("no result yet").await;
    world.report(1, "succeeded", "all").await;
    world.wait(1, Succeeded).await;
    let published = world.published().await;
    assert_eq!(
        published,
        [(1, Pending), (1, Running), (1, Watching), (1, Succeeded)]
    );
    for service in services {
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_rollout_ends_with_its_target_and_the_next_target_gets_the_images() {
    let mut world = World::new().await;
    let (first, second) = (world.sink.url().to_owned(), Sink::start().await);
    world.reported("");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    let text = std::fs::read_to_string(world.folder.path().join("tagtrail.toml")).unwrap();
    world.configure(&text.replace(&first, second.url()));
    let delivery = second.wait(1).await.remove(0).json();
    assert_eq!(delivery["data"]["cause"]["reason"], "configuration");
    world.wait(2, Watching).await;
    assert_eq!(
        world.rollouts().await,
        [(1, Cancelled, 1), (2, Watching, 1)]
    );
    // A trigger that ignores the change sends nothing, and the rollout does not wait for ever.
    world.reported("on_target_change = \"ignore\"");
    world.wait(2, Cancelled).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);
    assert_eq!(world.sink.deliveries().len(), 1);
    world.push(WEB, 2).await;
    world.wait(3, Watching).await;
    service.stop().await;
}
