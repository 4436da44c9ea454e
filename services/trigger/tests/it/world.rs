//! The world of the tests: heads as the indexer writes them, a service in this process, and queries
//! of rollouts and ledger.

use std::time::Duration;

use sqlx::{PgConnection, Row as _};
use tagtrail_bus::BusArgs;
use tagtrail_daemon::Context;
use tagtrail_postgres::DbArgs;
use tagtrail_proto::{Digest, Event, Image, Rollout, RolloutState, Subject, Waiting};
use tagtrail_testkit::{Process, SOON, Sink, TestDb, TestNats, eventually};
use tagtrail_trigger::{Config, Limits, LookPace, Outlive, Pace, Replaced, Supervisor};
use tokio::task::JoinSet;

pub(crate) const WEB: &str = "registry.example.com/shop/web:latest";
pub(crate) const WORKER: &str = "registry.example.com/shop/worker:latest";
/// A key made for these tests.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The pauses of the tests.
pub(crate) const PACE: Pace = Pace {
    first: Duration::from_millis(50),
    longest: Duration::from_millis(400),
    patience: Duration::from_secs(24 * 3600),
    slow: Duration::from_secs(3600),
    attempts: 0,
    ends: false,
};

pub(crate) const LOOK_PACE: LookPace = LookPace {
    first: Duration::from_millis(50),
    longest: Duration::from_millis(400),
    slow: Duration::from_millis(400),
    others: Duration::from_millis(400),
};

pub(crate) struct World {
    pub(crate) db: TestDb,
    pub(crate) sql: PgConnection,
    pub(crate) nats: TestNats,
    pub(crate) sink: Sink,
    pub(crate) folder: tempfile::TempDir,
}

