//! Registries that come, change and go while the resolver runs.

use std::time::Duration;

use tagtrail_proto::Tag;
use tagtrail_testkit::{SOON, TestNats, eventually};

use crate::reconcile::{NAME, World, digest, numbered, trigger};
use crate::{
    Fake, IMAGE, Resolver, answers, ask, digest as answered, found, question, registry,
    wait_answers,
};

/// Asks about an image again and again, until something has happened.
async fn ask_until(nats: &TestNats, what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let mut number = 0;
    eventually(what, SOON, async || {
        number += 1;
        ask(nats, question(IMAGE, &format!("{what} {number}"))).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        happened().await.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_come_change_and_go_without_a_restart() {
    let nats = TestNats::start().await;
    let (other, first, second) = (
        Fake::start(vec![found]).await,
        Fake::start(vec![found]).await,
        Fake::start(vec![found]).await,
    );
    let kept = registry("other.example.com", &other.url);
    let resolver = Resolver::start(&nats, &kept).await;
    let with = |url: &str| format!("{kept}{}", registry(NAME, url));

    resolver.write(&with(&first.url));
    ask_until(&nats, "an answer", async || {
        !answers(&nats).await.is_empty()
    })
    .await;
    assert_eq!(answers(&nats).await[0].digest, Some(answered()));
    assert_eq!((first.asked() > 0, second.asked()), (true, 0));

    resolver.write(&with(&second.url));
    ask_until(&nats, "the other address", async || second.asked() > 0).await;
    let asked = first.asked();

    // A broken entry stays in force as it was.
    resolver.write(&with("no address"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = second.asked();
    ask_until(&nats, "the settings before", async || {
        second.asked() > before
    })
    .await;

    let refused = async || nats.messages("QUARANTINE").await.len();
    let earlier = refused().await;
    resolver.write(&kept);
    ask_until(&nats, "a refusal", async || refused().await > earlier).await;
    assert_eq!(first.asked(), asked);
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comparisons_follow_the_files() {
    let world = World::new().await;
    let tags = numbered(3);
    world
        .tags
        .change(|inner| inner.tags.insert("shop/web".to_owned(), tags));
    let of = |more: &str| format!("{}{more}", registry(NAME, &world.url));
    let resolver = world.resolver("reconcile = \"0s\"").await;
    // Without comparisons nothing of the registry is known.
    assert_eq!(answers(&world.nats).await.len(), 0);

    resolver.write(&of("reconcile = \"1h\"\nwatch = [\"shop/web\"]\n"));
    let found = wait_answers(&world.nats, 3).await;
    assert_eq!(found.len(), 3);
    world.reconciled(1).await;

    // A trigger that a file gains is watched from now on.
    let more = format!(
        "reconcile = \"0s\"\nwatch_triggers = \"2s\"\n{}",
        trigger("shop/web", 2)
    );
    resolver.write(&of(&more));
    world.tags.change(|inner| {
        let tags = inner.tags.get_mut("shop/web").unwrap();
        tags.insert("v0001".to_owned(), digest("moved"));
    });
    let moved: Tag = "v0001".parse().unwrap();
    eventually("a lost change", SOON, async || {
        let pushes = answers(&world.nats).await;
        pushes
            .iter()
            .any(|push| push.digest == Some(digest("moved")) && push.tag.as_ref() == Some(&moved))
            .then_some(())
    })
    .await;
    resolver.stop().await;
}
