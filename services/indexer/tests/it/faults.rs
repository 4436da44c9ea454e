//! Crashes, pauses and outages at the worst moments: nothing is lost, repeated or out of order.

use std::time::Duration;

use tagtrail_postgres::{DbArgs, Lock};
use tagtrail_proto::Push;
use tagtrail_testkit::{Process, SOON, TestDb, TestNats, TestPostgres, eventually};

use crate::bench::*;

/// An indexer in a process of its own, for kills and pauses.
fn process(db: &TestDb, nats: &TestNats) -> Process {
    let environment = [
        ("DATABASE_URL", db.url()),
        ("NATS_URL", nats.url()),
        ("TAGTRAIL_SESSION_SECONDS", "2"),
    ];
    Process::tagtrail(&["indexer", "--admin", "127.0.0.1:0"], &environment)
}

/// Pushes to many tags, each of which changes its tag.
fn pushes(round: i64) -> Vec<Push> {
    (0..400)
        .map(|n| {
            push(
                &format!("registry.example.com/load/r{}:t{}", n % 7, n % 20),
                round * 1000 + n,
                u64::try_from(round * 1000 + n).unwrap(),
            )
        })
        .collect()
}

async fn recorded(db: &mut sqlx::PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from revision")
        .fetch_one(db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_but_unpublished_revisions_are_published_by_the_next_holder() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let mut first = process(&db, &nats);
    send_when_ready(&nats, [push("registry.example.com/foo/bar:latest", 1, 1)]).await;
    wait_published(&nats, 1).await;

    // Hold the transaction just before its end, to pause NATS between the read and the commit.
    let mut blocker = db.connect().await;
    sqlx::raw_sql("begin; lock table revision in exclusive mode")
        .execute(&mut blocker)
        .await
        .unwrap();
    send(
        &nats,
        [
            push("registry.example.com/foo/bar:latest", 2, 2),
            push("registry.example.com/foo/bar:latest", 3, 3),
        ],
    )
    .await;
    let mut db_watch = db.connect().await;
    eventually("the indexer to wait for the lock", SOON, async || {
        // Only this database: other tests share the server.
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_locks l join pg_stat_activity a using (pid)
             where not l.granted and a.datname = current_database() and a.application_name = 'tagtrail-indexer'",
        )
        .fetch_one(&mut db_watch)
        .await
        .unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    nats.pause().await;
    sqlx::raw_sql("commit").execute(&mut blocker).await.unwrap();
    eventually("the commit", SOON, async || {
        (recorded(&mut db_watch).await == 3).then_some(())
    })
    .await;
    first.kill();
    // The server loses the data that it had not read from its sockets.
    nats.crash().await;
    eventually("nats-server to answer", SOON, async || nats.client().await).await;
    let newer = published(&nats)
        .await
        .into_iter()
        .filter(|new| new.revision > 1)
        .count();
    assert_eq!(newer, 0, "the two were committed and not published");
    let _second = process(&db, &nats);
    check_published(&mut db_watch, &nats).await;
    assert_eq!(recorded(&mut db_watch).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_takes_over_from_a_killed_one() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let mut first = process(&db, &nats);
    send_when_ready(&nats, pushes(0)).await;
    wait_published(&nats, 100).await;
    let _second = process(&db, &nats);
    for round in 1..6 {
        send(&nats, pushes(round)).await;
        if round == 3 {
            first.kill();
        }
    }
    let mut db = db.connect().await;
    wait_applied(&mut db, &nats).await;
    check_published(&mut db, &nats).await;
    assert_eq!(
        recorded(&mut db).await,
        2400,
        "each push is one revision, once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_slept_can_neither_commit_nor_publish_when_it_wakes() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let sleeper = process(&db, &nats);
    send_when_ready(&nats, pushes(0)).await;
    wait_published(&nats, 100).await;
    let mut db_watch = db.connect().await;
    // Stop the process while its queues are full.
    send(&nats, (1..8).flat_map(pushes)).await;
    sleeper.signal("STOP");
    let awake = process(&db, &nats);
    // The other instance applies everything, and takes longer than the session of the stopped one
    // lives.
    wait_applied(&mut db_watch, &nats).await;
    send(&nats, pushes(9)).await;
    wait_applied(&mut db_watch, &nats).await;
    sleeper.signal("CONT");
    send(&nats, pushes(10)).await;
    wait_applied(&mut db_watch, &nats).await;
    check_published(&mut db_watch, &nats).await;
    // The server has refused the messages of the stopped instance by now: the other one published
    // after it woke.
    eventually("the sleeper to notice", SOON, async || {
        sleeper
            .log()
            .contains("released the partition")
            .then_some(())
    })
    .await;
    check_published(&mut db_watch, &nats).await;
    assert_eq!(recorded(&mut db_watch).await, 4000);
    drop(awake);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_crash_in_the_middle_cost_nothing() {
    let (postgres, nats) = (TestPostgres::start().await, TestNats::start().await);
    let db = postgres.db();
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    send(&nats, pushes(0)).await;
    wait_published(&nats, 50).await;
    for round in 1..5 {
        send(&nats, pushes(round)).await;
        match round {
            1 => nats.crash().await,
            2 => postgres.crash().await,
            3 => {
                nats.pause().await;
                // Longer than the time-outs of heartbeats and acknowledgements.
                tokio::time::sleep(Duration::from_secs(5)).await;
                nats.unpause().await;
            }
            _ => {
                postgres.stop().await;
                postgres.resume().await;
            }
        }
        eventually("nats-server to answer", SOON, async || nats.client().await).await;
    }
    send(&nats, pushes(5)).await;
    let mut connection = eventually("Postgres to answer", SOON, async || {
        use sqlx::Connection as _;
        sqlx::PgConnection::connect(db.url()).await.ok()
    })
    .await;
    wait_applied(&mut connection, &nats).await;
    check_published(&mut connection, &nats).await;
    assert_eq!(recorded(&mut connection).await, 2400);
    indexer.stop().await;
}

/// nats-server does not sync REVISIONS after each message, so a crash loses acknowledged revisions
/// while newer revisions of the same tags are on their way.
#[tokio::test(flavor = "multi_thread")]
async fn revisions_lost_in_a_crash_of_nats_are_published_before_newer_ones() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    let mut connection = db.connect().await;
    let mut rounds = 0..12;
    for _ in 0..3 {
        for round in rounds.by_ref().take(3) {
            send(&nats, pushes(round)).await;
        }
        // Some revisions are acknowledged, some on their way, some not recorded.
        let before = recorded(&mut connection).await;
        eventually("some of them to be recorded", SOON, async || {
            (recorded(&mut connection).await > before).then_some(())
        })
        .await;
        nats.crash().await;
        eventually("nats-server to answer", SOON, async || nats.client().await).await;
    }
    for round in rounds {
        send(&nats, pushes(round)).await;
    }
    wait_applied(&mut connection, &nats).await;
    check_published(&mut connection, &nats).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_revisions_lost_is_published_again() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    send(&nats, pushes(0)).await;
    let mut connection = db.connect().await;
    wait_applied(&mut connection, &nats).await;
    check_published(&mut connection, &nats).await;
    indexer.stop().await;
    // As after a power cut: the stream has lost its end.
    let stream = nats
        .jetstream()
        .await
        .get_stream("REVISIONS")
        .await
        .unwrap();
    let last = stream.cached_info().state.last_sequence;
    nats.jetstream()
        .await
        .delete_stream("REVISIONS")
        .await
        .unwrap();
    assert!(last > 400);
    let indexer = Indexer::start(db.url(), nats.url());
    check_published(&mut connection, &nats).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_anew_is_read_from_its_first_message() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    send(&nats, pushes(0)).await;
    let mut connection = db.connect().await;
    wait_applied(&mut connection, &nats).await;
    let config = nats
        .jetstream()
        .await
        .get_stream("PUSHES")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    nats.jetstream()
        .await
        .delete_stream("PUSHES")
        .await
        .unwrap();
    nats.jetstream().await.create_stream(config).await.unwrap();
    send(&nats, [push("registry.example.com/load/r0:t0", 5000, 5000)]).await;
    eventually("the push in the new stream", SOON, async || {
        (recorded(&mut connection).await == 401).then_some(())
    })
    .await;
    check_published(&mut connection, &nats).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexer_that_starts_first_waits_for_its_servers() {
    let (db, nats) = (
        tagtrail_testkit::postgres().await,
        TestNats::stopped().await,
    );
    let indexer = Indexer::start(db.url(), nats.url());
    tokio::time::sleep(Duration::from_millis(500)).await; // longer than its first attempt
    nats.resume().await;
    indexer.ctx.health.wait_ready().await;
    send(&nats, [push("registry.example.com/foo/bar:latest", 1, 1)]).await;
    wait_published(&nats, 1).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let first = process(&db, &nats);
    send_when_ready(&nats, [push("registry.example.com/foo/bar:latest", 1, 1)]).await;
    let environment = [("DATABASE_URL", db.url()), ("NATS_URL", nats.url())];
    let mut other = Process::tagtrail(
        &["indexer", "--admin", "127.0.0.1:0", "--partitions", "4"],
        &environment,
    );
    assert_eq!(other.ended(SOON).await.code(), Some(1));
    assert!(
        other.log().contains("stream PUSHES has 8 partitions"),
        "{}",
        other.log()
    );
    drop(first);
}

/// Sends pushes after the process has made the streams.
async fn send_when_ready(nats: &TestNats, pushes: impl IntoIterator<Item = Push>) {
    eventually("the streams", SOON, async || {
        nats.jetstream().await.get_stream("QUARANTINE").await.ok()
    })
    .await;
    send(nats, pushes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_indexers_count_as_holders_of_a_partition() {
    let db = tagtrail_testkit::postgres().await;
    let args = DbArgs {
        url: db.url().to_owned(),
    };
    let mut indexer = args.session("indexer", SOON).await.unwrap();
    let mut other = args.session("indexer", SOON).await.unwrap();
    // A person with the account of the indexer, say in psql.
    let mut person = db.connect().await;
    assert!(Lock::Partition(1).try_acquire(&mut other).await.unwrap());
    assert!(Lock::Partition(2).try_acquire(&mut person).await.unwrap());
    assert!(Lock::Sweep.try_acquire(&mut other).await.unwrap());
    let held = Lock::held_partitions(&mut indexer).await.unwrap();
    assert_eq!(held.into_iter().collect::<Vec<_>>(), [1]);
}
