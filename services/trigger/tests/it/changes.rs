//! Changes of a trigger over its life.

use sqlx::Row as _;
use tagtrail_proto::RolloutState::{Failed, Succeeded};
use tagtrail_testkit::{Answer, SOON, Sink, eventually};

use crate::world::*;

/// Number, state, attempts and cause of each rollout of a trigger, by number.
pub(crate) async fn causes(world: &mut World, trigger: &str) -> Vec<(i64, String, i32, String)> {
    let rows = sqlx::query(
        "select o.number, o.state::text as state, o.attempts, o.cause ->> 'reason' as reason
         from rollout o join trigger t on t.id = o.trigger_id where t.name = $1 order by o.number",
    )
    .bind(trigger)
    .fetch_all(&mut world.sql)
    .await
    .unwrap();
    rows.iter()
        .map(|row| {
            (
                row.get("number"),
                row.get("state"),
                row.get("attempts"),
                row.get("reason"),
            )
        })
        .collect()
}

fn was(number: i64, state: &str, attempts: i32, reason: &str) -> (i64, String, i32, String) {
    (number, state.to_owned(), attempts, reason.to_owned())
}

/// The trigger `shop` with another receiver, and `more` lines.
fn at(world: &World, receiver: &str, more: &str) -> String {
    world.shop(more).replace(world.sink.url(), receiver)
}

