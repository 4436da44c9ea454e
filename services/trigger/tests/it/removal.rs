//! Removal of a trigger, and its return.

use std::time::Duration;

use sqlx::Row as _;
use tagtrail_proto::RolloutState::{Cancelled, Pending, Running, Succeeded};
use tagtrail_testkit::{Answer, SOON, eventually};

use crate::world::*;

/// A trigger of another image, so that the file is not empty.
fn other() -> String {
    "[[trigger]]\nname = \"other\"\nimages.web = \"registry.example.com/shop/other:latest\"\ntarget.command = { run = [\"true\"] }\n".to_owned()
}

/// Waits until the trigger `shop` is configured, or no longer.
async fn configured(world: &mut World, expected: bool) {
    eventually("the configuration", SOON, async || {
        let found = sqlx::query_scalar("select configured from trigger where name = 'shop'");
        let found: Option<bool> = found.fetch_optional(&mut world.sql).await.unwrap();
        (found == Some(expected)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_cancels_the_live_rollout_and_its_return_plans_again() {
    let (mut world, service) = World::rolled_out().await;
    // Refused again and again, and removed.
    world.sink.answer((0..100_000).map(|_| Answer::Status(500)));
    world.push(WEB, 2).await;
    world.wait(2, Running).await;
    world.configure(&other());
    world.wait(2, Cancelled).await;
    world.sink.calm();
    configured(&mut world, false).await;
    let row = sqlx::query(
        "select error, finished_at is not null as finished from rollout where number = 2",
    )
    .fetch_one(&mut world.sql)
    .await
    .unwrap();
    let error: String = row.get("error");
    assert_eq!(error, "cancelled by configuration: the trigger was removed");
    assert!(row.get::<bool, _>("finished"));
    let published = world.published().await;
    assert_eq!(published.last(), Some(&(2, Cancelled)), "{published:?}");
    // Pushes to a removed trigger do nothing.
    world.push(WEB, 1).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);

    // The target may have got a part of rollout 2, so the images of rollout 1 are sent again.
    world.configure(&format!("{}{}", world.shop(""), other()));
    world.wait(3, Succeeded).await;
    let last = world.sink.deliveries().pop().unwrap().json();
    assert_eq!(last["data"]["number"], 3);
    assert_eq!(
        last["data"]["images"]["web"]["digest"],
        serde_json::json!(digest(1))
    );
    // Back and forth without a change sends nothing.
    world.configure(&other());
    configured(&mut world, false).await;
    world.configure(&world.shop(""));
    configured(&mut world, true).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 3);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_ends_the_running_attempt_and_open_orders() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world
        .sink
        .answer([Answer::Late(Duration::from_secs(20), 200)]);
    let service = world.start().await;
    world.sink.wait(1).await;
    world.push(WEB, 2).await;
    world.wait(2, Pending).await;
    world.switch("paused").await;
    sqlx::query(
        "with a as (insert into act (actor, act, request_id) values ('ann', 'rollout', 'r') returning id)
         insert into rollout_order (act_id, trigger_id, kind, cause, actor)
         select a.id, t.id, 'rollout', 'order', 'ann' from a, trigger t where t.name = 'shop'",
    )
    .execute(&mut world.sql)
    .await
    .unwrap();
    world.configure(&other());
    world.wait(1, Cancelled).await;
    world.wait(2, Cancelled).await;
    eventually("the end of the attempt", SOON, async || {
        let outcome = sqlx::query_scalar(
            "select outcome::text from rollout_attempt where finished_at is not null",
        );
        let outcome: Option<String> = outcome.fetch_optional(&mut world.sql).await.unwrap();
        (outcome? == "cancelled").then_some(())
    })
    .await;
    let answer: String = sqlx::query_scalar("select answer from rollout_order")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    assert_eq!(answer, "nothing to do: the trigger was removed");

    // It returns paused, and the pause ends with the images of today.
    world.configure(&world.shop(""));
    configured(&mut world, true).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);
    world.switch("resuming").await;
    world.wait(3, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_removes_nothing() {
    let mut world = World::new().await;
    let folder = world.folder.path().join("triggers.d");
    std::fs::create_dir(&folder).unwrap();
    let main = format!("triggers = \"triggers.d\"\n{}", other());
    std::fs::write(folder.join("shop.toml"), world.shop("")).unwrap();
    world.configure(&main);
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.sink.answer((0..30).map(|_| Answer::Status(500)));
    let service = world.start().await;
    world.wait(1, Running).await;
    // No TOML: while the service runs, and at a start, which knows no earlier text.
    std::fs::write(folder.join("shop.toml"), "[[trigger").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    service.stop().await;
    let service = world.start().await;
    a_while().await;
    configured(&mut world, true).await;
    assert_eq!(world.rollouts().await[0].1, Running);
    // An entry whose name is missing may be any trigger.
    let nameless = world.shop("").replace("name = \"shop\"\n", "");
    std::fs::write(folder.join("shop.toml"), nameless).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    configured(&mut world, true).await;
    // The file is gone.
    std::fs::remove_file(folder.join("shop.toml")).unwrap();
    world.wait(1, Cancelled).await;
    service.stop().await;
}
