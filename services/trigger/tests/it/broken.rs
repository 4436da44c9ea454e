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
        format!("[[trigger]]\nname = \"{name}\"\nimages.web = \"{WEB}\"\ntarget.{target}\n")
    };
    std::fs::write(world.folder.path().join("malformed"), "no key").unwrap();
    let hook = |secret: &str| {
        format!("webhook = {{ url = \"http://127.0.0.1:9/\", secret = {{ file = \"{secret}\" }} }}")
    };
    let broken = [
        entry("malformed", &hook("malformed")),
        entry("missing", &hook("missing")),
        entry("unknown", "telepathy = {}"),
        entry("unread", "command = { run = [\"true\"] }\nsettle = 30"),
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
