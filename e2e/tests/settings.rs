//! A service warns at start about servers that may lose acknowledged data.

use sqlx::{Connection as _, PgConnection};
use tagtrail_testkit::{Process, SOON, TestCluster, TestPostgres, eventually, free_address};

/// Starts an indexer on these servers, waits for readiness, and returns the log.
async fn log(postgres: &TestPostgres, nats: &TestCluster, replicas: &str) -> String {
    let (monitor, admin) = (nats.monitor_url(0), free_address());
    let environment = [
        ("DATABASE_URL", postgres.db().url().to_owned()),
        ("NATS_URL", nats.url()),
        ("NATS_MONITOR_URL", monitor),
        ("TAGTRAIL_NATS_REPLICAS", replicas.to_owned()),
    ];
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let indexer = Process::tagtrail(&["indexer", "--admin", &admin], &environment);
    let probe = format!("http://{admin}/readyz");
    eventually("the indexer", SOON, async || {
        tagtrail_e2e::answers(&probe).await.then_some(())
    })
    .await;
    indexer.log()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_may_lose_acknowledged_data_are_logged_at_start() {
    tagtrail_e2e::use_ring();
    let postgres = TestPostgres::start().await;
    let mut admin = PgConnection::connect(postgres.db().url()).await.unwrap();
    sqlx::query("alter database tagtrail set synchronous_commit = off")
        .execute(&mut admin)
        .await
        .unwrap();
    let warnings = [
        "Postgres has synchronous_commit = off",
        "nats-server syncs to disk only every 120s",
        "stream PUSHES has one copy on a cluster",
        "stream UNRESOLVED has one copy on a cluster",
        "stream REVISIONS has one copy on a cluster",
    ];
    let weak = log(&postgres, &TestCluster::start(false).await, "1").await;
    for line in warnings {
        assert!(weak.contains(line), "no \"{line}\" in\n{weak}");
    }

    sqlx::query("alter database tagtrail reset synchronous_commit")
        .execute(&mut admin)
        .await
        .unwrap();
    let strong = log(&postgres, &TestCluster::start(true).await, "3").await;
    for line in warnings {
        assert!(!strong.contains(line), "\"{line}\" in\n{strong}");
    }
}
