//! `tagtrail migrate` is killed while it moves pushes to another number of streams, and webhooks
//! arrive.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_e2e::{Fleet, use_ring};
use tagtrail_proto::{Digest, Event, Revision};
use tagtrail_testkit::{Process, SOON, eventually};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;

const SENDERS: usize = 4;
const REPOSITORIES: usize = 60;
/// A busy machine needs longer than the 20 s that an indexer waits for the end of a stream.
const READ: Duration = Duration::from_secs(180);

/// Sends each push until it is stored, as a registry does. Returns the number of pushes.
async fn send(fleet: Arc<Fleet>, sender: usize, ended: Arc<AtomicBool>) -> usize {
    let begin = OffsetDateTime::now_utc() - time::Duration::hours(10);
    let mut sent = 0;
    while !ended.load(Ordering::Relaxed) {
        let repository = format!("shop/s{sender}-{}", sent % REPOSITORIES);
        let digest = Digest::sha256_of(format!("{sender}/{sent}").as_bytes());
        let at = begin + time::Duration::seconds(i64::try_from(sent).unwrap());
        let at = at.format(&Rfc3339).unwrap();
        while fleet.push(&repository, &digest.to_string(), &at).await != Some(202) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sent
}

/// Returns the command that moves the pushes to this number of streams.
fn migrate(fleet: &Fleet, streams: u16) -> Process {
    let (db, streams) = (fleet.postgres.db(), streams.to_string());
    let environment = [
        ("DATABASE_URL", db.url()),
        ("NATS_URL", fleet.nats.url()),
        ("TAGTRAIL_PUSH_STREAMS", &streams),
    ];
    Process::tagtrail(&["migrate"], &environment)
}

/// Returns the streams that take pushes of Tagtrail, by subject.
async fn owners(fleet: &Fleet) -> BTreeMap<String, String> {
    let jetstream = fleet.nats.jetstream().await;
    let names = (0..8).map(|number| format!("PUSHES_{number}"));
    let mut owners = BTreeMap::new();
    for name in names.chain(["PUSHES".to_owned()]) {
        if let Ok(stream) = jetstream.get_stream(&name).await {
            let subjects = stream.cached_info().config.subjects.iter();
            let subjects = subjects.filter(|subject| subject.starts_with("tagtrail."));
            owners.extend(subjects.map(|subject| (subject.clone(), name.clone())));
        }
    }
    owners
}

async fn wait_read(db: &mut PgConnection, streams: i32) {
    eventually(&format!("{streams} streams to be read"), READ, async || {
        let read: i64 = sqlx::query_scalar(
            "select count(*) from position where stream = 'PUSHES'
             and coalesce(source, 'PUSHES') = case when $1 = 1 then 'PUSHES' else 'PUSHES_' || partition % $1 end",
        )
        .bind(streams)
        .fetch_one(&mut *db)
        .await
        .unwrap();
        (read == 8).then_some(())
    })
    .await;
}

/// Checks that REVISIONS has the numbers of each image in order, each once. Returns their count.
async fn published(fleet: &Fleet) -> usize {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut count = 0;
    for (subject, body) in fleet.nats.messages("REVISIONS").await {
        if subject.starts_with("tagtrail.revision.") {
            let event: Event<Revision> = serde_json::from_slice(&body).unwrap();
            let last = last.entry(event.subject).or_default();
            *last += 1;
            assert_eq!(event.data.revision, *last);
            count += 1;
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_killed_again_and_again_loses_and_doubles_no_push() {
    use_ring();
    let fleet = Arc::new(Fleet::start("registry.example.com").await);
    let mut db = PgConnection::connect(fleet.postgres.db().url())
        .await
        .unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        senders.spawn(send(Arc::clone(&fleet), sender, Arc::clone(&ended)));
    }
    wait_read(&mut db, 8).await;
    let mut broken_off = 0;
    for streams in [3, 1, 8] {
        for kill in 0..10 {
            let before = owners(&fleet).await;
            let mut migrating = migrate(&fleet, streams);
            let changed = async { while owners(&fleet).await == before {} };
            tokio::select! {
                () = changed => {}
                _ = migrating.ended(SOON) => break,
            }
            tokio::time::sleep(Duration::from_millis(7 * kill % 20)).await;
            drop(migrating);
            broken_off += usize::from(owners(&fleet).await.len() < 8);
        }
        let mut migrating = migrate(&fleet, streams);
        let done = migrating.ended(SOON).await;
        assert!(
            done.success(),
            "{}\n{}",
            migrating.log(),
            fleet.processes["indexer"].log()
        );
        wait_read(&mut db, streams.into()).await;
    }
    eprintln!("{broken_off} moves were broken off between two streams");
    ended.store(true, Ordering::Relaxed);
    let sent: usize = senders.join_all().await.into_iter().sum();
    eventually("all revisions", READ, async || {
        (published(&fleet).await >= sent).then_some(())
    })
    .await;
    let (pushes, late): (i64, i64) = sqlx::query_as(
        "select (select count(distinct digest) from push), (select count(*) from revision where late)",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    let (pushes, expected) = (usize::try_from(pushes).unwrap(), published(&fleet).await);
    assert_eq!((pushes, expected, late), (sent, sent, 0));
}
