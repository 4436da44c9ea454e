//! The tools of the tests: pushes as the gateway publishes them, and queries of Postgres and the
//! streams.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sqlx::{Connection as _, Row as _};
use tagtrail_bus::BusArgs;
use tagtrail_daemon::Context;
use tagtrail_indexer::Config;
use tagtrail_postgres::DbArgs;
use tagtrail_proto::{
    Action, Digest, Event, Image, Kind, Origin, Push, Revision, Scope, Subject, TimeSource,
};
use tagtrail_testkit::{SOON, TestDb, TestNats, eventually};
use time::OffsetDateTime;
use tokio::task::JoinSet;

/// An indexer in this process.
pub(crate) struct Indexer {
    pub(crate) ctx: Context,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Indexer {
    pub(crate) fn start(db: &str, nats: &str) -> Indexer {
        Indexer::configured(db, nats, None)
    }

    /// Starts an indexer with this `tagtrail.toml`.
    pub(crate) fn configured(db: &str, nats: &str, file: Option<&Path>) -> Indexer {
        // The test harness shows the logs of a failed test.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let ctx = Context::default();
        let config = Config {
            db: DbArgs { url: db.to_owned() },
            bus: BusArgs::new(nats),
            config: file.map(Path::to_owned),
            appliers: None,
            session_seconds: Duration::from_secs(2),
            claim_interval_ms: Duration::from_millis(10),
            sweep_seconds: Duration::from_secs(1),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(tagtrail_indexer::run(config, ctx.clone()));
        Indexer { ctx, tasks }
    }

    /// Returns the value of a metric with this name and these labels; 0 if there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.ctx.metrics.text().unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit_once(' '))
            .map_or(0.0, |(_, value)| value.parse().unwrap())
    }

    /// Stops the indexer, and waits for its end.
    pub(crate) async fn stop(mut self) {
        self.ctx.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

pub(crate) fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_770_000_000 + second).unwrap()
}

pub(crate) fn digest(n: u64) -> Digest {
    Digest::sha256_of(&n.to_be_bytes())
}

pub(crate) fn image(text: &str) -> Image {
    text.parse().unwrap()
}

/// A push of an image.
pub(crate) fn push(name: &str, second: i64, n: u64) -> Push {
    let image = image(name);
    Push {
        action: Action::Push,
        scope: Scope::Tag,
        registry: image.registry,
        repository: image.repository,
        tag: Some(image.tag),
        digest: Some(digest(n)),
        media_type: Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        size: Some(n),
        actor: Some("ci-bot".to_owned()),
        occurred_at: at(second),
        occurred_at_source: TimeSource::Event,
        source: "main".to_owned(),
        origin: Origin::Event,
        event_id: format!("{name}/{second}/{n}"),
    }
}

pub(crate) fn delete(name: &str, second: i64) -> Push {
    Push {
        action: Action::Delete,
        digest: None,
        media_type: None,
        size: None,
        ..push(name, second, 0)
    }
}

/// A delete of a tag that names the digest.
pub(crate) fn delete_of(name: &str, second: i64, n: u64) -> Push {
    Push {
        digest: Some(digest(n)),
        ..delete(name, second)
    }
}

/// The same push without a time of its own.
pub(crate) fn untimed(push: Push) -> Push {
    Push {
        occurred_at_source: TimeSource::Received,
        ..push
    }
}

/// The same push as an answer of the registry.
pub(crate) fn answer(push: Push) -> Push {
    Push {
        origin: Origin::Resolved,
        ..untimed(push)
    }
}

pub(crate) fn delete_digest(name: &str, second: i64, n: u64) -> Push {
    Push {
        scope: Scope::Digest,
        tag: None,
        digest: Some(digest(n)),
        ..delete(name, second)
    }
}

pub(crate) fn delete_repository(name: &str, second: i64) -> Push {
    Push {
        scope: Scope::Repository,
        tag: None,
        ..delete(name, second)
    }
}

/// Publishes pushes on PUSHES in order, many at once, without a `Nats-Msg-Id`, so that repeats
/// arrive.
pub(crate) async fn send(nats: &TestNats, pushes: impl IntoIterator<Item = Push>) {
    let jetstream = nats.jetstream().await;
    let mut acknowledgements = Vec::new();
    for push in pushes {
        let subject = Subject::of_push(&push, 8);
        let body = serde_json::to_vec(&push.event()).unwrap();
        acknowledgements.push(
            jetstream
                .publish(subject.to_string(), body.into())
                .await
                .unwrap(),
        );
    }
    for acknowledgement in acknowledgements {
        acknowledgement.await.unwrap();
    }
}

/// Returns the revisions in REVISIONS, in the order of the stream.
pub(crate) async fn published(nats: &TestNats) -> Vec<Revision> {
    let messages = nats.messages("REVISIONS").await;
    let revisions = messages
        .iter()
        .filter(|(subject, _)| subject.starts_with("tagtrail.revision."));
    revisions
        .map(|(_, body)| {
            serde_json::from_slice::<Event<Revision>>(body)
                .unwrap()
                .data
        })
        .collect()
}

/// Waits until REVISIONS has this number of revisions, and returns them.
pub(crate) async fn wait_published(nats: &TestNats, count: usize) -> Vec<Revision> {
    eventually(&format!("{count} published revisions"), SOON, async || {
        Some(published(nats).await).filter(|revisions| revisions.len() >= count)
    })
    .await
}

/// Returns `(number, kind, late)` of each revision in Postgres, by image, in the order of the
/// numbers.
pub(crate) async fn stored(
    db: &mut sqlx::PgConnection,
) -> BTreeMap<String, Vec<(i64, Kind, bool)>> {
    let rows = sqlx::query(
        "select r.registry || '/' || r.name || ':' || t.name, v.number, v.kind::text, v.late
         from revision v join tag t on t.id = v.tag_id join repository r on r.id = t.repository_id order by 1, 2",
    )
    .fetch_all(db)
    .await
    .unwrap();
    let mut stored: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for row in rows {
        stored.entry(row.get(0)).or_default().push((
            row.get(1),
            row.get::<&str, _>(2).parse().unwrap(),
            row.get(3),
        ));
    }
    stored
}

/// Checks the guarantee for subscribers: REVISIONS has the numbers 1, 2, 3 … of each tag in order,
/// each once, as Postgres has them.
pub(crate) async fn check_published(db: &mut sqlx::PgConnection, nats: &TestNats) {
    let count: i64 = sqlx::query_scalar("select count(*) from revision")
        .fetch_one(&mut *db)
        .await
        .unwrap();
    let published = wait_published(nats, usize::try_from(count).unwrap()).await;
    let mut by_image: BTreeMap<String, Vec<(i64, Kind, bool)>> = BTreeMap::new();
    for revision in published {
        by_image
            .entry(revision.image().to_string())
            .or_default()
            .push((
                i64::try_from(revision.revision).unwrap(),
                revision.kind,
                revision.late,
            ));
    }
    assert_eq!(by_image, stored(db).await);
}

/// Waits until every message of PUSHES is applied.
pub(crate) async fn wait_applied(db: &mut sqlx::PgConnection, nats: &TestNats) {
    let stream = nats
        .jetstream()
        .await
        .get_stream_no_info("PUSHES")
        .await
        .unwrap();
    for partition in 0..8_i16 {
        let Ok(last) = stream
            .get_last_raw_message_by_subject(&format!("tagtrail.push.{partition}.>"))
            .await
        else {
            continue;
        };
        eventually(
            &format!("partition {partition} to be applied"),
            SOON,
            async || {
                let applied: Option<i64> = sqlx::query_scalar(
                    "select applied_seq from position where stream = 'PUSHES' and partition = $1",
                )
                .bind(partition)
                .fetch_optional(&mut *db)
                .await
                .unwrap();
                (applied >= i64::try_from(last.sequence).ok()).then_some(())
            },
        )
        .await;
    }
}

pub(crate) async fn apply(db: &TestDb, nats: &TestNats, pushes: Vec<Push>) {
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    send(nats, pushes).await;
    let mut connection = db.connect().await;
    wait_applied(&mut connection, nats).await;
    check_published(&mut connection, nats).await;
    connection.close().await.unwrap();
    indexer.stop().await;
}
