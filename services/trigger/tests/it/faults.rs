//! Crashes and outages: no rollout is lost, no two workers attempt one rollout at the same time,
//! and the target reaches the last wanted set.

use std::time::Duration;

use tagtrail_proto::RolloutState::{Pending, Running, Succeeded};
use tagtrail_testkit::{Answer, SOON, eventually};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_a_killed_process_is_repeated_under_the_same_id() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world
        .sink
        .answer([Answer::Late(Duration::from_secs(600), 200)]);
    let mut first = world.process();
    world.sink.wait(1).await;
    first.kill();
    let second = world.process();
    world.wait(1, Succeeded).await;
    let deliveries = world.sink.deliveries();
    assert_eq!(deliveries.len(), 2);
    assert_eq!(
        deliveries[0].header("webhook-id"),
        deliveries[1].header("webhook-id")
    );
    assert_eq!(deliveries[0].body, deliveries[1].body);
    assert_eq!(world.rollouts().await, [(1, Succeeded, 2)]);
    assert_eq!(
        world.published().await,
        [(1, Pending), (1, Running), (1, Succeeded)]
    );
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_dies_with_its_worker_and_is_run_again() {
    let mut world = World::new().await;
    world.command("echo $TAGTRAIL_ROLLOUT_ID >> ids; test -e again && exit; touch again; echo $$ > child; exec sleep 1000");
    world.push(WEB, 1).await;
    let mut first = world.process();
    let child = world.folder.path().join("child");
    eventually("the command", SOON, async || child.exists().then_some(())).await;
    first.kill();
    crate::command::gone(&world).await;
    let second = world.process();
    world.wait(1, Succeeded).await;
    let ids = std::fs::read_to_string(world.folder.path().join("ids")).unwrap();
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_neither_ends_nor_doubles_a_running_attempt() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world
        .sink
        .answer([Answer::Late(Duration::from_secs(4), 200)]);
    let service = world.start().await;
    world.sink.wait(1).await;
    // Ends all sessions of the service in this database.
    sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tagtrail-trigger' and datname = current_database()")
        .execute(&mut world.sql)
        .await
        .unwrap();
    world.wait(1, Succeeded).await;
    assert_eq!(world.sink.deliveries().len(), 1);
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_instances_send_each_rollout_once() {
    let mut world = World::new().await;
    world.push(WORKER, 1).await;
    let services = [
        world.start().await,
        world.start().await,
        world.start().await,
    ];
    for n in 1..=20 {
        world.push(WEB, n).await;
        world.wait(i64::from(n), Succeeded).await;
    }
    let deliveries = world.sink.deliveries();
    let numbers: Vec<u64> = deliveries
        .iter()
        .map(|delivery| delivery.json()["data"]["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    let expected: Vec<_> = (1..=20)
        .flat_map(|number| [(number, Pending), (number, Running), (number, Succeeded)])
        .collect();
    assert_eq!(world.published().await, expected);
    for service in services {
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_plans_when_the_planner_is_gone() {
    let mut world = World::new().await;
    world.push(WORKER, 1).await;
    let mut first = world.process();
    world.push(WEB, 1).await;
    world.wait(1, Succeeded).await;
    let second = world.start().await;
    first.kill();
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    assert_eq!(world.sink.deliveries().len(), 2);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_rollouts_go_on_and_their_entries_are_published_later() {
    let (mut world, service) = World::rolled_out().await;
    world.published().await;
    world.nats.stop().await;
    world.switch("paused").await;
    world.push(WEB, 2).await;
    world.switch("resuming").await;
    world.wait(2, Succeeded).await;
    world.nats.resume().await;
    let published = world.published().await;
    assert_eq!(
        published,
        [
            (1, Pending),
            (1, Running),
            (1, Succeeded),
            (2, Pending),
            (2, Running),
            (2, Succeeded)
        ]
    );
    // The service reads REVISIONS again.
    world.push(WEB, 3).await;
    world.wait(3, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_costs_nothing() {
    let postgres = tagtrail_testkit::TestPostgres::start().await;
    let mut world = World::new().await;
    world.db = postgres.db();
    world.sql = world.db.connect().await;
    world.push(WORKER, 1).await;
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    postgres.crash().await;
    world.sql = eventually("Postgres to answer", SOON, async || {
        use sqlx::Connection as _;
        sqlx::PgConnection::connect(world.db.url()).await.ok()
    })
    .await;
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    assert_eq!(world.sink.deliveries().len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_issues_no_number_twice() {
    let mut world = World::new().await;
    let service = world.start().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 2).await;
    world.wait(1, Succeeded).await;
    world.push(WEB, 3).await;
    world.wait(2, Succeeded).await;
    world.published().await;
    service.stop().await;
    // The database as of a backup from before the first rollout.
    sqlx::raw_sql(
        "set session_replication_role = replica; delete from rollout_attempt; delete from rollout_change; delete from rollout;
         update trigger set issued = 0",
    )
        .execute(&mut world.sql)
        .await
        .unwrap();
    let service = world.start().await;
    // A target that has received number 2 would drop a lower number.
    world.wait(3, Succeeded).await;
    service.stop().await;
    assert_eq!(world.rollouts().await.len(), 1);
}
