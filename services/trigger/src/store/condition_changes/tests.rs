//! On a real Postgres.

use sqlx::{AssertSqlSafe, PgConnection};
use tagtrail_proto::{Condition, Reason, ReasonCode};

use super::*;
use crate::store::ledger::mark_published;
use tagtrail_condition::changes::{self, Changes, Which};

async fn run(db: &mut PgConnection, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(db).await.unwrap();
}

/// Records the condition of the trigger. Returns whether it is the last recorded one now.
async fn record_one(db: &mut PgConnection, condition: Condition) -> bool {
    let standing = Standing {
        id: 1,
        condition,
        reasons: vec![Reason::new(ReasonCode::Broken, "line 3".to_owned())],
    };
    let recorded = record(db, &[standing]).await.unwrap();
    recorded == [(1, condition)]
}

/// The recorded conditions, in order.
async fn all(db: &mut PgConnection) -> Vec<(Option<String>, String)> {
    sqlx::query_as("select before, condition from condition_change order by ordinal")
        .fetch_all(db)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_condition_that_flaps_is_told_seldom_and_the_last_one_always() {
    let db = tagtrail_testkit::postgres().await;
    let mut sql = db.connect().await;
    run(
        &mut sql,
        "insert into trigger (name, images, target) values ('shop', '{}', 'webhook')",
    )
    .await;
    use Condition::{Broken, Removed, Settled};
    assert!(record_one(&mut sql, Settled).await);
    for flap in 0..20 {
        let recorded = record_one(&mut sql, Broken).await;
        assert_eq!(recorded, flap < 3, "{flap}");
        record_one(&mut sql, Settled).await;
    }
    assert_eq!(all(&mut sql).await.len(), 7);
    // A change of another kind is not held back.
    assert!(record_one(&mut sql, Condition::Paused).await);
    assert!(record_one(&mut sql, Settled).await);
    let earlier = |minutes: u32| {
        format!(
            "update condition_change set changed_at = changed_at - interval '{minutes} minutes'"
        )
    };
    run(&mut sql, &earlier(9)).await;
    assert!(!record_one(&mut sql, Broken).await);
    run(&mut sql, &earlier(2)).await;
    assert!(record_one(&mut sql, Broken).await);
    // Nothing changes: nothing is recorded.
    assert!(record_one(&mut sql, Broken).await);
    assert_eq!(all(&mut sql).await.len(), 10);

    run(&mut sql, "update trigger set configured = false").await;
    assert_eq!(record(&mut sql, &[]).await.unwrap(), [(1, Removed)]);
    assert_eq!(record(&mut sql, &[]).await.unwrap(), [(1, Removed)]);
    let last = (Some("broken".to_owned()), "removed".to_owned());
    assert_eq!(all(&mut sql).await.last(), Some(&last));

    // Old records go, the last one and those that were not published stay.
    let unpublished = changes::conditions(&mut sql, Which::Unpublished)
        .await
        .unwrap();
    assert_eq!(unpublished.len(), 11);
    assert_eq!(
        unpublished[0].object.as_ref().unwrap().reasons[0].why,
        "line 3"
    );
    let ordinals: Vec<i64> = unpublished.iter().map(|one| one.ordinal).collect();
    mark_published(&mut sql, Changes::Conditions, &ordinals[1..])
        .await
        .unwrap();
    run(&mut sql, &earlier(31 * 24 * 60)).await;
    forget_old(&mut sql).await.unwrap();
    let left = [(None, "settled".to_owned()), last];
    assert_eq!(all(&mut sql).await, left);
}

#[tokio::test]
async fn two_processes_that_look_at_once_record_one_change() {
    let db = tagtrail_testkit::postgres().await;
    let (mut one, mut other) = (db.connect().await, db.connect().await);
    run(
        &mut one,
        "insert into trigger (name, images, target) values ('shop', '{}', 'webhook')",
    )
    .await;
    run(&mut one, "begin").await;
    assert!(record_one(&mut one, Condition::Broken).await);
    let (recorded, ()) = tokio::join!(record_one(&mut other, Condition::Broken), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        run(&mut one, "commit").await;
    });
    assert!(!recorded);
    assert!(record_one(&mut other, Condition::Broken).await);
    assert_eq!(all(&mut one).await.len(), 1);
}
