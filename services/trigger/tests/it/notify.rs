//! Messages about rollouts, on real servers.

use std::time::Duration;

use tagtrail_proto::{Event, Held, HoldChange, RolloutState, Subject};
use tagtrail_testkit::{Answer, SOON, Sink, eventually};

use crate::world::{Service, WEB, WORKER, World, a_while};

/// An entry that tells a sink.
fn entry(name: &str, sink: &Sink, more: &str) -> String {
    let url = sink.url();
    format!("[[notify]]\nname = \"{name}\"\nurl = \"{url}\"\n{more}\n")
}

/// The titles or states of the messages that a sink has received.
fn told(sink: &Sink) -> Vec<String> {
    let deliveries = sink.deliveries();
    let text = |body: serde_json::Value| match &body["data"]["state"] {
        serde_json::Value::String(state) => state.clone(),
        _ => body["text"].as_str().unwrap().to_owned(),
    };
    deliveries.iter().map(|one| text(one.json())).collect()
}

async fn count(sink: &Sink, count: usize) {
    eventually(&format!("{count} messages"), SOON, async || {
        (sink.deliveries().len() >= count).then_some(())
    })
    .await;
}

fn metric(service: &Service, name: &str) -> String {
    let text = service.ctx.metrics.text().unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_default()
        .rsplit(' ')
        .next()
        .unwrap()
        .to_owned()
}

