//! Streams that lost messages, Postgres from an older backup, and skipped messages: found, repaired
//! and counted.

use sqlx::Connection as _;
use tagtrail_proto::{Event, Kind, Push, Revision};
use tagtrail_testkit::{SOON, TestNats, eventually};

use crate::bench::*;

const IMAGE: &str = "registry.example.com/foo/bar:latest";

/// Pushes of one image and of another repository, each with a new digest.
fn pushes(numbers: std::ops::RangeInclusive<i64>) -> Vec<Push> {
    numbers
        .flat_map(|n| {
            let n_th = u64::try_from(n).unwrap();
            [
                push(IMAGE, n, n_th),
                push(
                    &format!("registry.example.com/foo/other:t{}", n % 3),
                    n,
                    n_th,
                ),
            ]
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_stream_of_revisions_is_filled_again_while_everything_runs() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    send(&nats, pushes(1..=20)).await;
    let mut connection = db.connect().await;
    wait_applied(&mut connection, &nats).await;
    check_published(&mut connection, &nats).await;
    let stream = nats
        .jetstream()
        .await
        .get_stream("REVISIONS")
        .await
        .unwrap();
    stream.purge().await.unwrap();
    // Without a restart.
    check_published(&mut connection, &nats).await;
    send(&nats, pushes(21..=25)).await;
    wait_applied(&mut connection, &nats).await;
    check_published(&mut connection, &nats).await;
    let repaired = indexer.metric("tagtrail_indexer_swept_total{stream=\"REVISIONS\"}");
    assert!(repaired >= 40.0, "{repaired}");
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_pushes_are_read_again() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    apply(&db, &nats, pushes(1..=5)).await;
    // As if the server had skipped messages: they are before the position, but not in Postgres.
    send(&nats, pushes(6..=15)).await;
    let mut connection = db.connect().await;
    sqlx::query(
        "update position set applied_seq = 20, applied_time_ns = null where stream = 'PUSHES'",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let indexer = Indexer::start(db.url(), nats.url());
    send(&nats, [push(IMAGE, 100, 100)]).await;
    eventually("all pushes", SOON, async || {
        let pushes: i64 = sqlx::query_scalar("select count(*) from push")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        (pushes == 31).then_some(())
    })
    .await;
    wait_applied(&mut connection, &nats).await;
    check_published(&mut connection, &nats).await;
    let missed = indexer.metric("tagtrail_indexer_swept_total{stream=\"PUSHES\"}");
    assert_eq!(missed, 10.0, "ten of thirty were skipped");
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_rolled_back_to_an_older_copy_cost_nothing_that_was_applied() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    apply(&db, &nats, pushes(1..=10)).await;
    nats.stop().await;
    nats.back_up();
    nats.resume().await;
    apply(&db, &nats, pushes(11..=20)).await;
    nats.stop().await;
    nats.restore();
    nats.resume().await;
    // Other messages get the sequences of lost ones.
    apply(&db, &nats, pushes(21..=40)).await;
    let stored = stored(&mut db.connect().await).await;
    assert_eq!(stored[IMAGE].len(), 40);
    assert!(
        stored[IMAGE][1..]
            .iter()
            .all(|(_, kind, late)| *kind == Kind::Moved && !late)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_of_postgres_gets_the_same_numbers_again() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    apply(&db, &nats, pushes(1..=10)).await;
    let backup = db.copy().await;
    let mut all = pushes(11..=20);
    // One push is late.
    all.push(push(IMAGE, 5, 500));
    apply(&db, &nats, all).await;
    let before = published(&nats).await;
    let indexer = Indexer::start(backup.url(), nats.url());
    let mut connection = backup.connect().await;
    wait_applied(&mut connection, &nats).await;
    send(&nats, pushes(21..=22)).await;
    wait_applied(&mut connection, &nats).await;
    let stored = stored(&mut connection).await;
    assert_eq!(stored[IMAGE].len(), 23, "one push is late: {stored:#?}");
    assert_eq!(indexer.metric("tagtrail_indexer_adopted_total"), 0.0);
    check_published(&mut connection, &nats).await;
    indexer.stop().await;
    check_same_digests(&before, &nats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_of_postgres_never_gives_a_number_twice_even_without_pushes() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    apply(&db, &nats, pushes(1..=10)).await;
    let backup = db.copy().await;
    let mut all = pushes(11..=20);
    all.push(delete("registry.example.com/foo/other:t0", 30));
    all.push(push("registry.example.com/foo/new:one", 15, 1));
    apply(&db, &nats, all).await;
    let before = published(&nats).await;
    lose_pushes(&nats).await;

    let indexer = Indexer::start(backup.url(), nats.url());
    let mut connection = backup.connect().await;
    let mut news = pushes(41..=42);
    // Changes tags that no push names.
    news.push(delete_repository("registry.example.com/foo/other:any", 50));
    send(&nats, news).await;
    // 22 of the image, 9 + 8 + 9 of the tags of the other repository, and 1 of the new image, which
    // no new push names.
    eventually("all revisions", SOON, async || {
        let count: i64 = sqlx::query_scalar("select count(*) from revision")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        (count == 49).then_some(())
    })
    .await;
    let stored = stored(&mut connection).await;
    assert_eq!(stored[IMAGE].len(), 22);
    assert_eq!(stored["registry.example.com/foo/new:one"].len(), 1);
    for (image, numbers) in &stored {
        let given: Vec<i64> = numbers.iter().map(|(number, ..)| *number).collect();
        let all: Vec<i64> = (1..=i64::try_from(given.len()).unwrap()).collect();
        assert_eq!(given, all, "{image}");
    }
    assert_eq!(indexer.metric("tagtrail_indexer_adopted_total"), 22.0);
    check_published(&mut connection, &nats).await;
    indexer.stop().await;
    check_same_digests(&before, &nats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_keep_the_place_in_revisions_that_they_know() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    // Two partitions have pushes, and the others are idle.
    send(&nats, pushes(1..=20)).await;
    let mut connection = db.connect().await;
    wait_applied(&mut connection, &nats).await;
    check_published(&mut connection, &nats).await;
    wait_known(&mut connection, &nats).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_place_of_a_stream_that_was_rolled_back_and_grew_again_is_not_trusted() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    apply(&db, &nats, pushes(1..=5)).await;
    nats.stop().await;
    nats.back_up();
    nats.resume().await;
    // Each start writes fences, so the places of the backup lie far ahead of the copy of the
    // stream.
    for n in 6..=10 {
        apply(&db, &nats, pushes(n..=n)).await;
    }
    // A process that stops early may leave a partition with the place of an earlier one.
    let indexer = Indexer::start(db.url(), nats.url());
    let mut connection = db.connect().await;
    wait_known(&mut connection, &nats).await;
    connection.close().await.unwrap();
    indexer.stop().await;
    let backup = db.copy().await;
    nats.stop().await;
    nats.restore();
    nats.resume().await;
    // Revisions that the backup lacks get sequences before these places.
    apply(&db, &nats, pushes(11..=40)).await;
    let before = published(&nats).await;
    let mut connection = backup.connect().await;
    let place: i64 = sqlx::query_scalar("select min(known_seq) from position")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let recorded: Vec<i64> = sqlx::query_scalar("select number from revision")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(recorded.len(), 20, "the backup has the first ten rounds");
    let context = nats.jetstream().await;
    let stream = context.get_stream("REVISIONS").await.unwrap();
    let mut unrecorded = 0;
    for sequence in 1..=place.cast_unsigned() {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let event = serde_json::from_slice::<Event<Revision>>(&message.payload);
        // Fences are no events.
        unrecorded += usize::from(event.is_ok_and(|event| event.data.occurred_at > at(10)));
    }
    assert!(unrecorded > 10, "{unrecorded}");
    // PUSHES can't bring the lost revisions back.
    lose_pushes(&nats).await;

    let indexer = Indexer::start(backup.url(), nats.url());
    send(&nats, [push(IMAGE, 41, 41)]).await;
    eventually("all revisions", SOON, async || {
        let count: i64 = sqlx::query_scalar("select count(*) from revision")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        (count == 81).then_some(())
    })
    .await;
    check_published(&mut connection, &nats).await;
    indexer.stop().await;
    check_same_digests(&before, &nats).await;
}

/// Waits until each partition knows the end of REVISIONS.
async fn wait_known(connection: &mut sqlx::PgConnection, nats: &TestNats) {
    let context = nats.jetstream().await;
    eventually("all partitions to know the end", SOON, async || {
        let stream = context.get_stream("REVISIONS").await.unwrap();
        let end = stream.cached_info().state.last_sequence;
        let known: Vec<Option<i64>> = sqlx::query_scalar("select known_seq from position")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let all = usize::from(tagtrail_proto::PARTITIONS);
        (known.len() == all && known.iter().all(|seq| *seq == Some(end.cast_signed())))
            .then_some(())
    })
    .await;
}

/// Replaces PUSHES by an empty stream, so that lost pushes can't be read again.
async fn lose_pushes(nats: &TestNats) {
    let context = nats.jetstream().await;
    let config = context.get_stream("PUSHES").await.unwrap();
    let config = config.cached_info().config.clone();
    context.delete_stream("PUSHES").await.unwrap();
    context.create_stream(config).await.unwrap();
}

/// Checks that revisions published again equal the first copies.
async fn check_same_digests(before: &[Revision], nats: &TestNats) {
    for now in published(nats).await {
        let then = before.iter().find(|old| old.id() == now.id());
        if let Some(old) = then {
            assert_eq!(
                (&old.digest, old.occurred_at),
                (&now.digest, now.occurred_at),
                "{}",
                old.id()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_that_the_server_forgot_are_published_again() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    apply(&db, &nats, pushes(1..=40)).await;
    let before = nats.messages("REVISIONS").await.len();
    nats.lose_end_of("REVISIONS").await;
    let after = nats.messages("REVISIONS").await.len();
    assert!(after < before, "{after} of {before} messages are left");
    // Compares REVISIONS with history.
    apply(&db, &nats, pushes(41..=44)).await;
}
