//! Recovery as docs/operations.md describes it: from an older backup of Postgres, and after NATS
//! lost the disk.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tagtrail_e2e::{Fleet, SERVICES};
use tagtrail_proto::{Digest, Event, Revision, instant};
use tagtrail_testkit::{SOON, eventually};
use time::{Duration, OffsetDateTime};

const REGISTRY: &str = "registry.example.com";
const IMAGES: [&str; 2] = ["shop/web", "shop/worker"];

fn digest(n: i64) -> String {
    Digest::sha256_of(&n.to_be_bytes()).to_string()
}

/// Sends pushes `from` to `to` of all images. The push before the last has an earlier time than its
/// predecessor.
async fn push(fleet: &Fleet, from: i64, to: i64) {
    let start = OffsetDateTime::now_utc() - Duration::hours(1);
    for n in from..=to {
        let second = if n == to - 1 { n - 2 } else { n };
        let time = instant::format(start + Duration::seconds(10 * second)).unwrap();
        for image in IMAGES {
            assert_eq!(fleet.push(image, &digest(n), &time).await, Some(202));
        }
    }
}

/// Waits until push `newest` is the head of an image. Returns the history without `recorded_at`.
async fn history(fleet: &Fleet, image: &str, newest: i64) -> Vec<Value> {
    let path = format!("/v1/history?image={REGISTRY}/{image}&limit=1000");
    eventually(&format!("push {newest} of {image}"), SOON, async || {
        let head = fleet
            .get(&format!("/v1/resolve?image={REGISTRY}/{image}"))
            .await?
            .1;
        let mut items = fleet.get(&path).await?.1["items"].as_array()?.clone();
        for item in &mut items {
            item.as_object_mut()?.remove("recorded_at");
        }
        (head["digest"] == digest(newest)).then_some(items)
    })
    .await
}

async fn histories(fleet: &Fleet, newest: i64) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for image in IMAGES {
        all.push(history(fleet, image, newest).await);
    }
    all
}

/// Runs the command of docs/operations.md that begins with `begin`.
fn documented(begin: &str, environment: &[(&str, &str)], folder: &Path) {
    let page = include_str!("../../docs/operations.md");
    let command = page
        .lines()
        .find(|line| line.starts_with(begin))
        .unwrap_or_else(|| panic!("docs/operations.md has no command {begin}"));
    let done = Command::new("sh")
        .args(["-euc", &format!("PATH=\"$1:$PATH\"; {command}"), "sh"])
        .arg(tagtrail_testkit::binary().parent().unwrap())
        .current_dir(folder)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{command}: {}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_complete_after_restoring_an_older_backup() {
    let mut fleet = Fleet::start(REGISTRY).await;
    let folder = tempfile::tempdir().unwrap();
    push(&fleet, 1, 5).await;
    histories(&fleet, 5).await;
    let url = fleet.postgres.db().url().to_owned();
    let mut admin = PgConnection::connect(&url).await.unwrap();
    // As deploy/postgres/accounts.sql does. The owner of a database may not repeat it.
    sqlx::raw_sql("revoke execute on function lo_creat(integer) from public")
        .execute(&mut admin)
        .await
        .unwrap();
    documented("pg_dump ", &[("DATABASE_URL", &url)], folder.path());
    push(&fleet, 6, 10).await;
    let before = histories(&fleet, 10).await;

    for service in SERVICES {
        drop(fleet.processes.remove(service));
    }
    for statement in [
        "create role owner login password 'owner'",
        "create database restored owner owner",
    ] {
        let done = sqlx::raw_sql(statement).execute(&mut admin).await;
        done.unwrap();
    }
    let server = url.rsplit(['@', '/']).nth(1).unwrap();
    let restored = format!("postgres://owner:owner@{server}/restored");
    let environment = [("DATABASE_URL", restored.as_str())];
    documented("pg_restore ", &environment, folder.path());
    documented("tagtrail migrate", &environment, folder.path());
    fleet.set("DATABASE_URL", &restored);
    for service in SERVICES {
        fleet.restart(service);
    }
    assert_eq!(histories(&fleet, 10).await, before);
    push(&fleet, 11, 15).await;
    let after = histories(&fleet, 15).await;
    for (after, before) in after.iter().zip(&before) {
        assert!(after.ends_with(before) && after.len() > before.len());
    }
    let wanted = digest(15);
    eventually("the last state at the target", SOON, async || {
        let images = fleet.sink.deliveries().pop()?.json()["data"]["images"].take();
        (images["web"]["digest"] == *wanted && images["worker"]["digest"] == *wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_continues_and_is_published_again_after_nats_lost_its_disk() {
    let fleet = Fleet::start(REGISTRY).await;
    push(&fleet, 1, 5).await;
    let before = histories(&fleet, 5).await;
    fleet.nats.lose().await;
    fleet.nats.resume().await;
    // The services create the streams again, since their accounts have the right to.
    eventually("a push to be accepted", SOON, async || {
        let time = instant::format(OffsetDateTime::now_utc()).unwrap();
        let accepted = fleet.push(IMAGES[0], &digest(6), &time).await;
        (accepted == Some(202)).then_some(())
    })
    .await;
    let after = history(&fleet, IMAGES[0], 6).await;
    assert!(after.ends_with(&before[0]));
    eventually("all revisions on the bus", SOON, async || {
        let mut numbers: Vec<u64> = fleet
            .nats
            .messages("REVISIONS")
            .await
            .into_iter()
            .filter(|(subject, _)| subject.starts_with("tagtrail.revision."))
            .map(|(_, body)| serde_json::from_slice::<Event<Revision>>(&body).unwrap())
            .filter(|event| event.data.repository.to_string() == IMAGES[0])
            .map(|event| event.data.revision)
            .collect();
        numbers.dedup();
        let all: Vec<u64> = (1..=after.len() as u64).collect();
        (numbers == all).then_some(())
    })
    .await;
    eventually("the last state at the target", SOON, async || {
        let images = fleet.sink.deliveries().pop()?.json()["data"]["images"].take();
        (images["web"]["digest"] == digest(6)).then_some(())
    })
    .await;
}
