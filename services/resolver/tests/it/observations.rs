//! Observations: the digests that pulls report.

use std::collections::BTreeMap;

use tagtrail_proto::{Image, Origin, Push, Subject};

use crate::reconcile::{NAME, World, digest, record};
use crate::{Resolver, all_done, answers, question, registry, wait_answers};

/// Publishes the observation that a tag has the digest of `content`.
async fn observe(world: &World, image: &str, content: &str) {
    let push = Push {
        digest: Some(digest(content)),
        actor: None,
        ..question(image, &format!("{}{content}", Push::OBSERVED))
    };
    let image: Image = image.parse().unwrap();
    let subject = Subject::Unresolved {
        registry: image.registry,
        repository: image.repository,
        tag: image.tag,
    };
    let body = serde_json::to_vec(&push.event()).unwrap();
    let jetstream = world.nats.jetstream().await;
    let stored = jetstream.publish(subject.to_string(), body.into()).await;
    stored.unwrap().await.unwrap();
}

fn tags(digests: &[(&str, &str)]) -> BTreeMap<String, tagtrail_proto::Digest> {
    let of = |(tag, content): &(&str, &str)| ((*tag).to_owned(), digest(content));
    digests.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_is_asked_only_about_a_digest_that_history_does_not_have() {
    let world = World::new().await;
    let mut db = world.db.connect().await;
    record(&mut db, "shop/web", &tags(&[("v1", "one"), ("v2", "two")])).await;
    world.tags.change(|inner| {
        let now = tags(&[("v1", "one"), ("v2", "moved"), ("v3", "three")]);
        inner.tags.insert("shop/web".to_owned(), now);
    });
    let resolver = world.resolver("reconcile = \"0s\"").await;
    let image = |tag: &str| format!("{NAME}/shop/web:{tag}");
    let heads = || world.tags.change(|inner| inner.heads);

    observe(&world, &image("v1"), "one").await;
    all_done(&world.nats).await;
    assert_eq!(heads(), 0, "history has this digest");

    // A pull of a while ago: the registry confirms history, and nothing is published.
    observe(&world, &image("v1"), "older").await;
    all_done(&world.nats).await;
    assert_eq!((heads(), answers(&world.nats).await.len()), (1, 0));

    // The push was lost. Several pulls are one question, without a second look.
    for _ in 0..5 {
        observe(&world, &image("v2"), "moved").await;
    }
    let answer = wait_answers(&world.nats, 1).await.remove(0);
    assert_eq!(answer.digest, Some(digest("moved")));
    assert_eq!(
        (answer.origin, answer.event_id.as_str(), answer.actor),
        (Origin::Resolved, "observed:moved", None)
    );
    all_done(&world.nats).await;
    assert_eq!(heads(), 2);

    // A tag without history.
    observe(&world, &image("v3"), "three").await;
    assert_eq!(
        wait_answers(&world.nats, 2).await[1].digest,
        Some(digest("three"))
    );
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observation_that_can_not_be_compared_is_dropped_and_never_quarantined() {
    let world = World::new().await;
    let resolver = world.resolver("reconcile = \"0s\"").await;
    observe(&world, "other.example.com/shop/web:v1", "one").await;
    all_done(&world.nats).await;
    resolver.stop().await;
    // Without a database.
    let resolver = Resolver::start(&world.nats, &registry(NAME, "http://127.0.0.1:1")).await;
    observe(&world, &format!("{NAME}/shop/web:v1"), "one").await;
    all_done(&world.nats).await;
    assert!(world.nats.messages("QUARANTINE").await.is_empty());
    assert!(answers(&world.nats).await.is_empty());
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_digest_is_answered_as_such_although_a_pull_came_too() {
    let world = World::new().await;
    world.tags.change(|inner| {
        let now = tags(&[("v1", "one")]);
        inner.tags.insert("shop/web".to_owned(), now);
    });
    let resolver = world.resolver("reconcile = \"0s\"").await;
    let image = format!("{NAME}/shop/web:v1");
    crate::ask(&world.nats, question(&image, "7")).await;
    observe(&world, &image, "one").await;
    let answer = wait_answers(&world.nats, 1).await.remove(0);
    assert_eq!(
        (answer.event_id.as_str(), answer.actor.as_deref()),
        ("7", Some("ci-bot"))
    );
    all_done(&world.nats).await;
    resolver.stop().await;
}
