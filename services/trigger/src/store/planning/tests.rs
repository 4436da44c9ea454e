//! On a real Postgres.

use sqlx::Connection as _;
use tagtrail_postgres::keep_plans;
use tagtrail_testkit::{busy_tag, postgres, rows_read};

use super::*;

#[tokio::test]
async fn a_decision_about_a_tag_reads_few_of_its_revisions() {
    let db = postgres().await;
    let mut sql = db.connect().await;
    busy_tag(&mut sql).await;
    keep_plans(&mut sql, true).await.unwrap();
    let mut tx = sql.begin().await.unwrap();
    let image: Image = "registry.example.com/shop/web:v20000".parse().unwrap();
    let before = rows_read(&mut tx, "revision").await;
    let heads = heads(&mut tx, &[&image]).await.unwrap();
    assert!(!heads[&image].held_before);
    let read = rows_read(&mut tx, "revision").await - before;
    assert!(read < 10, "{read} revisions read");
}
