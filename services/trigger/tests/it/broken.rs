//! Broken entries of the file, and the triggers beside them.

use std::time::Duration;

use sqlx::Row as _;
use tagtrail_proto::RolloutState;
use tagtrail_testkit::{SOON, eventually};

use crate::world::{SECRET, WEB, WORKER, World};

/// The names of the triggers, with condition and mistake.
async fn triggers(world: &mut World) -> Vec<(String, bool, Option<String>)> {
    let rows =
        sqlx::query("select name, broken, problem from trigger where configured order by name")
            .fetch_all(&mut world.sql)
            .await
            .unwrap();
    let row =
        |row: &sqlx::postgres::PgRow| (row.get("name"), row.get("broken"), row.get("problem"));
    rows.iter().map(row).collect()
}

#[tokio::test]
async fn a_broken_trigger_is_shown_and_stops_no_other() {
    let mut world = World::new().await;
    let shop = world.shop("");
    let entry = |name: &str, target: &str| {
        format!(
            "[[trigger]]\nname = \"{name}\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\ntarget.{target}\n"
        )
    };
    std::fs::write(world.folder.path().join("malformed"), "no key").unwrap();
    let hook = |secret: &str| {
        format!("webhook = {{ url = \"http://127.0.0.1:9/\", secret = {{ file = \"{secret}\" }} }}")
    };
    let broken = [
        entry("malformed", &hook("malformed")),
        entry("missing", &hook("missing")),
        entry("unknown", "telepathy = {}"),
        entry("unread", "command = { run = [\"true\"] }\nsettle_max = 30"),
    ];
    world.configure(&format!(
        "{}{shop}{}",
        broken.concat(),
        entry("shop", "telepathy = {}")
    ));
    let service = world.start().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.wait(1, RolloutState::Succeeded).await;

    let found = triggers(&mut world).await;
    let names: Vec<(&str, bool)> = found.iter().map(|one| (one.0.as_str(), one.1)).collect();
    let expected = [
        ("malformed", true),
        ("missing", true),
        ("shop", false),
        ("unknown", true),
        ("unread", true),
    ];
    assert_eq!(names, expected);
    let text = |name: &str| {
        let one = found.iter().find(|one| one.0 == name).unwrap();
        one.2.clone().unwrap()
    };
    for (name, expected) in [
        ("malformed", "whsec_"),
        ("missing", "can't be read"),
        ("unknown", "is no kind of target"),
        ("unread", "30 has no unit"),
        ("shop", "the name of another trigger"),
    ] {
        let text = text(name);
        assert!(
            text.contains("tagtrail.toml:") && text.contains(expected),
            "{text}"
        );
    }

    // The wanted images of a trigger that lacks its secret are recorded, and wait without attempts.
    let waiting = async |world: &mut World, name: &str| -> Vec<(String, i32)> {
        let rows = sqlx::query("select o.state::text as state, o.attempts from rollout o join trigger t on t.id = o.trigger_id where t.name = $1")
            .bind(name)
            .fetch_all(&mut world.sql)
            .await
            .unwrap();
        rows.iter()
            .map(|row| (row.get("state"), row.get("attempts")))
            .collect()
    };
    eventually("a rollout that waits", SOON, async || {
        (waiting(&mut world, "missing").await.len() == 1).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        waiting(&mut world, "missing").await,
        [("pending".to_owned(), 0)]
    );
    assert_eq!(waiting(&mut world, "unread").await, []);

    // After the repair of the secret a start goes on; images of an unread entry stay known.
    service.stop().await;
    std::fs::write(world.folder.path().join("missing"), SECRET).unwrap();
    let service = world.start().await;
    let found = triggers(&mut world).await;
    assert!(
        found
            .iter()
            .any(|one| one.0 == "missing" && !one.1 && one.2.is_none()),
        "{found:?}"
    );
    eventually("an attempt", SOON, async || {
        (waiting(&mut world, "missing").await[0].1 > 0).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn changed_files_count_without_a_restart() {
    let mut world = World::new().await;
    let shop = world.shop("");
    let missing = shop
        .replace("\"shop\"", "\"later\"")
        .replace("/secret\"", "/later\"");
    let service = world.start().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.wait(1, RolloutState::Succeeded).await;

    // A trigger without its secret comes, and a broken entry of the running one.
    let wrong = shop.replace("settle = \"0s\"", "settle = 3");
    world.configure(&format!("{wrong}{missing}"));
    eventually("both are broken", SOON, async || {
        let found = triggers(&mut world).await;
        (found.len() == 2 && found.iter().all(|one| one.1)).then_some(())
    })
    .await;
    let found = triggers(&mut world).await;
    let text = |at: usize| found[at].2.clone().unwrap();
    assert!(
        text(0).contains("later") && text(1).contains("stays in force"),
        "{found:?}"
    );
    // The entry before still rolls out.
    world.push(WEB, 2).await;
    world.wait(2, RolloutState::Succeeded).await;

    // The secret comes: the trigger heals by itself, and its wanted images are sent.
    let sent = world.sink.deliveries().len();
    std::fs::write(world.folder.path().join("later"), SECRET).unwrap();
    eventually("the rollout of the healed trigger", SOON, async || {
        (world.sink.deliveries().len() > sent).then_some(())
    })
    .await;
    eventually("it is broken no longer", SOON, async || {
        let found = triggers(&mut world).await;
        (!found[0].1 && found[0].2.is_none()).then_some(())
    })
    .await;

    // Removed, and no TOML: the entries before stay.
    world.configure(&shop);
    eventually("the trigger is removed", SOON, async || {
        let found = triggers(&mut world).await;
        (found.len() == 1 && found[0].0 == "shop" && !found[0].1).then_some(())
    })
    .await;
    world.configure("[[trigger");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.push(WEB, 3).await;
    world.wait(3, RolloutState::Succeeded).await;
    service.stop().await;
}
