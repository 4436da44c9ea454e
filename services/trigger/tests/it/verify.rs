//! Steps of `verify`: requests and commands that show whether the images run well.

use std::time::Duration;

use tagtrail_proto::RolloutState::{Failed, Running, Succeeded, Superseded, Watching};
use tagtrail_testkit::{Answer, SOON, Sink, eventually};

use crate::world::*;

/// Fails, with a line in `overlaps`, if another script with it runs at the same time.
const ALONE: &str =
    "mkdir alone 2>/dev/null || echo $0 >> overlaps\ntrap 'rmdir alone' EXIT\ntrap 'exit 1' TERM\n";

impl World {
    /// Configures a trigger `shop` of the image `web` that runs `deploy.sh`, with these steps of
    /// `verify`. A step may run `smoke.sh`.
    fn verified(&self, deploy: &str, smoke: &str, steps: &str) {
        for (name, script) in [("deploy.sh", deploy), ("smoke.sh", smoke)] {
            let path = self.folder.path().join(name);
            std::fs::write(path, format!("set -u\n{script}\n")).unwrap();
        }
        self.configure(&format!(
            "[[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\nverify = [{steps}]\n\
             [trigger.target.command]\nrun = [\"sh\", \"./deploy.sh\"]\ngrace_seconds = 3\n"
        ));
    }

    fn lines(&self, name: &str) -> usize {
        self.file(name).map_or(0, |text| text.lines().count())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_succeeds_after_all_steps_in_order() {
    let mut world = World::new().await;
    let health = Sink::start().await;
    health.answer([
        Answer::Status(503),
        Answer::Status(200),
        Answer::Status(500),
    ]);
    world.verified(
        "echo deploy >> log",
        "echo smoke $TAGTRAIL_IMAGE_WEB >> log",
        &format!(
            "{{ http = \"{}\", times = 2, every = \"100ms\", headers.X-Token = \"abc\" }}, {{ command = [\"sh\", \"./smoke.sh\"] }}",
            health.url()
        ),
    );
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    assert_eq!(world.outcomes().await, ["done"]);
    // 503, then one success and 500, then two successes in a row.
    let asked = health.deliveries();
    assert_eq!(asked.len(), 5);
    assert_eq!(asked[0].header("x-token"), "abc");
    let log = world.file("log").unwrap();
    let expected = format!(
        "deploy\nsmoke registry.example.com/shop/web@{}\n",
        digest(1)
    );
    assert_eq!(log, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_does_not_pass_in_time_fails_and_may_recover() {
    let mut world = World::new().await;
    world.verified(
        "",
        "echo too many errors; test -e healthy",
        "{ command = [\"sh\", \"./smoke.sh\"], every = \"100ms\", within = \"1s\" }",
    );
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    world.wait(1, Failed).await;
    let error = world.error().await.unwrap();
    assert_eq!(
        error,
        "not verified within 1 s: step 1 of verify: the command ended with exit status: 1: too many errors"
    );
    std::fs::write(world.folder.path().join("healthy"), "").unwrap();
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_rollout_ends_the_command_of_a_step_and_waits_for_its_end() {
    let mut world = World::new().await;
    world.verified(
        &format!("{ALONE}echo $TAGTRAIL_ROLLOUT_NUMBER >> deploys"),
        &format!("{ALONE}echo $TAGTRAIL_ROLLOUT_NUMBER >> smokes\ntest $TAGTRAIL_ROLLOUT_NUMBER = 2 && exit\nsleep 1000 & wait"),
        "{ command = [\"sh\", \"./smoke.sh\"], grace_seconds = 3 }",
    );
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.written("smokes").await;
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    assert_eq!(
        world.rollouts().await,
        [(1, Superseded, 1), (2, Succeeded, 1)]
    );
    assert_eq!(world.file("overlaps"), None);
    assert_eq!((world.lines("deploys"), world.lines("smokes")), (2, 2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_step_dies_with_its_process_and_never_runs_twice_at_once() {
    let mut world = World::new().await;
    world.verified(
        "echo deploy >> deploys",
        &format!("{ALONE}echo x >> smokes\ntest -e again && exit\ntouch again\nsleep 1000 & wait"),
        "{ command = [\"sh\", \"./smoke.sh\"], grace_seconds = 3 }",
    );
    world.push(WEB, 1).await;
    let mut first = world.process();
    world.written("smokes").await;
    let second = world.process();
    first.kill();
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    assert_eq!(world.file("overlaps"), None);
    assert_eq!((world.lines("deploys"), world.lines("smokes")), (1, 2));
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_command_of_a_step_and_the_next_process_verifies() {
    let mut world = World::new().await;
    world.verified(
        "",
        "test -e again && exit\ntouch again\ntrap 'echo ended > ended; exit 1' TERM\nsleep 1000 & wait",
        "{ command = [\"sh\", \"./smoke.sh\"], grace_seconds = 3 }",
    );
    world.push(WEB, 1).await;
    let service = world.start().await;
    eventually("the step", SOON, async || {
        world.folder.path().join("again").exists().then_some(())
    })
    .await;
    service.stop().await;
    world.written("ended").await;
    assert_eq!(world.rollouts().await, [(1, Watching, 1)]);
    assert_eq!(world.looks().await, 0);
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_run_each_try_of_a_step_once() {
    let mut world = World::new().await;
    world.verified(
        "",
        &format!("{ALONE}echo x >> smokes\nsleep 0.2"),
        "{ command = [\"sh\", \"./smoke.sh\"], times = 5, every = \"100ms\" }",
    );
    world.push(WEB, 1).await;
    let services = [world.start().await, world.start().await];
    world.wait(1, Succeeded).await;
    assert_eq!(world.file("overlaps"), None);
    assert_eq!(world.lines("smokes"), 5);
    for service in services {
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_attempts_a_rollout_that_is_watched() {
    let mut world = World::new().await;
    let health = Sink::start().await;
    health.answer(std::iter::repeat_n(Answer::Status(503), 1000));
    world.verified(
        "echo x >> deploys",
        "",
        &format!("{{ http = \"{}\", every = \"100ms\" }}", health.url()),
    );
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Watching).await;
    world.seen("answered 503").await;
    world.order_retry().await;
    eventually("another attempt", SOON, async || {
        (world.lines("deploys") == 2).then_some(())
    })
    .await;
    world.wait(1, Watching).await;
    // A change of the settings sends nothing again.
    world.verified("echo x >> deploys", "", "");
    world.wait(1, Succeeded).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 2)]);
    let states: Vec<_> = world.published().await;
    assert_eq!(states[1], (1, Running));
    service.stop().await;
}
