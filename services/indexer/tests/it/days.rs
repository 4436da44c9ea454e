//! Changes by repository and day.

use sqlx::PgConnection;
use tagtrail_testkit::{SOON, TestNats, eventually};

use crate::bench::*;

const DAY: i64 = 24 * 3600;

/// The numbers by a direct count: repository, day, changes, tags, changes back.
const DIRECT: &str =
    "select format('%s %s %s %s %s', t.repository_id, (v.effective_at at time zone 'utc')::date, count(*), count(distinct v.tag_id),
            count(*) filter (where v.kind = 'reverted'))
     from revision v join tag t on t.id = v.tag_id
     where t.name !~ '^sha(256|512)-[0-9a-f]{64}([.].+)?$' group by t.repository_id, (v.effective_at at time zone 'utc')::date order by 1";
const COUNTED: &str = "select format('%s %s %s %s %s', repository_id, day, changes, tags, reverted) from day_stats order by 1";

async fn lines(db: &mut PgConnection, statement: &'static str) -> Vec<String> {
    sqlx::query_scalar(statement).fetch_all(db).await.unwrap()
}

async fn wait_counted(db: &mut PgConnection) -> Vec<String> {
    let mut counted = Vec::new();
    eventually(
        "the numbers by day to equal a direct count",
        SOON,
        async || {
            counted = lines(&mut *db, COUNTED).await;
            let expected = lines(&mut *db, DIRECT).await;
            (!counted.is_empty() && counted == expected).then_some(())
        },
    )
    .await;
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_counted_by_day_also_late_ones_and_after_an_upgrade() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    let mut connection = db.connect().await;
    let signature = format!("r.example.com/shop/web:sha256-{}.sig", "ab".repeat(32));
    send(
        &nats,
        [
            push("r.example.com/shop/web:a", 10, 1),
            push("r.example.com/shop/web:a", 20, 2),
            push("r.example.com/shop/web:a", 2 * DAY, 1),
            push("r.example.com/shop/web:b", 30, 1),
            push("r.example.com/shop/api:a", 30, 1),
            push(&signature, 30, 1),
        ],
    )
    .await;
    wait_applied(&mut connection, &nats).await;
    let counted = wait_counted(&mut connection).await;
    assert_eq!(counted.len(), 3, "{counted:?}");
    // Late news of the first day, in a batch of its own: the tag was counted on that day.
    send(
        &nats,
        [
            push("r.example.com/shop/web:a", 15, 3),
            push("r.example.com/shop/web:a", DAY, 4),
        ],
    )
    .await;
    wait_applied(&mut connection, &nats).await;
    let counted = wait_counted(&mut connection).await;
    assert_eq!(counted.len(), 4, "{counted:?}");
    // A database of a version without numbers, and without the tags that move.
    sqlx::raw_sql("truncate day_stats, day_stats_position, moving")
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(wait_counted(&mut connection).await, counted);
    let moving: i64 = sqlx::query_scalar("select count(*) from moving")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(moving, 1);
    indexer.stop().await;
}
