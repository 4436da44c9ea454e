//! The coverage report: changes by how they became known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::PgConnection;
use tagtrail_testkit::{SOON, eventually};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::rows::{Rows, on_time};
use crate::server::Api;

/// Writes numbers as the indexer counts them: of three hours on two days, and of the days.
async fn count(db: &mut PgConnection) {
    sqlx::raw_sql(
        "insert into coverage (period, starts_at, registry, source, event, reconciled, signatures, last_event_at) values
             ('hour', '2026-03-03T13:00:00Z', 'r.example.com', 'main', 1000, 0, 0, '2026-03-03T13:10:00Z'),
             ('hour', '2026-03-03T14:00:00Z', 'r.example.com', 'main', 5, 1, 2, '2026-03-03T14:20:00Z'),
             ('hour', '2026-03-03T15:00:00Z', 'r.example.com', 'ci', 0, 0, 0, null),
             ('hour', '2026-03-04T15:00:00Z', 'r.example.com', 'main', 4, 0, 0, '2026-03-04T15:01:00Z'),
             ('day', '2026-03-03T00:00:00Z', 'r.example.com', 'main', 1005, 1, 2, '2026-03-03T14:20:00Z'),
             ('day', '2026-03-04T00:00:00Z', 'r.example.com', 'main', 4, 0, 0, '2026-03-04T15:01:00Z');",
    )
    .execute(db)
    .await
    .unwrap();
}

#[tokio::test]
async fn hours_and_days_are_added_up_from_the_hour_of_since() {
    let (api, mut rows) = Api::start().await;
    count(&mut rows.db).await;
    for (since, start, event, reconciled) in [
        ("2026-03-03T14:59:59Z", "2026-03-03T14:00:00.000000Z", 9, 1),
        (
            "2026-03-03T15:30:00%2B01:00",
            "2026-03-03T14:00:00.000000Z",
            9,
            1,
        ),
        (
            "2026-03-03T00:00:00Z",
            "2026-03-03T00:00:00.000000Z",
            1009,
            1,
        ),
        (
            "2000-01-01T10:00:00Z",
            "2000-01-01T10:00:00.000000Z",
            1009,
            1,
        ),
        ("2026-03-03T16:00:00Z", "2026-03-03T16:00:00.000000Z", 4, 0),
        ("2026-03-04T15:00:00Z", "2026-03-04T15:00:00.000000Z", 4, 0),
    ] {
        let report = api.found(&format!("/v1/coverage?since={since}")).await;
        assert_eq!(report["since"], start, "{since}");
        assert_eq!(report["uncounted"], 0);
        assert_eq!(report["items"].as_array().unwrap().len(), 1, "{report}");
        let item = &report["items"][0];
        assert_eq!(
            item["changes"],
            json!({ "event": event, "resolved": 0, "observed": 0, "reconciled": reconciled, "reordered": 0, "imported": 0 }),
            "{since}"
        );
        assert_eq!(item["last_event_at"], "2026-03-04T15:01:00.000000Z");
        let share = item["lost_share"].as_f64().unwrap();
        let expected = f64::from(reconciled) / f64::from(event + reconciled);
        assert!((share - expected).abs() < 1e-9, "{share}");
    }
    let all = api.found("/v1/coverage?since=2000-01-01T00:00:00Z").await;
    assert_eq!(all["items"][0]["signatures"], 2);
    for since in ["2026-03-04T16:00:00Z", "9999-12-31T23:59:59Z"] {
        let report = api.found(&format!("/v1/coverage?since={since}")).await;
        assert_eq!(report["items"], json!([]), "{since}");
    }
}

#[tokio::test]
async fn changes_that_are_not_counted_yet_are_reported() {
    let (api, mut rows) = Api::start().await;
    let changes = [on_time(1, 1, 10), on_time(2, 2, 20)];
    rows.tag("r.example.com/shop/web:1", &changes).await;
    rows.tag("r.example.com/shop/web:2", &changes).await;
    assert_eq!(api.found("/v1/coverage").await["uncounted"], 4);
    sqlx::raw_sql("insert into coverage_position values ('revision', 0, 2), ('push', 0, 4)")
        .execute(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(api.found("/v1/coverage").await["uncounted"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_resolved_while_twelve_clients_ask_a_question_that_never_ends() {
    let db = tagtrail_testkit::postgres().await;
    let api = Api::over(&db).await;
    api.ctx.health.wait_ready().await;
    let mut rows = Rows::new(db.connect().await).await;
    rows.tag("r.example.com/shop/web:latest", &[on_time(1, 1, 10)])
        .await;
    sqlx::query("begin").execute(&mut rows.db).await.unwrap();
    sqlx::query("lock table reconcile in access exclusive mode")
        .execute(&mut rows.db)
        .await
        .unwrap();
    let mut observer = db.connect().await;
    let api = Arc::new(api);
    let mut clients = JoinSet::new();
    let enough = CancellationToken::new();
    for number in 0..12 {
        let (api, enough) = (Arc::clone(&api), enough.clone());
        clients.spawn(async move {
            // Half of the clients hang up, and ask again: their statements go on in Postgres.
            let patience = Duration::from_millis(if number % 2 == 0 { 100 } else { 60_000 });
            while !enough.is_cancelled() {
                let question = api.get("/v1/coverage?since=2000-01-01T00:00:00Z");
                if let Ok(answer) = tokio::time::timeout(patience, question).await {
                    assert_eq!(answer.status, 503, "{answer:?}");
                }
            }
        });
    }
    let began = Instant::now();
    let mut busy = 0;
    // On a busy machine the first of these statements begins late.
    while began.elapsed() < Duration::from_secs(3) || busy == 0 && began.elapsed() < SOON {
        // 503 if the large questions had all connections.
        let answer = api.get("/v1/resolve?image=r.example.com/shop/web").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let running: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and state = 'active'",
        )
        .fetch_one(&mut observer)
        .await
        .unwrap();
        assert!(running <= 4, "{running} statements run at once");
        busy = busy.max(running);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(busy > 0);
    enough.cancel();
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    sqlx::query("rollback").execute(&mut rows.db).await.unwrap();
    eventually("an answer", SOON, async || {
        (api.get("/v1/coverage").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn repositories_whose_last_comparison_failed_are_listed() {
    let (api, mut rows) = Api::start().await;
    sqlx::raw_sql(
        "insert into reconcile (registry, repository, last_at, tags, asked, found) values
             ('r.example.com', 'mended', now(), 1, 1, 0), ('r.example.com', 'broken', now() - interval '1 hour', 1, 1, 0);
         insert into reconcile_failure (registry, repository, failed_at, reason) values
             ('r.example.com', 'mended', now() - interval '1 hour', '500'),
             ('r.example.com', 'broken', now() - interval '1 minute', '406 Not Acceptable'),
             ('r.example.com', 'never', now() - interval '2 minutes', '401')",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    let report = api.found("/v1/coverage").await;
    let failed = report["not_compared"].as_array().unwrap();
    let of = |place: usize, key: &str| failed[place][key].clone();
    assert_eq!(failed.len(), 2, "{report}");
    assert_eq!(
        (of(0, "repository"), of(0, "reason")),
        (json!("broken"), json!("406 Not Acceptable"))
    );
    assert!(of(0, "last_reconciled_at").is_string());
    assert_eq!(
        (of(1, "repository"), of(1, "last_reconciled_at")),
        (json!("never"), json!(null))
    );
}
