//! Postgres and REVISIONS have the revisions of the rule of history.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use sqlx::Row as _;
use tagtrail_postgres::Lock;
use tagtrail_proto::{Action, Kind, Push, Scope, TimeSource};
use tagtrail_testkit::{SOON, TestNats, eventually};
use time::OffsetDateTime;

use crate::bench::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_push_becomes_a_numbered_revision_in_the_store_and_on_the_bus() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    send(
        &nats,
        [
            push("registry.example.com/foo/bar:latest", 1, 1),
            push("registry.example.com/foo/bar:latest", 2, 2),
            push("registry.example.com/foo/bar:latest", 3, 1),
        ],
    )
    .await;
    let published = wait_published(&nats, 3).await;
    assert_eq!(
        published
            .iter()
            .map(|revision| (revision.revision, revision.kind))
            .collect::<Vec<_>>(),
        [(1, Kind::Created), (2, Kind::Moved), (3, Kind::Reverted)]
    );
    let last = &published[2];
    assert_eq!(last.previous.as_ref().unwrap().revision, 2);
    assert_eq!(last.head.revision, 3);
    assert_eq!(
        last.pinned.as_ref().unwrap().to_string(),
        format!("registry.example.com/foo/bar@{}", digest(1))
    );
    assert_eq!(
        (last.actor.as_deref(), last.size, last.source.as_str()),
        (Some("ci-bot"), Some(1), "main")
    );
    check_published(&mut db.connect().await, &nats).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_moves_from_its_second_revision_on() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let mut connection = db.connect().await;
    // Nobody counts in the background: the tags come from the recording alone.
    assert!(Lock::Coverage.try_acquire(&mut connection).await.unwrap());
    let image = |tag: &str| format!("registry.example.com/foo/bar:{tag}");
    apply(
        &db,
        &nats,
        vec![
            push(&image("once"), 1, 1),
            push(&image("same"), 1, 1),
            push(&image("same"), 2, 1),
            push(&image("moved"), 1, 1),
            push(&image("moved"), 2, 2),
            push(&image("moved"), 3, 3),
            push(&image("gone"), 1, 1),
            delete(&image("gone"), 2),
        ],
    )
    .await;
    // The next push of a tag that is recorded already.
    apply(&db, &nats, vec![push(&image("once"), 10, 2)]).await;
    let moving: Vec<String> = sqlx::query_scalar(
        "select t.name from moving m join tag t on t.id = m.tag_id and t.repository_id = m.repository_id order by t.name",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(moving, ["gone", "moved", "once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_push_reads_its_neighbours_alone() {
    const FACTS: i64 = 20_000;
    const LATE: i64 = 200;
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let name = "registry.example.com/foo/bar:latest";
    apply(&db, &nats, vec![push(name, 0, 1)]).await;
    // Each tenth counts from its receipt, half a minute before the time that it names.
    let mut connection = db.connect().await;
    sqlx::query(
        "insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin,
                           source, event_id, stream_seq)
         select p.tag_id, p.action, p.digest, p.occurred_at + 2 * n * interval '1 second' + ahead.by, p.occurred_at + 2 * n * interval '1 second',
                p.occurred_at_source, p.received_at, p.recorded_at - interval '1 day', p.origin, p.source, 'event ' || n, 0
         from push p cross join generate_series(1, $1) as n
         cross join lateral (select case when n % 10 = 0 then interval '30.5 seconds' else '0' end as by) ahead",
    )
    .bind(FACTS)
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::query("update tag set latest_at = (select max(effective_at) from push)")
        .execute(&mut connection)
        .await
        .unwrap();
    let before = rows_read(&mut connection).await;
    let late = (0..LATE).map(|n| push(name, 10 * n + 1, 1));
    apply(&db, &nats, late.collect()).await;
    let read = rows_read(&mut connection).await - before;
    // A handful for each late push, and all facts a few times, by the sweeper and the counts of
    // events.
    assert!(read < 10 * FACTS, "{read} rows of push were read");
    check_published(&mut connection, &nats).await;
}

/// Returns the number of rows of pushes that statements of ended sessions read.
async fn rows_read(db: &mut sqlx::PgConnection) -> i64 {
    sqlx::query_scalar(
        "select (seq_tup_read + (select sum(idx_tup_read) from pg_stat_user_indexes where relname = 'push'))::bigint
         from pg_stat_user_tables where relname = 'push'",
    )
    .fetch_one(db)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_can_not_be_rewritten_even_by_its_owner() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    send(&nats, [push("registry.example.com/foo/bar:latest", 1, 1)]).await;
    wait_published(&nats, 1).await;
    let mut db = db.connect().await;
    for statement in [
        "update push set actor = 'me'",
        "delete from push",
        "truncate push",
        "update revision set number = 7",
        "delete from revision",
        "truncate revision",
    ] {
        let error = sqlx::query(statement)
            .execute(&mut db)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("history is append-only"),
            "{statement}: {error}"
        );
    }
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_message_is_quarantined_and_does_not_stop_the_rest() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    for partition in 0..8 {
        nats.jetstream()
            .await
            .publish(format!("tagtrail.push.{partition}.a%2Eb.c.d"), "{}".into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    send(&nats, [push("registry.example.com/foo/bar:latest", 1, 1)]).await;
    wait_published(&nats, 1).await;
    eventually("the message in QUARANTINE", SOON, async || {
        (!nats.messages("QUARANTINE").await.is_empty()).then_some(())
    })
    .await;
    indexer.stop().await;
}

/// Compares the tables `revision` and `tag` with a fold of all pushes of each tag.
async fn compare_with_the_pushes(db: &mut sqlx::PgConnection) {
    let tags =
        sqlx::query("select t.id, t.repository_id, t.head, t.head_digest, t.issued from tag t")
            .fetch_all(&mut *db)
            .await
            .unwrap();
    for tag in tags {
        let id: i64 = tag.get(0);
        let pushes = sqlx::query(
            "select effective_at, received_at, digest, action::text, tag_id is null from push
             where tag_id = $1 or repository_id = $2 order by effective_at, received_at, digest nulls first, tag_id is null",
        )
        .bind(id)
        .bind(tag.get::<i64, _>(1))
        .fetch_all(&mut *db)
        .await
        .unwrap();
        // The digest of the tag at the end of each instant, by a fold of the pushes.
        let mut timeline = BTreeMap::new();
        let mut state: Option<Vec<u8>> = None;
        for push in &pushes {
            let digest: Option<Vec<u8>> = push.get(2);
            state = match (push.get::<&str, _>(3), push.get::<bool, _>(4)) {
                ("push", _) => digest,
                (_, true) if digest.is_some() && digest != state => state,
                _ => None,
            };
            timeline.insert(push.get::<time::OffsetDateTime, _>(0), state.clone());
        }
        for (instant, expected) in &timeline {
            let said: Option<Option<Vec<u8>>> =
                sqlx::query_scalar("select digest from revision where tag_id = $1 and effective_at <= $2 order by effective_at desc, number desc limit 1")
                    .bind(id)
                    .bind(instant)
                    .fetch_optional(&mut *db)
                    .await
                    .unwrap();
            assert_eq!(&said.flatten(), expected, "tag {id} at {instant}");
        }
        assert_eq!(tag.get::<Option<Vec<u8>>, _>(3), state, "head of tag {id}");
        let numbers: Vec<i64> =
            sqlx::query_scalar("select number from revision where tag_id = $1 order by number")
                .bind(id)
                .fetch_all(&mut *db)
                .await
                .unwrap();
        assert_eq!(
            numbers,
            (1..=tag.get::<i64, _>(4)).collect::<Vec<_>>(),
            "numbers of tag {id} have no gap"
        );
    }
    let differ: i64 = sqlx::query_scalar(
        "select count(*) from tag t full join moving m on m.tag_id = t.id and m.repository_id = t.repository_id
         where (coalesce(t.issued, 0) > 1) <> (m.tag_id is not null)",
    )
    .fetch_one(&mut *db)
    .await
    .unwrap();
    assert_eq!(differ, 0, "moving has the tags with two revisions or more");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_pushes_in_any_order_are_recorded_by_the_rule() {
    let push = (0..3_usize, 0..3_usize, 0..40_i64, 0..4_u64, 0..20_u8).prop_map(
        |(repository, tag, second, n, what)| {
            let name = format!("registry.example.com/random/r{repository}:t{tag}");
            match what {
                0 => delete_repository(&name, second),
                1..4 => delete_digest(&name, second, n),
                4..7 => delete(&name, second),
                _ => push(&name, second, n),
            }
        },
    );
    recorded_by_the_rule(push).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_of_clocks_that_run_ahead_are_recorded_by_the_rule() {
    let now = OffsetDateTime::now_utc();
    let push =
        (0..12_usize, 0..60_i64, 0..4_u64, 0..20_u8).prop_map(move |(tag, step, n, what)| {
            let name = format!("registry.example.com/ahead/r{}:t{tag}", tag % 2);
            let made = match what {
                0 => delete_repository(&name, 0),
                1..3 => delete_digest(&name, 0, n),
                3..5 => delete(&name, 0),
                _ => push(&name, 0, n),
            };
            let (occurred_at, occurred_at_source) = match what % 4 {
                // The gateway has a clock that is ahead: the push counts from its receipt.
                0 => (
                    now + Duration::from_secs(3600) + Duration::from_millis(step.unsigned_abs()),
                    TimeSource::Received,
                ),
                // The clock of the sender is wrong by far more than is believed.
                1 => (
                    now + Duration::from_secs(7200) + Duration::from_millis(step.unsigned_abs()),
                    TimeSource::Event,
                ),
                // Around the receipt of the others, and up to three seconds ahead.
                _ => (
                    now + Duration::from_millis(50 * step.unsigned_abs()),
                    TimeSource::Event,
                ),
            };
            Push {
                occurred_at,
                occurred_at_source,
                ..made
            }
        });
    recorded_by_the_rule(push).await;
}

/// Sends pushes at random to an indexer, and compares history with the rule.
async fn recorded_by_the_rule(push: impl Strategy<Value = Push>) {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let url = db.url();
    let indexer = Indexer::start(url, nats.url());
    indexer.ctx.health.wait_ready().await;
    // With repeats, and in bursts, so that batches have many pushes of one tag, on time and late.
    let pushes = prop::collection::vec((push, any::<bool>()), 600..=600);
    let mut runner = TestRunner::new(Config::default());
    let pushes: Vec<Push> = pushes
        .new_tree(&mut runner)
        .unwrap()
        .current()
        .into_iter()
        .flat_map(|(push, twice)| std::iter::repeat_n(push, if twice { 2 } else { 1 }))
        .collect();
    assert!(
        pushes.iter().any(|push| push.scope == Scope::Digest)
            && pushes.iter().any(|push| push.action == Action::Delete)
    );
    for burst in pushes.chunks(50) {
        send(&nats, burst.to_vec()).await;
    }
    let mut db = db.connect().await;
    wait_applied(&mut db, &nats).await;
    compare_with_the_pushes(&mut db).await;
    check_published(&mut db, &nats).await;
    // Reading everything again from the start changes nothing.
    let before = stored(&mut db).await;
    indexer.stop().await;
    sqlx::query("update position set applied_seq = 0, applied_time_ns = null")
        .execute(&mut db)
        .await
        .unwrap();
    let indexer = Indexer::start(url, nats.url());
    wait_applied(&mut db, &nats).await;
    assert_eq!(stored(&mut db).await, before);
    check_published(&mut db, &nats).await;
    indexer.stop().await;
}
