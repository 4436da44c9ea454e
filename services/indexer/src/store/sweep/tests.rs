//! On a real Postgres.

use sqlx::Connection as _;
use tagtrail_testkit::{postgres, rows_read};

use super::*;

#[tokio::test]
async fn a_page_of_tags_reads_no_published_revisions() {
    let db = postgres().await;
    let mut sql = db.connect().await;
    sqlx::raw_sql(
        "insert into repository (registry, name) values ('registry.example.com', 'shop/web');
         insert into tag (repository_id, name, issued) select r.id, 'v' || n, 1 from repository r, generate_series(1, 20000) n;
         insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, head, push_id, partition, ordinal)
         select id, 1, 'created', sha256(name::bytea), now(), now(), 1, id, id % 8, 1 + row_number() over (partition by id % 8 order by id)
         from tag;
         insert into position (stream, partition, published)
         select 'PUSHES', partition, max(ordinal) - 1 from revision group by partition;
         analyze",
    )
    .execute(&mut sql)
    .await
    .unwrap();
    let mut tx = sql.begin().await.unwrap();
    let last: i64 = sqlx::query_scalar("select max(id) from tag")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let before = rows_read(&mut tx, "revision").await;
    let page = published_tags(&mut tx, last - 100, 256).await.unwrap();
    // The last revision of each partition is on its way.
    let ids: Vec<i64> = page.iter().map(|tag| tag.tag_id).collect();
    assert_eq!(ids, (last - 99..=last - 8).collect::<Vec<_>>());
    let read = rows_read(&mut tx, "revision").await - before;
    assert!(read < 100, "{read} revisions read");
}
