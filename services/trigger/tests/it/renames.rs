//! A trigger that goes on under another name, and numbers over losses.

use std::time::Duration;

use sqlx::Row as _;
use tagtrail_proto::RolloutState::Succeeded;
use tagtrail_testkit::{SOON, eventually};
use time::OffsetDateTime;

use crate::changes::causes;
use crate::world::*;

impl World {
    /// A trigger like `shop` of this name.
    fn named(&self, name: &str, more: &str) -> String {
        self.shop(more).replace("\"shop\"", &format!("\"{name}\""))
    }

    /// The names of all triggers, with their ids, and their old names.
    async fn names(&mut self) -> (Vec<(String, i32)>, Vec<(String, i32)>) {
        let mut found = Vec::new();
        for query in [
            "select name, id from trigger order by id",
            "select name, trigger_id as id from trigger_name order by name",
        ] {
            let rows = sqlx::query(query).fetch_all(&mut self.sql).await.unwrap();
            let row = |row: &sqlx::postgres::PgRow| (row.get("name"), row.get("id"));
            found.push(rows.iter().map(row).collect::<Vec<_>>());
        }
        (found.remove(0), found.remove(0))
    }

    async fn run(&mut self, statement: &'static str) {
        sqlx::raw_sql(statement)
            .execute(&mut self.sql)
            .await
            .unwrap();
    }

    /// Waits until there is a trigger of this name.
    async fn exists(&mut self, name: &str) {
        eventually(name, SOON, async || {
            let (names, _) = self.names().await;
            names.iter().any(|one| one.0 == name).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_trigger_of_another_name_is_the_same_one_renamed() {
    let (mut world, service) = World::rolled_out().await;
    world
        .run(
            "insert into hold (kind, triggers, reason, actor) values
                 ('freeze', 'shop', 'audit', 'ann'), ('freeze', 'sh*', 'week', 'bob'), ('freeze', '*', 'all', 'eve'),
                 ('freeze', 'other', 'no', 'ann')",
        )
        .await;
    // While the service runs.
    world.configure(&world.named("store", ""));
    world.exists("store").await;
    a_while().await;
    assert_eq!(
        world.names().await,
        (vec![("store".to_owned(), 1)], vec![("shop".to_owned(), 1)])
    );
    assert_eq!(causes(&mut world, "store").await.len(), 1);
    assert_eq!(world.sink.deliveries().len(), 1);
    // A freeze of the old name, and of a pattern that the new one does not match, go on.
    let holds: Vec<(String, String)> =
        sqlx::query_as("select triggers, reason from hold order by reason, triggers")
            .fetch_all(&mut world.sql)
            .await
            .unwrap();
    let holds: Vec<(&str, &str)> = holds.iter().map(|one| (&*one.0, &*one.1)).collect();
    assert_eq!(
        holds,
        [
            ("*", "all"),
            ("store", "audit"),
            ("other", "no"),
            ("sh*", "week"),
            ("store", "week")
        ]
    );
    world
        .run("update hold set released_at = now(), released_by = 'ann'")
        .await;
    // Over a restart, and on from the last number.
    service.stop().await;
    world.configure(&world.named("market", ""));
    let service = world.start().await;
    world.push(WEB, 2).await;
    world.wait(2, Succeeded).await;
    let last = world.sink.deliveries().pop().unwrap().json();
    assert_eq!(last["data"]["trigger"], "market");
    assert_eq!(last["data"]["number"], 2);
    // Back to the first name, which is an old name no longer.
    world.configure(&world.named("shop", ""));
    world.exists("shop").await;
    let (_, old) = world.names().await;
    assert_eq!(old, [("market".to_owned(), 1), ("store".to_owned(), 1)]);
    assert_eq!(world.rollouts().await.len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_from_keeps_a_trigger_whose_entry_changes_too() {
    let (mut world, service) = World::rolled_out().await;
    world.switch("paused").await;
    let store = world.named("store", "settle = \"0s\"\nrenamed_from = \"shop\"");
    world.configure(&store);
    world.exists("store").await;
    world.push(WEB, 2).await;
    a_while().await;
    assert_eq!(world.rollouts().await.len(), 1, "the pause stays");
    world
        .run("update trigger set state = 'resuming' where name = 'store'")
        .await;
    world.wait(2, Succeeded).await;
    // Another trigger may take the old name later, and is not the renamed one.
    world.configure(&format!("{store}{}", world.shop("start = \"next\"")));
    world.exists("shop").await;
    eventually("the first rollout of the new one", SOON, async || {
        (causes(&mut world, "shop").await.len() == 1).then_some(())
    })
    .await;
    let (names, old) = world.names().await;
    assert_eq!((names.len(), old), (2, Vec::new()));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_triggers_that_can_be_confused_are_not_renamed() {
    let mut world = World::new().await;
    let two =
        |one: &str, other: &str| format!("{}{}", world.named(one, ""), world.named(other, ""));
    let (before, after) = (two("a", "b"), two("c", "d"));
    world.configure(&before);
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let service = world.start().await;
    world.sink.wait(2).await;
    world.configure(&after);
    world.exists("d").await;
    let (names, old) = world.names().await;
    assert_eq!((names.len(), old.len()), (4, 0));
    service.stop().await;
}

/// The answer to an order for numbers above this one.
async fn renumbered(world: &mut World, above: i64) -> String {
    let id: i64 = sqlx::query_scalar(
        "with a as (insert into act (actor, act, trigger, request_id) values ('ann', 'renumber', 'shop', 'x') returning id)
         insert into rollout_order (act_id, trigger_id, kind, cause, actor, above)
         select a.id, t.id, 'renumber', 'order', 'ann', $1 from a, trigger t returning id",
    )
    .bind(above)
    .fetch_one(&mut world.sql)
    .await
    .unwrap();
    eventually("an answer", SOON, async || {
        let answer = sqlx::query_scalar("select answer from rollout_order where id = $1");
        let answer: Option<String> = answer.bind(id).fetch_one(&mut world.sql).await.unwrap();
        answer
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_raises_the_numbers_and_never_lowers_them() {
    let (mut world, service) = World::rolled_out().await;
    world.switch("paused").await;
    let answer = renumbered(&mut world, 120).await;
    assert_eq!(answer, "the next rollout has a number above 120");
    let answer = renumbered(&mut world, 7).await;
    assert_eq!(answer, "the next rollout has a number above 120");
    world.push(WEB, 2).await;
    world.switch("resuming").await;
    world.wait(121, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_never_falls_below_the_one_that_receivers_have_seen() {
    let (mut world, service) = World::rolled_out().await;
    world.published().await;
    let epoch = |world: &World, at: usize| {
        let body = world.sink.deliveries()[at].json();
        let text = body["data"]["epoch"].as_str().unwrap().to_owned();
        assert_eq!(text.len(), "2026-03-03T14:02:00.000000Z".len(), "{text}");
        text
    };
    let first = epoch(&world, 0);
    let recorded: OffsetDateTime = sqlx::query_scalar("select epoch from trigger")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    assert!(OffsetDateTime::now_utc() - recorded < Duration::from_secs(120));
    service.stop().await;
    // A store that was made anew by a clock that is an hour behind.
    world
        .run(
            "set session_replication_role = replica; delete from rollout_attempt; delete from rollout_change; delete from rollout;
             update trigger set issued = 0, epoch = epoch - interval '1 hour'",
        )
        .await;
    let service = world.start().await;
    world.wait(2, Succeeded).await;
    assert_eq!(epoch(&world, 1), first);
    service.stop().await;
}
