//! Partitions that move to other streams of pushes while pushes arrive.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use sqlx::PgConnection;
use tagtrail_bus::{Bus, BusArgs};
use tagtrail_proto::{Push, Subject};
use tagtrail_testkit::{TestNats, eventually};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bench::*;

/// A process looks for the present streams every 10 s; a busy machine needs longer.
const READ: Duration = Duration::from_secs(180);

/// Sends pushes of many repositories, each until it is acknowledged, as a registry does. They are
/// so many that REVISIONS, which keeps 100 revisions of an image, drops none.
async fn keep_sending(nats: Arc<TestNats>, sent: Arc<AtomicI64>, ended: Arc<AtomicBool>) {
    let jetstream = nats.jetstream().await;
    while !ended.load(Ordering::Relaxed) {
        let number = sent.load(Ordering::Relaxed);
        let name = format!("registry.example.com/foo/r{}:latest", number % 480);
        let push = push(&name, number, u64::try_from(number).unwrap());
        let subject = Subject::of_push(&push, 8);
        let id = push.message_id();
        let body = serde_json::to_vec(&push.event()).unwrap();
        let message = PublishMessage::build().message_id(id).payload(body.into());
        let stored = async {
            jetstream
                .send_publish(subject.to_string(), message)
                .await?
                .await
        };
        if stored.await.is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Moves the partitions, and waits until all of them are read from their new streams.
async fn move_to(streams: u16, bus: &Bus, db: &mut PgConnection) {
    let sources = tagtrail_postgres::position::sources(db).await.unwrap();
    bus.move_pushes(streams, &sources).await.unwrap();
    wait_moved(streams, db).await;
}

async fn wait_moved(streams: u16, db: &mut PgConnection) {
    eventually(&format!("{streams} streams to be read"), READ, async || {
        let sources = tagtrail_postgres::position::sources(db).await.unwrap();
        (0..8)
            .all(|partition| match sources.get(&partition) {
                Some(source) => streams > 1 && *source == format!("PUSHES_{}", partition % streams),
                None => streams == 1,
            })
            .then_some(())
    })
    .await;
}

/// Sets the positions as if the partitions had been read to the end of the streams they have left.
async fn skip_to(streams: u16, db: &mut PgConnection) {
    sqlx::query(
        "insert into position (stream, partition, source) select 'PUSHES', n, 'PUSHES_' || n % $1 from generate_series(0, 7) n
         on conflict (stream, partition) do update set source = excluded.source, stream_created_ns = null, applied_seq = 0, applied_time_ns = null",
    )
    .bind(i32::from(streams))
    .execute(db)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_arrive_while_partitions_move_are_in_history_once() {
    let (db, nats) = (
        tagtrail_testkit::postgres().await,
        Arc::new(TestNats::start().await),
    );
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    let (sent, ended) = (
        Arc::new(AtomicI64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut sending = JoinSet::new();
    sending.spawn(keep_sending(
        Arc::clone(&nats),
        Arc::clone(&sent),
        Arc::clone(&ended),
    ));
    let stop = CancellationToken::new();
    let bus = Bus::connect(&BusArgs::new(nats.url()), "test", &stop).await;
    let (bus, mut connection) = (bus.unwrap(), db.connect().await);

    move_to(3, &bus, &mut connection).await;
    // While no indexer runs, and again before the old streams are read.
    indexer.stop().await;
    let sources = tagtrail_postgres::position::sources(&mut connection).await;
    let sources = sources.unwrap();
    bus.move_pushes(8, &sources).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let refused = bus.move_pushes(1, &sources).await.unwrap_err().to_string();
    assert!(refused.contains("let the indexers run"), "{refused}");
    let indexer = Indexer::start(db.url(), nats.url());
    wait_moved(8, &mut connection).await;
    // The streams that the partitions have left need not stay.
    nats.jetstream()
        .await
        .delete_stream("PUSHES")
        .await
        .unwrap();
    move_to(1, &bus, &mut connection).await;

    ended.store(true, Ordering::Relaxed);
    sending.join_all().await;
    wait_applied(&mut connection, &nats).await;
    let (pushes, distinct): (i64, i64) =
        sqlx::query_as("select count(*), count(distinct occurred_at) from push")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    let sent = sent.load(Ordering::Relaxed);
    assert_eq!((pushes, distinct), (sent, sent));
    check_published(&mut connection, &nats).await;
    let late = "select count(*) from revision where late";
    let late: i64 = sqlx::query_scalar(late)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(late, 0, "pushes of a repository changed their order");
    let missed = indexer.metric("tagtrail_indexer_swept_total{stream=\"PUSHES\"}");
    assert_eq!(missed, 0.0, "the sweeper found skipped pushes");
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_were_skipped_in_a_stream_that_the_partition_left_are_read_again() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    indexer.stop().await;
    send(&nats, [push("registry.example.com/foo/bar:latest", 1, 1)]).await;
    let stop = CancellationToken::new();
    let bus = Bus::connect(&BusArgs::new(nats.url()), "test", &stop)
        .await
        .unwrap();
    bus.move_pushes(8, &HashMap::new()).await.unwrap();
    let mut connection = db.connect().await;
    skip_to(8, &mut connection).await;
    let indexer = Indexer::start(db.url(), nats.url());
    send(&nats, [push("registry.example.com/foo/bar:latest", 2, 2)]).await;
    wait_published(&nats, 2).await;
    wait_moved(8, &mut connection).await;
    assert_eq!(
        stored(&mut connection).await["registry.example.com/foo/bar:latest"].len(),
        2
    );
    let missed = indexer.metric("tagtrail_indexer_swept_total{stream=\"PUSHES\"}");
    assert_eq!(missed, 1.0);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_were_skipped_in_two_streams_are_read_again_from_each() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    indexer.stop().await;
    // Its partition is in PUSHES, then in one of two streams, then in a third one.
    let pushes = |second| {
        let names = (0..).map(|number| format!("registry.example.com/foo/r{number}:latest"));
        let mut pushes = names.map(|name| push(&name, second, second.unsigned_abs()));
        let of = |push: &Push| match Subject::of_push(push, 8) {
            Subject::Push { partition, .. } => partition,
            other => panic!("{other}"),
        };
        pushes.find(|push| of(push) >= 2)
    };
    let stop = CancellationToken::new();
    let bus = Bus::connect(&BusArgs::new(nats.url()), "test", &stop).await;
    let bus = bus.unwrap();
    let mut connection = db.connect().await;
    send(&nats, pushes(1)).await;
    for streams in [2, 8] {
        let sources = tagtrail_postgres::position::sources(&mut connection).await;
        bus.move_pushes(streams, &sources.unwrap()).await.unwrap();
        send(&nats, pushes(i64::from(streams))).await;
        skip_to(streams, &mut connection).await;
    }
    // The last stream is read as usual.
    sqlx::query("update sweep set done_at = null")
        .execute(&mut connection)
        .await
        .unwrap();
    let indexer = Indexer::start(db.url(), nats.url());
    eventually("three pushes", READ, async || {
        let count: i64 = sqlx::query_scalar("select count(*) from push")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        (count == 3).then_some(())
    })
    .await;
    let missed = indexer.metric("tagtrail_indexer_swept_total{stream=\"PUSHES\"}");
    assert_eq!(missed, 2.0);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_the_server_stores_after_their_partition_moved_are_read() {
    const PUSHES: i64 = 4000;
    let (db, folder) = (
        tagtrail_testkit::postgres().await,
        tempfile::TempDir::new().unwrap(),
    );
    let nats = TestNats::start_in(folder.path(), true).await;
    let stop = CancellationToken::new();
    let bus = Bus::connect(&BusArgs::new(nats.url()), "test", &stop).await;
    let (bus, jetstream) = (bus.unwrap(), nats.jetstream().await);
    let mut sent = Vec::new();
    for number in 0..PUSHES {
        let name = format!("registry.example.com/foo/bar:t{}", number % 200);
        let push = push(&name, number, number.unsigned_abs());
        let subject = Subject::of_push(&push, 8);
        let body = serde_json::to_vec(&push.event()).unwrap();
        let sending = jetstream.publish(subject.to_string(), body.into());
        sent.push(sending.await.unwrap());
    }
    bus.move_pushes(8, &HashMap::new()).await.unwrap();
    let (indexer, began) = (
        Indexer::start(db.url(), nats.url()),
        tokio::time::Instant::now(),
    );
    let mut connection = db.connect().await;
    wait_moved(8, &mut connection).await;
    // A fast disk stores the queue before the indexer looks; publishers wait up to 10 s.
    assert!(began.elapsed() >= Duration::from_secs(10));
    let stored = nats.messages("PUSHES").await.len();
    let count: i64 = sqlx::query_scalar("select count(*) from push")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(usize::try_from(count).unwrap(), stored);
    let missed = indexer.metric("tagtrail_indexer_swept_total{stream=\"PUSHES\"}");
    assert_eq!(missed, 0.0);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_from_before_a_move_reads_the_streams_in_order_and_adopts_nothing() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let pushes = |seconds: std::ops::RangeInclusive<i64>| {
        seconds.map(|second| {
            let name = format!("registry.example.com/foo/r{}:latest", second % 8);
            push(&name, second, second.unsigned_abs())
        })
    };
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    send(&nats, pushes(1..=20)).await;
    wait_published(&nats, 20).await;
    indexer.stop().await;
    let backup = db.copy().await;
    let stop = CancellationToken::new();
    let bus = Bus::connect(&BusArgs::new(nats.url()), "test", &stop).await;
    let (bus, mut connection) = (bus.unwrap(), db.connect().await);
    let indexer = Indexer::start(db.url(), nats.url());
    move_to(8, &bus, &mut connection).await;
    send(&nats, pushes(21..=40)).await;
    wait_published(&nats, 40).await;
    indexer.stop().await;
    let before = published(&nats).await;

    let indexer = Indexer::start(backup.url(), nats.url());
    let mut connection = backup.connect().await;
    wait_moved(8, &mut connection).await;
    send(&nats, pushes(41..=48)).await;
    wait_published(&nats, 48).await;
    check_published(&mut connection, &nats).await;
    assert_eq!(published(&nats).await[..40], before);
    assert_eq!(indexer.metric("tagtrail_indexer_adopted_total"), 0.0);
    indexer.stop().await;
}
