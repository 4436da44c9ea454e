//! Postgres down, up again, and not started yet.

use std::time::{Duration, Instant};

use tagtrail_testkit::{SOON, TestPostgres, eventually};

use crate::rows::{Rows, on_time};
use crate::server::Api;

const WEB: &str = "/v1/resolve?image=registry.example.com/shop/web";

#[tokio::test]
async fn while_postgres_is_down_answers_are_503_and_then_200_again() {
    let postgres = TestPostgres::start().await;
    let api = Api::over(&postgres.db()).await;
    let mut rows = Rows::new(postgres.db().connect().await).await;
    rows.tag("registry.example.com/shop/web:latest", &[on_time(1, 1, 10)])
        .await;
    api.ctx.health.wait_ready().await;
    // Several connections, all of which are dead after the restart of Postgres.
    let found = async || assert_eq!(api.get(WEB).await.status, 200);
    tokio::join!(found(), found(), found(), found());

    postgres.stop().await;
    let answer = api.get(WEB).await;
    assert_eq!(answer.problem(), "503 store_unavailable");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
    assert!(
        !answer.body.to_string().contains("127.0.0.1"),
        "an answer does not tell the cause: {answer:?}"
    );
    assert_eq!(
        api.send("POST", "/v1/triggers/shop/pause").await.problem(),
        "503 store_unavailable"
    );
    eventually("the api to say that it is not ready", SOON, async || {
        (!api.ctx.health.ready()).then_some(())
    })
    .await;

    postgres.resume().await;
    eventually("an answer", SOON, async || {
        (api.get(WEB).await.status == 200).then_some(())
    })
    .await;
    for _ in 0..20 {
        found().await;
    }
    api.ctx.health.wait_ready().await;
}

#[tokio::test]
async fn the_api_may_start_before_postgres() {
    let postgres = TestPostgres::start().await;
    postgres.stop().await;
    let api = Api::over(&postgres.db()).await;
    assert_eq!(api.get(WEB).await.problem(), "503 store_unavailable");
    assert!(!api.ctx.health.ready());
    postgres.resume().await;
    tokio::time::timeout(SOON, api.ctx.health.wait_ready())
        .await
        .unwrap();
    assert_eq!(api.get(WEB).await.problem(), "404 tag_unknown");
}

#[tokio::test]
async fn a_statement_that_waits_too_long_is_cancelled() {
    let (api, mut rows) = Api::start().await;
    sqlx::query("begin").execute(&mut rows.db).await.unwrap();
    sqlx::query("lock table tag in access exclusive mode")
        .execute(&mut rows.db)
        .await
        .unwrap();
    let asked = Instant::now();
    assert_eq!(api.get(WEB).await.problem(), "503 store_unavailable");
    assert!(
        asked.elapsed() < Duration::from_secs(9),
        "{:?}",
        asked.elapsed()
    );
    sqlx::query("rollback").execute(&mut rows.db).await.unwrap();
    assert_eq!(api.get(WEB).await.problem(), "404 tag_unknown");
}