/// Waits until each of these entries has its place, so that it misses no later event.
async fn places(world: &mut World, entries: i64) {
    eventually("the places of the entries", SOON, async || {
        let found: i64 = sqlx::query_scalar("select count(*) from notify_position")
            .fetch_one(&mut world.sql)
            .await
            .unwrap();
        (found == entries).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_chat_that_fails_or_hangs_delays_nothing_and_gets_its_messages_after_a_restart() {
    let mut world = World::new().await;
    let (good, failing, hanging) = (
        Sink::start().await,
        Sink::start().await,
        Sink::start().await,
    );
    failing.answer(vec![Answer::Status(500); 1000]);
    hanging.answer(vec![Answer::Late(Duration::from_secs(600), 200); 1000]);
    let on = "on = [\"succeeded\"]\nformat = \"cloudevents\"";
    world.configure(&format!(
        "{}{}{}{}",
        world.shop(""),
        entry("failing", &failing, on),
        entry("good", &good, on),
        entry("hanging", &hanging, &format!("{on}\ntimeout_seconds = 600")),
    ));
    let service = world.start().await;
    places(&mut world, 3).await;
    world.push(WORKER, 1).await;
    for number in 1..=3 {
        world.push(WEB, number).await;
        let last = i64::from(number);
        world.wait(last, RolloutState::Succeeded).await;
    }
    count(&good, 3).await;
    count(&failing, 2).await;
    let first = failing.deliveries()[0].clone();
    assert_eq!(
        metric(&service, "tagtrail_notify_failing{entry=\"failing\"}"),
        "1"
    );
    service.stop().await;
    let before = failing.deliveries().len();
    assert!(
        failing
            .deliveries()
            .iter()
            .all(|one| one.body == first.body)
    );

    failing.calm();
    hanging.calm();
    let service = world.start().await;
    // The message that failed, the two after it, and none twice.
    count(&failing, before + 3).await;
    a_while().await;
    let after = &failing.deliveries()[before..];
    assert_eq!(after.len(), 3);
    assert_eq!(after[0].body, first.body);
    assert_eq!(good.deliveries().len(), 3);
    eventually("the messages of the entry that hung", SOON, async || {
        let bodies: Vec<_> = hanging
            .deliveries()
            .iter()
            .map(|one| one.body.clone())
            .collect();
        bodies.contains(&after[2].body).then_some(())
    })
    .await;
    assert_eq!(
        metric(&service, "tagtrail_notify_failing{entry=\"failing\"}"),
        "0"
    );
    service.stop().await;
}

#[tokio::test]
async fn a_rollout_that_fails_repeatedly_is_one_message_and_then_one_a_day() {
    let mut world = World::new().await;
    let chat = Sink::start().await;
    let trigger = format!(
        "[[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\ntarget.command = {{ run = [\"./missing\"] }}\n"
    );
    world.configure(&format!(
        "{trigger}{}",
        entry("chat", &chat, "format = \"slack\"")
    ));
    let service = world.start().await;
    places(&mut world, 1).await;
    world.push(WEB, 1).await;
    count(&chat, 1).await;
    assert_eq!(told(&chat), ["shop #1 failed"]);
    let body = chat.deliveries()[0].json().to_string();
    assert!(body.contains("missing") && body.contains(WEB), "{body}");
    service.stop().await;

    // After a start the rollout is attempted again, and fails again.
    let changes = "select count(*) from rollout_change where state = 'failed' and published";
    let service = world.start().await;
    eventually("the second failure", SOON, async || {
        let failures: i64 = sqlx::query_scalar(changes)
            .fetch_one(&mut world.sql)
            .await
            .unwrap();
        (failures >= 2).then_some(())
    })
    .await;
    a_while().await;
    assert_eq!(chat.deliveries().len(), 1);
    service.stop().await;

    sqlx::query("update notify_failure set told_at = told_at - interval '25 hours'")
        .execute(&mut world.sql)
        .await
        .unwrap();
    let service = world.start().await;
    count(&chat, 2).await;
    assert_eq!(told(&chat)[1], "shop #1 failed");
    service.stop().await;
}

#[tokio::test]
async fn an_old_message_is_dropped_and_counted_and_a_refused_one_holds_up_no_other() {
    let mut world = World::new().await;
    let (late, refusing) = (Sink::start().await, Sink::start().await);
    late.answer(vec![Answer::Status(503); 1000]);
    refusing.answer(vec![Answer::Status(400); 5]);
    let on = "on = [\"succeeded\"]\nformat = \"cloudevents\"";
    world.configure(&format!(
        "{}{}{}",
        world.shop(""),
        entry("late", &late, &format!("{on}\nmax_age = \"2s\"")),
        entry("refusing", &refusing, on),
    ));
    let service = world.start().await;
    places(&mut world, 2).await;
    world.push(WORKER, 1).await;
    for number in 1..=2 {
        world.push(WEB, number).await;
        world.wait(i64::from(number), RolloutState::Succeeded).await;
    }
    eventually("both messages are dropped", SOON, async || {
        let dropped = metric(&service, "tagtrail_notify_dropped_total{entry=\"late\"}");
        (dropped == "2").then_some(())
    })
    .await;
    late.calm();
    count(&refusing, 6).await;
    assert_eq!(
        metric(
            &service,
            "tagtrail_notify_dropped_total{entry=\"refusing\"}"
        ),
        "1"
    );
    assert_eq!(
        metric(&service, "tagtrail_notify_sent_total{entry=\"refusing\"}"),
        "1"
    );
    service.stop().await;
}

#[tokio::test]
async fn entries_change_without_a_restart_and_a_broken_one_stops_no_other() {
    let mut world = World::new().await;
    let (one, other) = (Sink::start().await, Sink::start().await);
    let folder = world.folder.path().to_owned();
    let secret = |text: &str| std::fs::write(folder.join("chat"), text).unwrap();
    secret(one.url());
    let chat = |triggers: &str| {
        format!(
            "[[notify]]\nname = \"chat\"\non = [\"succeeded\"]\ntriggers = [{triggers}]\nformat = \"cloudevents\"\nurl = {{ file = \"chat\" }}\n"
        )
    };
    let broken =
        "[[notify]]\nname = \"broken\"\nformat = \"slack\"\nurl = { file = \"no-such-file\" }\n";
    world.configure(&format!("{}{}{broken}", world.shop(""), chat("\"sh*\"")));
    let service = world.start().await;
    places(&mut world, 1).await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    count(&one, 1).await;

    // Another receiver by a changed secret; the broken entry heals.
    secret(other.url());
    std::fs::write(folder.join("no-such-file"), one.url()).unwrap();
    places(&mut world, 2).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.push(WEB, 2).await;
    count(&other, 1).await;
    assert_eq!(one.deliveries().len(), 1);

    // Other triggers: a message of this one comes no more.
    world.configure(&format!("{}{}", world.shop(""), chat("\"other-*\"")));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.push(WEB, 3).await;
    world.wait(3, RolloutState::Succeeded).await;
    a_while().await;
    assert_eq!((one.deliveries().len(), other.deliveries().len()), (1, 1));
    service.stop().await;
}

#[tokio::test]
async fn holds_are_told_to_the_entries_whose_triggers_they_meet() {
    let mut world = World::new().await;
    let (team, other) = (Sink::start().await, Sink::start().await);
    let on = "on = [\"hold\"]\nformat = \"slack\"";
    world.configure(&format!(
        "{}{}{}",
        world.shop(""),
        entry("team", &team, &format!("{on}\ntriggers = [\"shop-*\"]")),
        entry("other", &other, &format!("{on}\ntriggers = [\"bank\"]")),
    ));
    let service = world.start().await;
    places(&mut world, 2).await;
    let freeze = "insert into hold (kind, triggers, reason, actor, until) values ('freeze', 'shop*', $1, 'eve', now() + $2::interval) returning id";
    let id: i64 = sqlx::query_scalar(freeze)
        .bind("<!channel> stocktaking")
        .bind("1 hour")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    count(&team, 1).await;
    assert_eq!(told(&team), ["shop*: a freeze is in force"]);
    let body = team.deliveries()[0].json().to_string();
    assert!(body.contains("&lt;!channel&gt; stocktaking") && body.contains("set by: eve"));
    sqlx::query("update hold set released_at = now(), released_by = 'bob' where id = $1")
        .bind(id)
        .execute(&mut world.sql)
        .await
        .unwrap();
    count(&team, 2).await;
    assert_eq!(told(&team)[1], "shop*: a freeze was released");

    // One that ends by itself.
    let _: i64 = sqlx::query_scalar(freeze)
        .bind("short")
        .bind("2 seconds")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    count(&team, 4).await;
    assert_eq!(told(&team)[3], "shop*: a freeze has ended");
    a_while().await;
    assert_eq!((team.deliveries().len(), other.deliveries().len()), (4, 0));
    let messages = world.nats.messages("ROLLOUTS").await;
    let holds = messages
        .iter()
        .filter(|(subject, _)| subject.starts_with("tagtrail.hold."));
    assert_eq!(holds.count(), 4);
    service.stop().await;
}

/// The bodies of the events of holds in ROLLOUTS.
async fn hold_events(world: &World) -> Vec<Event<Held>> {
    let messages = world.nats.messages("ROLLOUTS").await;
    let holds = messages.iter().filter(|(subject, body)| {
        let hold = subject.starts_with("tagtrail.hold.");
        if hold {
            let event: Event<Held> = serde_json::from_slice(body).unwrap();
            assert_eq!(*subject, Subject::of_hold(&event.data.triggers).to_string());
        }
        hold
    });
    holds
        .map(|(_, body)| serde_json::from_slice(body).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_begins_and_ends_during_an_outage_or_a_kill_is_told_once() {
    let mut world = World::new().await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    let mut first = world.process();
    world.wait(1, RolloutState::Succeeded).await;
    world.nats.stop().await;
    let id: i64 = sqlx::query_scalar(
        "insert into hold (kind, triggers, reason, actor) values ('freeze', 'shop', 'it leaks', 'eve') returning id",
    )
    .fetch_one(&mut world.sql)
    .await
    .unwrap();
    a_while().await;
    first.kill();
    world.nats.resume().await;
    let mut second = world.process();
    let unmarked = "select count(*) from hold_change where not published";
    let marked = async |world: &mut World| {
        eventually("the changes of holds are marked", SOON, async || {
            let left: i64 = sqlx::query_scalar(unmarked)
                .fetch_one(&mut world.sql)
                .await
                .unwrap();
            (left == 0).then_some(())
        })
        .await;
    };
    marked(&mut world).await;
    let events = hold_events(&world).await;
    assert_eq!(events.len(), 1);
    let Held { change, kind, .. } = &events[0].data;
    assert_eq!((*change, kind.as_str()), (HoldChange::Set, "freeze"));
    assert_eq!(events[0].data.reason.as_deref(), Some("it leaks"));

    // As after a kill between the acknowledgement of NATS and the mark in Postgres.
    second.kill();
    sqlx::query("update hold_change set published = false")
        .execute(&mut world.sql)
        .await
        .unwrap();
    sqlx::query("update hold set released_at = now(), released_by = 'bob' where id = $1")
        .bind(id)
        .execute(&mut world.sql)
        .await
        .unwrap();
    let third = world.process();
    marked(&mut world).await;
    let events = hold_events(&world).await;
    let changes: Vec<_> = events.iter().map(|event| event.data.change).collect();
    assert_eq!(changes, [HoldChange::Set, HoldChange::Released]);
    assert_eq!(events[1].data.released_by.as_deref(), Some("bob"));
    assert_ne!(events[0].id, events[1].id);
    drop(third);
}

#[tokio::test]
async fn a_trigger_that_breaks_or_is_paused_is_told_once_and_so_is_the_end() {
    let mut world = World::new().await;
    let (chat, raw, settled) = (
        Sink::start().await,
        Sink::start().await,
        Sink::start().await,
    );
    let on = "on = [\"broken\", \"paused\"]\ntriggers = [\"shop\"]";
    let entries = [
        entry("chat", &chat, &format!("{on}\nformat = \"slack\"")),
        entry("raw", &raw, &format!("{on}\nformat = \"cloudevents\"")),
        entry(
            "settled",
            &settled,
            "on = [\"settled\"]\nformat = \"teams\"",
        ),
    ];
    let entries = entries.concat();
    world.configure(&format!("{}{entries}", world.shop("")));
    let service = world.start().await;
    places(&mut world, 3).await;
    world.push(WEB, 1).await;
    world.push(WORKER, 1).await;
    world.wait(1, RolloutState::Succeeded).await;
    count(&settled, 1).await;
    world.switch("paused").await;
    count(&chat, 1).await;
    assert_eq!(told(&chat), ["shop is paused"]);
    let body = chat.deliveries()[0].json().to_string();
    assert!(body.contains("tagtrail resume shop"), "{body}");
    count(&raw, 1).await;
    let event = raw.deliveries()[0].json();
    assert_eq!(event["type"], "dev.tagtrail.trigger.v1");
    assert_eq!(event["data"]["condition"], "paused");
    assert_eq!(event["data"]["reasons"][0]["code"], "pause");
    service.stop().await;

    // As after a kill between the acknowledgement of NATS and the mark in Postgres.
    sqlx::query("update condition_change set published = false")
        .execute(&mut world.sql)
        .await
        .unwrap();
    let before = world.nats.messages("ROLLOUTS").await.len();
    let service = world.start().await;
    eventually("the changes of conditions are marked", SOON, async || {
        let left: i64 =
            sqlx::query_scalar("select count(*) from condition_change where not published")
                .fetch_one(&mut world.sql)
                .await
                .unwrap();
        (left == 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(world.nats.messages("ROLLOUTS").await.len(), before);
    assert_eq!((chat.deliveries().len(), raw.deliveries().len()), (1, 1));

    world.switch("resuming").await;
    count(&chat, 2).await;
    let end = told(&chat)[1].clone();
    assert!(end.ends_with(", no longer paused"), "{end}");
    let broken = world.shop("").replace("images.web", "imagse.web");
    world.configure(&format!("{broken}{entries}"));
    count(&chat, 3).await;
    assert_eq!(told(&chat)[2], "shop is broken");
    let body = chat.deliveries()[2].json().to_string();
    assert!(body.contains("imagse"), "{body}");
    world.configure(&format!("{}{entries}", world.shop("")));
    count(&chat, 4).await;
    assert_eq!(told(&chat)[3], "shop is settled, no longer broken");
    service.stop().await;
}
