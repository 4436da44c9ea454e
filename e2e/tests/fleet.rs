//! Outages of Postgres and of NATS lose no push.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]
use serde_json::json;
use tagtrail_e2e::{Fleet, HOOK_SECRET};
use tagtrail_proto::{Digest, instant};
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
            "the gateway needs no Postgres"
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
async fn without_nats_the_gateway_answers_503_and_the_registry_retries() {
    // The registry's queue keeps notifications that got no 2xx, so the push is not lost.
    let fleet = Fleet::start(REGISTRY).await;
    let registry = Registry::start(&fleet.hook(), &format!("Bearer {HOOK_SECRET}")).await;
    fleet.nats.stop().await;
    eventually("the gateway to notice", SOON, async || {
        (fleet.push("shop/other", &digest(1), &time_of(1)).await == Some(503)).then_some(())
    })
    .await;
    let pushed = registry.push(&TestImage::new("while NATS was away"), "shop/web:latest");
    // The source names the registry of its events.
    let image = format!("{REGISTRY}/shop/web");
    assert_eq!(fleet.cli().run(&["resolve", &image]).code, 3);
    fleet.nats.resume().await;
    eventually("the push", SOON, async || {
        let resolved = fleet.cli().run(&["resolve", &image, "-q"]);
        (resolved.out == format!("{image}@{pushed}\n")).then_some(())
    })
    .await;
}