/// A trigger service in this process.
pub(crate) struct Service {
    pub(crate) ctx: Context,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Service {
    /// Requests a stop and waits for the end.
    pub(crate) async fn stop(mut self) {
        self.ctx.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

pub(crate) fn digest(n: u8) -> Digest {
    Digest::sha256_of(&[n])
}

impl World {
    /// Starts the servers and a webhook target, and configures one trigger of both images.
    pub(crate) async fn new() -> World {
        // Cargo shows the logs if the test fails.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let db = tagtrail_testkit::postgres().await;
        let world = World {
            sql: db.connect().await,
            db,
            nats: TestNats::start().await,
            sink: Sink::start().await,
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(world.folder.path().join("secret"), SECRET).unwrap();
        world.configure(&world.shop(""));
        world
    }

    /// Starts the service after a push of each image, and waits for the success of rollout 1.
    pub(crate) async fn rolled_out() -> (World, Service) {
        let mut world = World::new().await;
        world.push(WEB, 1).await;
        world.push(WORKER, 1).await;
        let service = world.start().await;
        world.wait(1, RolloutState::Succeeded).await;
        (world, service)
    }

    /// Returns a trigger `shop` of both images with the webhook target, and `more` lines.
    /// Without a line about `settle`, rollouts start at once.
    pub(crate) fn shop(&self, more: &str) -> String {
        let settle = match more.contains("settle") {
            true => "",
            false => "settle = \"0s\"\n",
        };
        let secret = self.folder.path().join("secret");
        format!(
            "[[trigger]]\nname = \"shop\"\n{settle}images.web = \"{WEB}\"\nimages.worker = \"{WORKER}\"\n\
             target.webhook = {{ url = \"{}\", secret = {{ file = \"{}\" }} }}\n{more}\n",
            self.sink.url(),
            secret.display(),
        )
    }

    /// Configures a trigger `shop` of the image `web` that runs this shell script.
    pub(crate) fn command(&self, script: &str) {
        self.command_with("", script);
    }

    /// Configures a trigger `shop` whose command has further settings.
    pub(crate) fn command_with(&self, settings: &str, script: &str) {
        let path = self.folder.path().join("deploy.sh");
        std::fs::write(&path, format!("set -eu\n{script}\n")).unwrap();
        self.configure(&format!(
            "[[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\n[trigger.target.command]\nrun = [\"sh\", \"./deploy.sh\"]\n{settings}\n"
        ));
    }

    /// Returns the content of a file of the folder, if there is one.
    pub(crate) fn file(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.path().join(name)).ok()?;
        Some(text).filter(|text| !text.is_empty())
    }

    /// Waits until a command has written this file.
    pub(crate) async fn written(&self, name: &str) -> String {
        eventually(name, SOON, async || self.file(name)).await
    }

    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.folder.path().join("tagtrail.toml"), text).unwrap();
    }

    /// Starts a service with short pauses.
    pub(crate) async fn start(&self) -> Service {
        self.start_at(PACE).await
    }

    pub(crate) async fn start_at(&self, pace: Pace) -> Service {
        self.start_with(pace, |_| {}).await
    }

    /// Starts a service with changed settings.
    pub(crate) async fn start_with(&self, pace: Pace, change: impl FnOnce(&mut Config)) -> Service {
        let ctx = Context::default();
        let mut config = Config {
            db: DbArgs {
                url: self.db.url().to_owned(),
            },
            bus: BusArgs::new(self.nats.url()),
            config: self.folder.path().join("tagtrail.toml"),
            limits: Limits::default(),
            takeover_seconds: Duration::from_secs(10),
            clones: Some(self.folder.path().join("clones")),
            alone: false,
            session_seconds: Duration::from_secs(2),
            replaced: Replaced(Duration::ZERO),
            outlive: Outlive::default(),
            pace,
            look_pace: LOOK_PACE,
            supervisor: Supervisor(tagtrail_testkit::binary()),
        };
        change(&mut config);
        let mut tasks = JoinSet::new();
        tasks.spawn(tagtrail_trigger::run(config, ctx.clone()));
        ctx.health.wait_ready().await;
        Service { ctx, tasks }
    }

    /// Starts the service as a process that a test can kill.
    pub(crate) fn process(&self) -> Process {
        self.process_with(&[])
    }

    /// Starts the service as a process with further variables.
    pub(crate) fn process_with(&self, more: &[(&str, &str)]) -> Process {
        let config = self.folder.path().join("tagtrail.toml");
        let mut environment = vec![
            ("DATABASE_URL", self.db.url()),
            ("NATS_URL", self.nats.url()),
            ("TAGTRAIL_SESSION_SECONDS", "2"),
            ("TAGTRAIL_CONFIG", config.to_str().unwrap()),
        ];
        environment.extend(more);
        Process::tagtrail(&["trigger", "--admin", "127.0.0.1:0"], &environment)
    }

    /// Gives the image a new head, as after a push of this digest.
    pub(crate) async fn push(&mut self, image: &str, n: u8) {
        self.head(image, Some(n), "event").await;
    }

    /// Gives the image a new head, or deletes the tag if `n` is `None`.
    pub(crate) async fn head(&mut self, image: &str, n: Option<u8>, origin: &str) {
        self.head_of(image, n, origin, "event", 0).await;
    }

    /// Gives the image a new head some seconds ago, by a push whose time is of this source.
    pub(crate) async fn head_of(
        &mut self,
        image: &str,
        n: Option<u8>,
        origin: &str,
        time_source: &str,
        ago: i32,
    ) {
        let times = (time_source, ago);
        self.head_with(image, n.map(digest), origin, times).await;
    }

    /// Gives the image a new head with this digest, or deletes the tag. `times` are the source of
    /// the time of the push, and how many seconds ago it was recorded.
    pub(crate) async fn head_with(
        &mut self,
        image: &str,
        digest: Option<Digest>,
        origin: &str,
        (time_source, ago): (&str, i32),
    ) {
        let image: Image = image.parse().unwrap();
        sqlx::query(
            "with r as (
                 insert into repository (registry, name) values ($1, $2) on conflict (registry, name) do update set name = $2 returning id)
             insert into tag (repository_id, name) select id, $3 from r on conflict do nothing",
        )
        .bind(image.registry.as_ref())
        .bind(image.repository.as_ref())
        .bind(image.tag.as_ref())
        .execute(&mut self.sql)
        .await
        .unwrap();
        sqlx::query(
            "with t as (
                 select t.id, t.issued + 1 as number, t.head from repository r join tag t on t.repository_id = r.id
                 where r.registry = $1 and r.name = $2 and t.name = $3),
             p as (
                 insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin, source, event_id, stream_seq)
                 select id, case when $4::bytea is null then 'delete' else 'push' end::push_action, $4, now(), now(), $6::time_source, now(), now(), $5::push_origin, 'main', '', 0
                 from t returning id),
             v as (
                 insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
                 select t.id, t.number, case when $4 is null then 'deleted' when t.head is null then 'created' else 'moved' end::revision_kind,
                        $4, now(), now() - make_interval(secs => $7), t.head, t.number, p.id, 0, p.id
                 from t, p)
             update tag set issued = t.number, head = t.number, head_digest = $4, head_at = now() from t where tag.id = t.id",
        )
        .bind(image.registry.as_ref())
        .bind(image.repository.as_ref())
        .bind(image.tag.as_ref())
        .bind(digest.as_ref().map(Digest::as_bytes))
        .bind(origin)
        .bind(time_source)
        .bind(ago)
        .execute(&mut self.sql)
        .await
        .unwrap();
        let subject = Subject::Revision {
            registry: image.registry,
            repository: image.repository,
            tag: image.tag,
        };
        // Without a server or a stream the message has no reader.
        if let Some(client) = self.nats.client().await {
            let jetstream = async_nats::jetstream::new(client);
            if jetstream.get_stream("REVISIONS").await.is_ok()
                && let Ok(sent) = jetstream.publish(subject.to_string(), "{}".into()).await
            {
                let _ = sent.await;
            }
        }
    }

    /// Records the answer of the registry that the tag has the digest of its head: no revision.
    pub(crate) async fn confirm(&mut self, image: &str) {
        let image: Image = image.parse().unwrap();
        sqlx::query(
            "insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin, source, event_id, stream_seq)
             select t.id, 'push', t.head_digest, now(), now(), 'received', now(), now(), 'resolved', 'main', 'doubt:', 0
             from tag t join repository r on r.id = t.repository_id
             where r.registry = $1 and r.name = $2 and t.name = $3",
        )
        .bind(image.registry.as_ref())
        .bind(image.repository.as_ref())
        .bind(image.tag.as_ref())
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    /// Stores the manifest of a digest, as the indexer does.
    pub(crate) async fn read_manifest(&mut self, n: u8, tombstone: bool) {
        sqlx::query(
            "insert into manifest (digest, registry, repository, media_type, size_bytes, platforms, labels, annotations, tombstone, read_at)
             values ($1, 'registry.example.com', 'shop/web', 'x', 1, '[]', '{}', '{}', $2, now())",
        )
        .bind(digest(n).as_bytes())
        .bind(tombstone)
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    /// Records that the registry did not have a manifest in the last of all attempts.
    pub(crate) async fn missing_manifest(&mut self, n: u8) {
        sqlx::query(
            "insert into missing_manifest (digest, registry, repository, looked_at, given_up)
             values ($1, 'registry.example.com', 'shop/web', now(), true)",
        )
        .bind(digest(n).as_bytes())
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    /// Waits until the trigger has this number of closed gates, and returns them.
    pub(crate) async fn waiting(&mut self, count: usize) -> Vec<Waiting> {
        eventually(&format!("{count} closed gates"), SOON, async || {
            let waiting: serde_json::Value =
                sqlx::query_scalar("select waiting from trigger where name = 'shop'")
                    .fetch_one(&mut self.sql)
                    .await
                    .unwrap();
            let waiting: Vec<Waiting> = serde_json::from_value(waiting).unwrap();
            (waiting.len() == count).then_some(waiting)
        })
        .await
    }

    /// Pauses or resumes the trigger as the api does.
    pub(crate) async fn switch(&mut self, state: &'static str) {
        sqlx::query("update trigger set state = $1::trigger_state where name = 'shop'")
            .bind(state)
            .execute(&mut self.sql)
            .await
            .unwrap();
    }

    /// Orders the next attempt as the api does.
    pub(crate) async fn order_retry(&mut self) {
        sqlx::query("update trigger set retry = true where name = 'shop'")
            .execute(&mut self.sql)
            .await
            .unwrap();
    }

    /// Returns `(number, state, attempts)` of all rollouts, by number.
    pub(crate) async fn rollouts(&mut self) -> Vec<(i64, RolloutState, i32)> {
        let rows = sqlx::query(
            "select number, state::text as state, attempts from rollout order by number",
        )
        .fetch_all(&mut self.sql)
        .await
        .unwrap();
        rows.iter()
            .map(|row| {
                (
                    row.get("number"),
                    row.get::<&str, _>("state").parse().unwrap(),
                    row.get("attempts"),
                )
            })
            .collect()
    }

    /// Returns the error of the last rollout, if there is one.
    pub(crate) async fn error(&mut self) -> Option<String> {
        let error = sqlx::query_scalar("select error from rollout order by number desc limit 1");
        let error: Option<Option<String>> = error.fetch_optional(&mut self.sql).await.unwrap();
        error.flatten()
    }

    /// Returns the error of the last rollout of a trigger.
    pub(crate) async fn error_of(&mut self, trigger: &str) -> Option<String> {
        sqlx::query_scalar(
            "select o.error from rollout o join trigger t on t.id = o.trigger_id where t.name = $1 order by o.number desc limit 1",
        )
        .bind(trigger)
        .fetch_one(&mut self.sql)
        .await
        .unwrap()
    }

    /// Returns the errors of all attempts that have failed, in order.
    pub(crate) async fn errors(&mut self) -> Vec<String> {
        sqlx::query_scalar(
            "select error from rollout_attempt where error is not null order by started_at",
        )
        .fetch_all(&mut self.sql)
        .await
        .unwrap()
    }

    /// Returns the outputs of all attempts that have ended, in order.
    pub(crate) async fn said(&mut self) -> Vec<String> {
        sqlx::query_scalar("select coalesce(said, '') from rollout_attempt where finished_at is not null order by started_at")
            .fetch_all(&mut self.sql)
            .await
            .unwrap()
    }

    /// Waits until the rollout of this number has this state.
    pub(crate) async fn wait(&mut self, number: i64, state: RolloutState) {
        eventually(
            &format!("rollout {number} to be {state}"),
            SOON,
            async || {
                self.rollouts()
                    .await
                    .iter()
                    .any(|rollout| rollout.0 == number && rollout.1 == state)
                    .then_some(())
            },
        )
        .await;
    }

    /// Waits until the ledger is published, and returns numbers and states of all entries in
    /// ROLLOUTS, in order.
    pub(crate) async fn published(&mut self) -> Vec<(u64, RolloutState)> {
        eventually("the ledger to be published", SOON, async || {
            let left: i64 =
                sqlx::query_scalar("select count(*) from rollout_change where not published")
                    .fetch_one(&mut self.sql)
                    .await
                    .unwrap();
            (left == 0).then_some(())
        })
        .await;
        let messages = self.nats.messages("ROLLOUTS").await;
        messages
            .iter()
            .filter(|(subject, _)| subject.starts_with("tagtrail.rollout."))
            .map(|(subject, body)| {
                let event: Event<Rollout> = serde_json::from_slice(body).unwrap();
                assert_eq!(
                    *subject,
                    format!("tagtrail.rollout.shop.{}", event.data.state)
                );
                (event.data.number, event.data.state)
            })
            .collect()
    }
}

/// Waits long enough for planner and workers, which look every second, to do a forbidden thing.
pub(crate) async fn a_while() {
    tokio::time::sleep(Duration::from_millis(1500)).await;
}
