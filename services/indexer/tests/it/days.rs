//! Changes by repository and day, and numbers of tags and of the newest changes.

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

/// The numbers of tags and of the newest changes by a direct count.
const STATS_DIRECT: &str =
    "with t as (select *, name ~ '^sha(256|512)-[0-9a-f]{64}([.].+)?$' as signature from tag where head is not null),
     v as (select t.repository_id, v.push_id, extract(epoch from v.recorded_at)::numeric as at from revision v join t on t.id = v.tag_id where not t.signature)
     select format('tags %s %s %s %s', repository_id, count(*), count(*) filter (where head_digest is not null and not signature),
                   count(*) filter (where head_digest is not null and signature)) as line
     from t group by repository_id
     union all select format('half hour %s %s %s %s', floor(at / 1800), repository_id, count(*), max(push_id)) from v group by floor(at / 1800), repository_id
     union all select format('minute %s %s', floor(at / 60), count(*)) from v group by floor(at / 60)
     order by 1";
const STATS: &str =
    "select format('tags %s %s %s %s', repository_id, known, tags, signatures) as line from tag_stats
     union all select format('half hour %s %s %s %s', half_hour, repository_id, changes, push_id) from half_hour_stats
     union all select format('minute %s %s', minute, changes) from minute_stats
     order by 1";

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

async fn wait_equal(db: &mut PgConnection) {
    eventually(
        "the numbers of tags and of the newest changes to equal a direct count",
        SOON,
        async || {
            let counted = lines(&mut *db, STATS).await;
            let expected = lines(&mut *db, STATS_DIRECT).await;
            (!counted.is_empty() && counted == expected).then_some(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_the_newest_changes_are_counted_also_deletions_and_late_news() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    let mut connection = db.connect().await;
    let signature = format!("r.example.com/shop/web:sha256-{}.sig", "ab".repeat(32));
    // Each in a batch of its own or not: the numbers are the same.
    for pushes in [
        vec![
            push("r.example.com/shop/web:a", 10, 1),
            push("r.example.com/shop/web:b", 20, 1),
            push("r.example.com/shop/api:a", 30, 1),
            push(&signature, 30, 1),
        ],
        vec![delete("r.example.com/shop/web:a", 40)],
        // Late news about a tag that is deleted.
        vec![push("r.example.com/shop/web:a", 15, 2)],
        vec![
            push("r.example.com/shop/web:a", 50, 3),
            delete("r.example.com/shop/web:b", 60),
            push("r.example.com/shop/web:b", 70, 4),
            delete("r.example.com/shop/api:a", 80),
            delete(&signature, 80),
        ],
    ] {
        send(&nats, pushes).await;
        wait_applied(&mut connection, &nats).await;
        wait_equal(&mut connection).await;
    }
    let tags: Vec<String> = lines(
        &mut connection,
        "select format('%s %s %s', known, tags, signatures) from tag_stats order by 1",
    )
    .await;
    assert_eq!(tags, ["1 0 0", "3 2 0"]);
    // Emptied together, the tables are filled again. Numbers of three days ago go away.
    sqlx::raw_sql(
        "truncate tag_stats, half_hour_stats, minute_stats, stats_position;
         insert into minute_stats (minute, changes) values (1, 1);
         insert into half_hour_stats (half_hour, repository_id, changes, push_id) values (1, 1, 1, 1)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    wait_equal(&mut connection).await;
    indexer.stop().await;
}
