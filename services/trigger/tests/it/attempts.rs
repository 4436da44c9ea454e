//! The record of attempts, their slots, and attempts that are cut off.

use std::time::{Duration, Instant};

use sqlx::Row as _;
use tagtrail_proto::RolloutState::{Cancelled, Failed, Running, Succeeded};
use tagtrail_testkit::{Answer, SOON, eventually};

use crate::world::*;

impl World {
    /// Returns `(rollout number, attempt number, outcome, status, said)` of all attempts, in order.
    async fn attempts(&mut self) -> Vec<(i64, i32, Option<String>, Option<i32>, String)> {
        let rows = sqlx::query(
            "select o.number as rollout, a.number, a.outcome::text as outcome, a.status, a.said
             from rollout_attempt a join rollout o on o.id = a.rollout_id order by a.started_at",
        )
        .fetch_all(&mut self.sql)
        .await
        .unwrap();
        let attempt = |row: &sqlx::postgres::PgRow| {
            (
                row.get("rollout"),
                row.get("number"),
                row.get("outcome"),
                row.get("status"),
                row.get("said"),
            )
        };
        rows.iter().map(attempt).collect()
    }

    /// Waits until the last attempt has this outcome.
    async fn outcome(&mut self, outcome: &str) {
        eventually(&format!("the outcome {outcome}"), SOON, async || {
            let attempts = self.attempts().await;
            (attempts.last()?.2.as_deref() == Some(outcome)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_is_recorded_with_the_answer_of_the_target() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world
        .sink
        .answer([Answer::Status(503), Answer::Status(200)]);
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    let attempts = world.attempts().await;
    let outcomes: Vec<_> = attempts
        .iter()
        .map(|(rollout, number, outcome, status, _)| {
            (*rollout, *number, outcome.as_deref().unwrap(), *status)
        })
        .collect();
    assert_eq!(
        outcomes,
        [(1, 1, "failed", Some(503)), (1, 2, "done", Some(200))]
    );
    let refused = sqlx::query("update rollout_attempt set said = 'x' where number = 1")
        .execute(&mut world.sql)
        .await;
    assert!(refused.is_err());
    let refused = sqlx::query("delete from rollout_attempt")
        .execute(&mut world.sql)
        .await;
    assert!(refused.is_err());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_command_is_stored_while_it_runs() {
    let mut world = World::new().await;
    world.command("echo first; until test -e go; do sleep 0.05; done; echo second");
    world.push(WEB, 1).await;
    let service = world.process();
    eventually("the first line", SOON, async || {
        let attempts = world.attempts().await;
        let (_, _, outcome, _, said) = attempts.first()?;
        (outcome.is_none() && said == "first\n").then_some(())
    })
    .await;
    std::fs::write(world.folder.path().join("go"), "").unwrap();
    world.wait(1, Succeeded).await;
    let (_, _, _, status, said) = world.attempts().await.remove(0);
    assert_eq!((status, said.as_str()), (Some(0), "first\nsecond\n"));
    drop(service);
}

/// A trigger of its own image, with a target.
fn trigger(name: &str, target: &str) -> String {
    format!(
        "[[trigger]]\nname = \"{name}\"\nsettle = \"0s\"\nimages.web = \"registry.example.com/{name}/web:latest\"\n{target}\n"
    )
}

fn image(name: &str) -> String {
    format!("registry.example.com/{name}/web:latest")
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_targets_hold_up_no_other_trigger() {
    let mut world = World::new().await;
    let mut triggers = world.shop("");
    let started = world.folder.path().join("started").display().to_string();
    for n in 0..40 {
        let run = format!("echo {n} >> {started}; exec sleep 600");
        let target = format!("target.command = {{ run = [\"sh\", \"-c\", \"{run}\"] }}");
        triggers += &trigger(&format!("slow{n}"), &target);
    }
    world.configure(&triggers);
    let service = world.process();
    for n in 0..40 {
        world.push(&image(&format!("slow{n}")), 1).await;
    }
    // The starts of 40 programs keep the processors busy, which is no matter of slots.
    eventually("40 commands to run", SOON * 2, async || {
        let started = world.file("started")?;
        (started.lines().count() == 40).then_some(())
    })
    .await;
    let pushed = Instant::now();
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.sink.wait(1).await;
    let waited = pushed.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    drop(service);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_kind_delays_no_other_kind_and_goes_on_when_a_slot_is_free() {
    let mut world = World::new().await;
    let folder = world.folder.path().display().to_string();
    let mut triggers = world.shop("");
    for n in 0..300 {
        let run = format!("until test -e {folder}/go; do sleep 0.1; done");
        let target = format!("target.command = {{ run = [\"sh\", \"-c\", \"{run}\"] }}");
        triggers += &trigger(&format!("slow{n}"), &target);
    }
    world.configure(&triggers);
    for n in 0..300 {
        world.push(&image(&format!("slow{n}")), 1).await;
    }
    let service = world.process_with(&[("TAGTRAIL_COMMANDS", "2")]);
    eventually("two commands to run", SOON, async || {
        (world.attempts().await.len() == 2).then_some(())
    })
    .await;
    let pushed = Instant::now();
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.sink.wait(1).await;
    let waited = pushed.elapsed();
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    a_while().await;
    let running = world.attempts().await;
    let running = running.iter().filter(|attempt| attempt.2.is_none()).count();
    assert_eq!(running, 2);
    std::fs::write(format!("{folder}/go"), "").unwrap();
    eventually(
        "all commands to succeed",
        Duration::from_secs(60),
        async || {
            let rollouts = world.rollouts().await;
            let done = rollouts.iter().filter(|rollout| rollout.1 == Succeeded);
            (done.count() == 301).then_some(())
        },
    )
    .await;
    drop(service);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_a_stop_cuts_off_is_repeated_without_a_step_of_the_back_off() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world
        .sink
        .answer([Answer::Late(Duration::from_secs(600), 200)]);
    let service = world.start().await;
    world.sink.wait(1).await;
    service.stop().await;
    world.outcome("interrupted").await;
    let phase: i32 = sqlx::query_scalar("select phase_attempts from rollout")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    assert_eq!(phase, 0);
    assert_eq!(world.rollouts().await, [(1, Running, 1)]);
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    let deliveries = world.sink.deliveries();
    assert_eq!(
        deliveries[0].header("webhook-id"),
        deliveries[1].header("webhook-id")
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_a_process_on_another_machine_is_taken_over_after_its_lock_was_free() {
    let mut world = World::new().await;
    let service = world.start().await;
    service.stop().await;
    sqlx::raw_sql(
        "insert into rollout (id, trigger_id, number, state, images, cause, attempts, started_at)
             select '019cb40e-0000-7000-8000-000000000001', id, 1, 'running', '{}', '{\"reason\": \"start\", \"changed\": []}', 1, now() from trigger;
         update trigger set issued = 1;
         insert into rollout_attempt (rollout_id, number, trigger_id, instance, machine, pid, pid_started)
             select o.id, 1, o.trigger_id, 42, 'elsewhere', 1, 1 from rollout o",
    )
    .execute(&mut world.sql)
    .await
    .unwrap();
    let started = Instant::now();
    let service = world.start().await;
    world.sink.wait(1).await;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
    let attempts = world.attempts().await;
    assert_eq!(attempts[0].2.as_deref(), Some("interrupted"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_a_living_process_is_never_taken_over() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world
        .sink
        .answer([Answer::Late(Duration::from_secs(15), 200)]);
    let first = world.process();
    world.sink.wait(1).await;
    let second = world.start().await;
    world.wait(1, Succeeded).await;
    assert_eq!(world.sink.deliveries().len(), 1);
    second.stop().await;
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_a_cancelled_rollout_is_ended() {
    let mut world = World::new().await;
    world.command("echo $$ > child; exec sleep 600");
    world.push(WEB, 1).await;
    let service = world.process();
    let child = world.folder.path().join("child");
    eventually("the command", SOON, async || child.exists().then_some(())).await;
    sqlx::query("update rollout set state = 'cancelled', finished_at = now()")
        .execute(&mut world.sql)
        .await
        .unwrap();
    world.outcome("cancelled").await;
    crate::command::gone(&world).await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Cancelled, 1)]);
    drop(service);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_ended_for_good_stays_so_after_a_newer_one_began() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.sink.answer([Answer::Status(410)]);
    let service = world.start().await;
    world.wait(1, Failed).await;
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    let states: Vec<_> = world
        .rollouts()
        .await
        .into_iter()
        .map(|one| one.1)
        .collect();
    assert_eq!(states, [Failed, Succeeded]);
    service.stop().await;
}
