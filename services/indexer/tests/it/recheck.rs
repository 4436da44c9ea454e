//! Which pushes make the indexer ask a registry, and that no question is lost.

use std::collections::BTreeSet;
use std::path::PathBuf;

use sqlx::Connection as _;
use tagtrail_proto::{Event, Push};
use tagtrail_testkit::{SOON, TestNats, eventually};

use crate::bench::*;

/// Pushes after which exactly the tags named `doubt` are doubtful.
fn pushes() -> Vec<Push> {
    let image = |name: &str| format!("registry.example.com/{name}");
    let pushed = |name: &str, second, n| push(&image(name), second, n);
    let deleted = |name: &str, second| delete(&image(name), second);
    vec![
        // More than two minutes apart, and a return with a time of its own.
        pushed("sure/a:v1", 1, 1),
        pushed("sure/a:v1", 200, 2),
        pushed("sure/a:v1", 400, 1),
        // The same digest again, at any distance.
        pushed("sure/same:v1", 1, 1),
        pushed("sure/same:v1", 1, 1),
        pushed("sure/same:v1", 30, 1),
        // Two digests at one instant; two minutes apart in both orders.
        pushed("doubt/instant:v1", 5, 1),
        pushed("doubt/instant:v1", 5, 2),
        pushed("doubt/near:v1", 100, 1),
        pushed("doubt/near:v1", 220, 2),
        pushed("sure/far:v1", 100, 1),
        pushed("sure/far:v1", 221, 2),
        pushed("doubt/late:v1", 220, 1),
        pushed("doubt/late:v1", 100, 2),
        // Between a repeated push and its first occurrence: near the newest push, not the head.
        pushed("doubt/repeated:v1", 1, 1),
        pushed("doubt/repeated:v1", 500, 1),
        pushed("doubt/repeated:v1", 400, 2),
        // A delete and a return without a time of their own.
        pushed("doubt/gone:v1", 1, 1),
        untimed(deleted("doubt/gone:v1", 500)),
        untimed(pushed("doubt/back:v1", 1, 1)),
        untimed(pushed("doubt/back:v1", 200, 2)),
        untimed(pushed("doubt/back:v1", 400, 1)),
        pushed("doubt/again:v1", 1, 1),
        deleted("doubt/again:v1", 200),
        untimed(pushed("doubt/again:v1", 400, 1)),
        untimed(pushed("sure/new:v1", 1, 1)),
        untimed(pushed("sure/new:v1", 200, 2)),
        // A delete dated long before a push that arrived earlier.
        pushed("doubt/early:v1", 9000, 1),
        deleted("doubt/early:v1", 1),
        deleted("sure/gone:v1", 9000),
        deleted("sure/gone:v1", 1),
        // A delete that names another digest than the tag has.
        pushed("doubt/other:v1", 1, 1),
        delete_of(&image("doubt/other:v1"), 500, 2),
        pushed("sure/named:v1", 1, 1),
        delete_of(&image("sure/named:v1"), 500, 1),
        // A delete of the digest everywhere, beside a push of one of two tags.
        pushed("doubt/part:v1", 400, 1),
        pushed("doubt/part:sure", 400, 2),
        delete_digest(&image("doubt/part:v1"), 450, 1),
        // Answers: on time, overtaken, and two of one instant.
        pushed("sure/answer:v1", 400, 1),
        answer(pushed("sure/answer:v1", 401, 2)),
        pushed("doubt/overtaken:v1", 4000, 1),
        answer(pushed("doubt/overtaken:v1", 400, 2)),
        answer(pushed("doubt/answers:v1", 400, 1)),
        answer(pushed("doubt/answers:v1", 400, 2)),
    ]
}

/// The images about which a registry was asked.
async fn asked(nats: &TestNats) -> BTreeSet<String> {
    let messages = nats.messages("UNRESOLVED").await;
    messages
        .iter()
        .map(|(_, body)| serde_json::from_slice::<Event<Push>>(body).unwrap().data)
        .map(|push| push.image().unwrap().to_string())
        .collect()
}