/// Both images at their first digest, rolled out by a service.
async fn rolled_out(world: &mut World) -> Service {
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn another_receiver_gets_the_wanted_images_once() {
    let mut world = World::new().await;
    let (second, third) = (Sink::start().await, Sink::start().await);
    let service = rolled_out(&mut world).await;
    // While the service runs.
    world.configure(&at(&world, second.url(), ""));
    let delivery = second.wait(1).await.remove(0).json();
    assert_eq!(delivery["data"]["number"], 2);
    assert_eq!(delivery["data"]["cause"]["reason"], "configuration");
    assert_eq!(delivery["data"]["cause"]["changed"], serde_json::json!([]));
    world.wait(2, Succeeded).await;
    service.stop().await;
    // A restart alone, or another setting of the same receiver, sends nothing.
    let service = world.start().await;
    a_while().await;
    let more = "settle = \"0s\"";
    world.configure(&at(&world, second.url(), more));
    tokio::time::sleep(std::time::Duration::from_millis(3000)).await;
    service.stop().await;
    // While no service runs.
    world.configure(&at(&world, third.url(), ""));
    let service = world.start().await;
    third.wait(1).await;
    world.wait(3, Succeeded).await;
    a_while().await;
    assert_eq!(
        causes(&mut world, "shop").await,
        [
            was(1, "succeeded", 1, "start"),
            was(2, "succeeded", 1, "configuration"),
            was(3, "succeeded", 1, "configuration")
        ]
    );
    // No place that may be secret is stored.
    let places: Vec<Option<String>> = sqlx::query_scalar("select identity from rollout")
        .fetch_all(&mut world.sql)
        .await
        .unwrap();
    for place in places {
        let place = place.unwrap();
        assert!(
            place.starts_with("webhook sha256:") && !place.contains("http"),
            "{place}"
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_kind_of_target_is_another_place_and_another_script_is_not() {
    let mut world = World::new().await;
    world.command("echo first >> first");
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    service.stop().await;
    world.command("echo second >> second");
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    let webhook = world
        .shop("")
        .replace(&format!("images.worker = \"{WORKER}\"\n"), "");
    world.configure(&webhook);
    world.sink.wait(1).await;
    world.wait(2, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_receiver_is_passed_over_on_request_and_while_paused() {
    let mut world = World::new().await;
    let second = Sink::start().await;
    let service = rolled_out(&mut world).await;
    world.switch("paused").await;
    world.configure(&at(&world, second.url(), ""));
    tokio::time::sleep(std::time::Duration::from_millis(3500)).await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    world.switch("resuming").await;
    world.wait(2, Succeeded).await;
    assert_eq!(second.deliveries().len(), 1);

    let ignore = "on_target_change = \"ignore\"";
    world.configure(&world.shop(ignore));
    tokio::time::sleep(std::time::Duration::from_millis(3500)).await;
    assert_eq!(world.rollouts().await.len(), 2);
    // The next change of an image is sent as always.
    world.push(WEB, 2).await;
    world.wait(3, Succeeded).await;
    assert_eq!(world.sink.deliveries().len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_url_in_the_same_secret_is_the_same_receiver() {
    let mut world = World::new().await;
    let second = Sink::start().await;
    std::fs::write(world.folder.path().join("url"), world.sink.url()).unwrap();
    let url = format!("url = \"{}\"", world.sink.url());
    world.configure(&world.shop("").replace(&url, "url = { file = \"url\" }"));
    let service = rolled_out(&mut world).await;
    std::fs::write(world.folder.path().join("url"), second.url()).unwrap();
    service.stop().await;
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    assert_eq!(
        (world.sink.deliveries().len(), second.deliveries().len()),
        (1, 1)
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_rolls_nothing_out_and_knows_the_receiver_from_then_on() {
    let mut world = World::new().await;
    let second = Sink::start().await;
    rolled_out(&mut world).await.stop().await;
    // As an earlier version has recorded it.
    sqlx::query("update rollout set identity = null, epoch = null")
        .execute(&mut world.sql)
        .await
        .unwrap();
    let service = world.start().await;
    a_while().await;
    assert_eq!(world.rollouts().await, [(1, Succeeded, 1)]);
    assert_eq!(world.sink.deliveries().len(), 1);
    world.configure(&at(&world, second.url(), ""));
    second.wait(1).await;
    world.wait(2, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_one_receiver_ended_is_sent_to_the_next_one() {
    let mut world = World::new().await;
    let second = Sink::start().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.sink.answer([Answer::Status(410)]);
    let service = world.start().await;
    world.wait(1, Failed).await;
    service.stop().await;
    world.configure(&at(&world, second.url(), ""));
    let service = world.start().await;
    second.wait(1).await;
    world.wait(2, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_trigger_brings_the_pinned_images_to_another_receiver() {
    let mut world = World::new().await;
    let second = Sink::start().await;
    let service = rolled_out(&mut world).await;
    sqlx::query(
        "insert into hold (kind, triggers, images, actor)
         select 'pin', 'shop', images, 'ann' from rollout",
    )
    .execute(&mut world.sql)
    .await
    .unwrap();
    world.push(WEB, 2).await;
    world.configure(&at(&world, second.url(), ""));
    let delivery = second.wait(1).await.remove(0).json();
    assert_eq!(
        delivery["data"]["images"]["web"]["digest"],
        serde_json::json!(digest(1))
    );
    world.wait(2, Succeeded).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_begins_as_its_entry_says() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let named =
        |name: &str, more: &str| world.shop(more).replace("\"shop\"", &format!("\"{name}\""));
    let entries = [
        named("now", ""),
        named("next", "start = \"next\""),
        named("paused", "start = \"paused\""),
        named("adopt", "start = \"adopt\""),
    ];
    world.configure(&entries.concat());
    let service = world.start().await;
    eventually("the first rollouts", SOON, async || {
        let now = causes(&mut world, "now").await;
        (now == [was(1, "succeeded", 1, "start")]).then_some(())
    })
    .await;
    a_while().await;
    assert_eq!(
        causes(&mut world, "next").await,
        [was(1, "succeeded", 0, "adopted")]
    );
    assert_eq!(causes(&mut world, "paused").await, []);
    assert_eq!(world.sink.deliveries().len(), 1);
    let row = sqlx::query(
        "select p.state::text as state, p.paused_by, p.paused_reason, a.problem
         from trigger p, trigger a where p.name = 'paused' and a.name = 'adopt'",
    )
    .fetch_one(&mut world.sql)
    .await
    .unwrap();
    let texts = ["state", "paused_by", "paused_reason"].map(|name| row.get::<String, _>(name));
    assert_eq!(texts, ["paused", "configuration", "start = \"paused\""]);
    let problem: String = row.get("problem");
    assert!(problem.contains("write \"next\""), "{problem}");

    // Resumed by a person, it stays so; the trigger `next` rolls out the next change.
    sqlx::query("update trigger set state = 'resuming', paused_by = null, paused_at = null, paused_reason = null where name = 'paused'")
        .execute(&mut world.sql)
        .await
        .unwrap();
    eventually("the resumed trigger", SOON, async || {
        (causes(&mut world, "paused").await.len() == 1).then_some(())
    })
    .await;
    service.stop().await;
    let service = world.start().await;
    world.push(WEB, 2).await;
    eventually("the next change", SOON, async || {
        let (next, paused) = (
            causes(&mut world, "next").await,
            causes(&mut world, "paused").await,
        );
        (next.len() == 2 && next[1].2 == 1 && paused.len() == 2).then_some(())
    })
    .await;
    service.stop().await;
}
