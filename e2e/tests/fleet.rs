//! One process per service: outages and crashes cost nothing.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test has neither a log nor flags of its own"
)]

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tagtrail_e2e::{Fleet, HOOK_SECRET, SERVICES};
use tagtrail_proto::{Digest, Event, Revision, instant};
use tagtrail_testkit::{Registry, SOON, TestImage, eventually};
use time::{Duration, OffsetDateTime};

const REGISTRY: &str = "registry.example.com";

fn digest(n: u64) -> String {
    Digest::sha256_of(&n.to_be_bytes()).to_string()
}

fn time_of(second: i64) -> String {
    instant::format(OffsetDateTime::now_utc() - Duration::hours(1) + Duration::seconds(second))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_pushes_are_accepted_and_recorded_later() {
    let fleet = Fleet::start(REGISTRY).await;
    assert_eq!(
        fleet.push("shop/web", &digest(1), &time_of(1)).await,
        Some(202)
    );
    eventually("revision 1", SOON, async || {
        (fleet
            .get("/v1/resolve?image=registry.example.com/shop/web")
            .await?
            .0
            == 200)
            .then_some(())
    })
    .await;
    fleet.postgres.stop().await;
    for n in 2..=5 {
        let second = i64::try_from(n).unwrap();
        assert_eq!(
            fleet.push("shop/web", &digest(n), &time_of(second)).await,
            Some(202),
            "the gateway does not need Postgres"
        );
    }
    let (status, problem) = fleet
        .get("/v1/resolve?image=registry.example.com/shop/web")
        .await
        .unwrap();
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("store_unavailable"))
    );
    fleet.postgres.resume().await;
    eventually("revision 5", SOON, async || {
        let (_, found) = fleet
            .get("/v1/resolve?image=registry.example.com/shop/web")
            .await?;
        (found["revision"] == 5 && found["digest"] == digest(5)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_the_registry_is_told_to_come_again_and_does() {
    // The registry's own queue keeps what got no 2xx; so nothing is lost between them.
    let fleet = Fleet::start(REGISTRY).await;
    let registry = Registry::start(&fleet.hook(), &format!("Bearer {HOOK_SECRET}")).await;
    fleet.nats.stop().await;
    eventually("the gateway to notice", SOON, async || {
        (fleet.push("shop/web", &digest(1), &time_of(1)).await == Some(503)).then_some(())
    })
    .await;
    let pushed = registry.push(&TestImage::new("while NATS was away"), "shop/web:latest");
    let image = format!("{}/shop/web", registry.host());
    assert_eq!(fleet.cli().run(&["resolve", &image]).code, 3);
    fleet.nats.resume().await;
    eventually("the push", SOON, async || {
        let said = fleet.cli().run(&["resolve", &image, "-q"]);
        (said.out == format!("{image}@{pushed}\n")).then_some(())
    })
    .await;
}

/// A short run of what `make chaos` does for long. The seed is printed; `CHAOS_SEED` repeats one, `CHAOS_PUSHES` sets how many.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_crashes_every_push_is_in_history_once_and_the_last_state_is_reached() {
    let setting = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seed = setting("CHAOS_SEED").unwrap_or_else(rand::random);
    let pushes = setting("CHAOS_PUSHES").unwrap_or(400);
    // Shown if the test fails.
    println!("CHAOS_SEED={seed} CHAOS_PUSHES={pushes}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut fleet = Fleet::start(REGISTRY).await;
    let repositories = ["shop/web", "shop/worker", "foo/bar", "foo/baz"];
    let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for n in 0..pushes {
        let repository = repositories.choose(&mut random).unwrap();
        let (digest, time) = (digest(n), time_of(i64::try_from(n).unwrap()));
        // As any sender does: again until it is accepted. Some are sent twice for no reason.
        let times = if random.random_bool(0.1) { 2 } else { 1 };
        for _ in 0..times {
            eventually("a push to be accepted", SOON, async || {
                (fleet.push(repository, &digest, &time).await == Some(202)).then_some(())
            })
            .await;
        }
        wanted.entry(repository).or_default().push(digest);
        if random.random_bool(0.03) {
            fleet.restart(SERVICES.choose(&mut random).unwrap());
        }
        match random.random_range(0..1000) {
            0..4 => fleet.nats.crash().await,
            4..8 => fleet.postgres.crash().await,
            _ => {}
        }
    }

    for (repository, digests) in &wanted {
        let path = format!("/v1/history?image={REGISTRY}/{repository}&limit=1000");
        let count = digests.len();
        let items = eventually(
            &format!("{count} revisions of {repository}"),
            SOON,
            async || {
                let items = fleet.get(&path).await?.1["items"].as_array()?.clone();
                let all =
                    items.len() >= count.min(1000) && items[0]["digest"] == digests[count - 1];
                all.then_some(items)
            },
        )
        .await;
        let found: Vec<&str> = items
            .iter()
            .rev()
            .map(|item| item["digest"].as_str().unwrap())
            .collect();
        assert_eq!(
            found,
            digests[count.saturating_sub(1000)..],
            "{repository}: each once, in the order of their times"
        );
    }

    // Subscribers saw the numbers of each tag in order, each once.
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    eventually("all revisions on the bus", SOON, async || {
        told.clear();
        for (subject, body) in fleet.nats.messages("REVISIONS").await {
            if subject.starts_with("tagtrail.revision.") {
                let event: Event<Revision> = serde_json::from_slice(&body).unwrap();
                told.entry(event.data.repository.to_string())
                    .or_default()
                    .push(event.data.revision);
            }
        }
        wanted
            .iter()
            .all(|(repository, digests)| {
                told.get(*repository).and_then(|numbers| numbers.last())
                    == Some(&(digests.len() as u64))
            })
            .then_some(())
    })
    .await;
    for (repository, numbers) in told {
        let last = *numbers.last().unwrap();
        let kept = numbers.len() as u64; // at most 100 of each tag stay in the stream
        assert_eq!(
            numbers,
            (last - kept + 1..=last).collect::<Vec<_>>(),
            "{repository}"
        );
    }

    // What the target was told last is what the tags mean now.
    let last = |repository: &str| wanted[repository].last().unwrap().clone();
    eventually("the last wanted state at the target", SOON, async || {
        let delivery = fleet.sink.deliveries().pop()?.json();
        let images = &delivery["data"]["images"];
        (images["web"]["digest"] == last("shop/web")
            && images["worker"]["digest"] == last("shop/worker"))
        .then_some(())
    })
    .await;
    let numbers: Vec<u64> = fleet
        .sink
        .deliveries()
        .iter()
        .map(|delivery| delivery.json()["data"]["number"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.is_sorted(),
        "a target was told an older rollout after a newer one: {numbers:?}"
    );
}