/// Waits until exactly the doubtful images were asked about.
async fn check_asked(nats: &TestNats) {
    let doubtful: BTreeSet<String> = pushes()
        .iter()
        .filter_map(Push::image)
        .map(|image| image.to_string())
        .filter(|image| image.contains("/doubt/") && !image.ends_with(":sure"))
        .collect();
    let reached = tokio::time::timeout(SOON, async {
        while !asked(nats).await.is_superset(&doubtful) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let _ = reached.await;
    assert_eq!(asked(nats).await, doubtful);
}

/// A file with registries of these names.
fn file(folder: &tempfile::TempDir, registries: &[&str]) -> PathBuf {
    let path = folder.path().join("tagtrail.toml");
    let entry =
        |name: &&str| format!("[[registry]]\nname = \"{name}\"\nurl = \"https://{name}\"\n");
    let text: String = registries.iter().map(entry).collect();
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn doubtful_pushes_and_no_others_are_rechecked() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    // One by one, so that each is a batch of its own.
    let mut connection = db.connect().await;
    for push in pushes() {
        send(&nats, [push]).await;
        wait_applied(&mut connection, &nats).await;
    }
    check_asked(&nats).await;
    // The tag of a delete that named another digest is still there.
    let kept: bool = sqlx::query_scalar(
        "select head_digest is not null from tag t join repository r on r.id = t.repository_id where r.name = 'doubt/other'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert!(kept);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_of_one_batch_are_rechecked_as_single_ones_are() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    send(&nats, pushes()).await;
    wait_applied(&mut db.connect().await, &nats).await;
    check_asked(&nats).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_configured_registries_are_asked() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder, &["registry.example.com"]);
    let indexer = Indexer::configured(db.url(), nats.url(), Some(&file));
    indexer.ctx.health.wait_ready().await;
    let mut all = pushes();
    for n in [1, 2] {
        all.insert(0, push("other.example.com/a/b:v1", 5, n));
    }
    send(&nats, all).await;
    wait_applied(&mut db.connect().await, &nats).await;
    check_asked(&nats).await;
    indexer.stop().await;
}

/// Records the pushes with an indexer that asks nothing, as if its questions were lost.
async fn lose_questions(db: &str, nats: &TestNats, connection: &mut sqlx::PgConnection) {
    let folder = tempfile::tempdir().unwrap();
    let silent = Indexer::configured(db, nats.url(), Some(&file(&folder, &[])));
    silent.ctx.health.wait_ready().await;
    send(nats, pushes()).await;
    wait_applied(connection, nats).await;
    silent.stop().await;
    assert_eq!(asked(nats).await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_holder_asks_what_the_last_one_lost() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let mut connection = db.connect().await;
    lose_questions(db.url(), &nats, &mut connection).await;
    let next = Indexer::start(db.url(), nats.url());
    check_asked(&nats).await;
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweeper_asks_what_was_lost_longer_ago_and_only_once() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let mut connection = db.connect().await;
    lose_questions(db.url(), &nats, &mut connection).await;
    // History is append-only for the product; the test makes it older.
    for statement in [
        "alter table push disable trigger append_only",
        "update push set recorded_at = recorded_at - interval '5 minutes'",
        "alter table push enable always trigger append_only",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let sweeping = Indexer::start(db.url(), nats.url());
    check_asked(&nats).await;
    let first = nats.messages("UNRESOLVED").await.len();
    let swept: Option<time::OffsetDateTime> = done_at(&mut connection).await;
    eventually("two more sweeps", SOON, async || {
        let now = done_at(&mut connection).await?;
        (now - swept? > time::Duration::seconds(2)).then_some(())
    })
    .await;
    assert_eq!(nats.messages("UNRESOLVED").await.len(), first);
    sweeping.stop().await;
    connection.close().await.unwrap();
}

async fn done_at(connection: &mut sqlx::PgConnection) -> Option<time::OffsetDateTime> {
    sqlx::query_scalar("select max(done_at) from sweep")
        .fetch_one(connection)
        .await
        .unwrap()
}
