//! On a real Postgres.

use sqlx::Connection as _;
use tagtrail_postgres::keep_plans;
use tagtrail_testkit::{busy_tag, postgres, rows_read};

use super::*;

#[tokio::test]
async fn a_push_of_a_tag_reads_few_of_its_revisions() {
    let db = postgres().await;
    let mut sql = db.connect().await;
    let last = busy_tag(&mut sql).await;
    keep_plans(&mut sql, true).await.unwrap();
    let mut tx = sql.begin().await.unwrap();
    let (new, had) = (Digest::sha256_of(b"new"), Digest::sha256_of(b"later 7"));
    let before = rows_read(&mut tx, "revision").await;
    let pushed = BTreeSet::from([(last, &new), (last, &had)]);
    let heads = heads(&mut tx, &[last], &pushed).await.unwrap();
    let first_had: Vec<&Digest> = heads[&last].first_had.keys().collect();
    assert_eq!(first_had, [&had]);
    let read = rows_read(&mut tx, "revision").await - before;
    assert!(read < 10, "{read} revisions read");
}
