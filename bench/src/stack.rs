//! A nats-server and a database, with the processes of the product.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::{self, message::PublishMessage};
use futures_util::StreamExt as _;
use sqlx::{Connection as _, PgConnection};
use tagtrail_bus::{Bus, BusArgs};
use tagtrail_proto::{Action, Digest, Origin, PARTITIONS, Push, Scope, Subject, TimeSource};
use tagtrail_testkit::{Process, TestNats, free_address};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::policies::SECRET;
use crate::report::Goal;

/// Repositories with pushes, and tags in each.
const REPOSITORIES: usize = 2_000;
const TAGS: usize = 10;
/// Registry of all repositories.
pub(crate) const REGISTRY: &str = "registry.example.com";

/// A nats-server and a database for the product.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) nats: TestNats,
    pub(crate) database: String,
    pub(crate) jetstream: jetstream::Context,
    /// A `tagtrail.toml` without registries: no service asks any.
    no_registries: PathBuf,
    /// True if the server syncs each message of PUSHES to disk.
    synced: bool,
    /// The program that is measured.
    program: PathBuf,
}

/// A process of the product, and the address of its admin page.
#[derive(Debug)]
pub(crate) struct ServiceProcess {
    pub(crate) process: Process,
    admin: String,
}

impl ServiceProcess {
    /// Waits until the process is ready.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let url = format!("http://{}/readyz", self.admin);
        let begun = Instant::now();
        while crate::http::get(&self.admin, "/readyz").await.ok() != Some(200) {
            anyhow::ensure!(
                begun.elapsed() < Duration::from_secs(60),
                "{url} does not become ready; its log:\n{}",
                self.process.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Requests a stop, and waits for the end of the process.
    pub(crate) async fn stop(mut self) {
        self.process.signal("TERM");
        self.process.ended(Duration::from_secs(60)).await;
    }
}

impl Stack {
    /// Starts a nats-server and creates the streams. `durable`: with our shipped settings, which
    /// sync each message of PUSHES; otherwise with the defaults of nats-server.
    pub(crate) async fn start(
        folder: &Path,
        durable: bool,
        database: String,
    ) -> anyhow::Result<Stack> {
        let nats = TestNats::start_in(&folder.join("server"), durable).await;
        Bus::connect(
            &BusArgs::new(nats.url()),
            "bench",
            &CancellationToken::new(),
        )
        .await?;
        Stack::of(tagtrail_testkit::binary(), folder, nats, durable, database).await
    }

    /// As [`Stack::start`], for another build of the program, which creates its own schema in an
    /// empty database, and its own streams, with these additions to the environment of its
    /// `migrate`.
    pub(crate) async fn start_with(
        program: &Path,
        folder: &Path,
        durable: bool,
        database: String,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Stack> {
        let nats = TestNats::start_in(&folder.join("server"), durable).await;
        let stack = Stack::of(program.to_owned(), folder, nats, durable, database).await?;
        let environment = [
            ("DATABASE_URL", stack.database.as_str()),
            ("NATS_URL", stack.nats.url()),
        ];
        let environment = [&environment, settings].concat();
        let mut migrating = Process::of(program, &["migrate"], &environment);
        let ended = migrating.ended(Duration::from_secs(60)).await;
        anyhow::ensure!(ended.success(), "migrate failed:\n{}", migrating.log());
        Ok(stack)
    }

    async fn of(
        program: PathBuf,
        folder: &Path,
        nats: TestNats,
        synced: bool,
        database: String,
    ) -> anyhow::Result<Stack> {
        let no_registries = folder.join("tagtrail.toml");
        std::fs::write(&no_registries, "")?;
        let client = nats
            .client()
            .await
            .context("no connection to nats-server")?;
        let context = jetstream::ContextBuilder::new()
            .timeout(Duration::from_secs(20))
            .max_ack_inflight(65_536)
            .build(client);
        Ok(Stack {
            nats,
            database,
            jetstream: context,
            no_registries,
            synced,
            program,
        })
    }

    /// Returns the goal, if the server uses its default `sync_interval`: goals hold only there.
    pub(crate) fn goal(&self, goal: Goal) -> Goal {
        if self.synced { Goal::None } else { goal }
    }

    pub(crate) async fn db(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.database).await?)
    }

    /// Starts a service as shipped, with these additions to its environment.
    pub(crate) fn service(&self, name: &str, environment: &[(&str, &str)]) -> ServiceProcess {
        let admin = free_address();
        let file = self.no_registries.to_string_lossy();
        let synced = if self.synced { "true" } else { "false" };
        let common = [
            ("TAGTRAIL_CONFIG", file.as_ref()),
            ("DATABASE_URL", self.database.as_str()),
            ("NATS_URL", self.nats.url()),
            ("TAGTRAIL_ADMIN", &admin),
            // A single instance shares no partitions; `tagtrail up` sets the same value.
            ("TAGTRAIL_CLAIM_INTERVAL_MS", "20"),
            // As `tagtrail up` sets it for its own nats-server.
            ("TAGTRAIL_NATS_SYNC_ALWAYS", synced),
        ];
        let environment: Vec<(&str, &str)> = common.iter().chain(environment).copied().collect();
        let process = Process::of(&self.program, &[name], &environment);
        ServiceProcess { process, admin }
    }

    /// Starts the trigger service with a file of settings, and waits until it is ready.
    pub(crate) async fn trigger(&self, config: &Path) -> anyhow::Result<ServiceProcess> {
        let config = config.to_str().context("no path")?;
        let service = self.service("trigger", &[("TAGTRAIL_CONFIG", config), SECRET]);
        service.ready().await?;
        Ok(service)
    }

    /// Publishes pushes to PUSHES, as the gateway does. Every push moves its tag.
    pub(crate) async fn prefill(&self, count: usize) -> anyhow::Result<()> {
        let start = OffsetDateTime::now_utc() - time::Duration::seconds(30);
        let messages = (0..count).map(|number| {
            let push = push(number, start + time::Duration::microseconds(number as i64));
            let subject = Subject::of_push(&push, PARTITIONS).to_string();
            let id = push.message_id();
            Ok((subject, id, serde_json::to_vec(&push.event())?))
        });
        publish(&self.jetstream, messages).await
    }

    /// Returns the last sequence of a stream.
    pub(crate) async fn last(&self, stream: &str) -> anyhow::Result<u64> {
        let stream = self.jetstream.get_stream(stream).await?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Returns the time at which a message was stored, by the server's clock.
    pub(crate) async fn stored_at(
        &self,
        stream: &str,
        sequence: u64,
    ) -> anyhow::Result<OffsetDateTime> {
        let stream = self.jetstream.get_stream(stream).await?;
        Ok(stream.get_raw_message(sequence).await?.time)
    }
}

/// Returns the name of a repository by its number; `load.rs` uses the same names.
pub(crate) fn repository(number: usize) -> String {
    format!("team-{}/app-{number}", number % 50)
}

/// Returns the image with this number: first a tag of each repository, then the next tag of each.
pub(crate) fn image(place: usize, repositories: usize) -> String {
    let (number, tag) = (place % repositories, place / repositories);
    format!("{REGISTRY}/{}:v{tag}", repository(number))
}

/// Returns the image of push number `number` of [`push`].
pub(crate) fn any_image(number: usize) -> String {
    image(number % (REPOSITORIES * TAGS), REPOSITORIES)
}

/// Builds push number `number` at a time: the pushes go round all tags.
pub(crate) fn push(number: usize, at: OffsetDateTime) -> Push {
    let place = number % (REPOSITORIES * TAGS);
    let (repository, tag) = (place % REPOSITORIES, place / REPOSITORIES);
    let digest = Digest::sha256_of(format!("{at}/{number}").as_bytes());
    Push {
        action: Action::Push,
        scope: Scope::Tag,
        registry: parsed(REGISTRY),
        repository: parsed(&self::repository(repository)),
        tag: Some(parsed(&format!("v{tag}"))),
        digest: Some(digest),
        media_type: Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        size: Some(1234),
        actor: Some("ci".to_owned()),
        occurred_at: at,
        occurred_at_source: TimeSource::Event,
        source: "main".to_owned(),
        origin: Origin::Event,
        event_id: format!("{}-{number}", at.unix_timestamp_nanos()),
    }
}

/// Parses a name of this program, which is valid.
pub(crate) fn parsed<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    match text.parse() {
        Ok(parsed) => parsed,
        Err(error) => unreachable!("{text}: {error:?}"),
    }
}

/// Publishes messages (subject, `Nats-Msg-Id`, payload) with at most 1,024 unacknowledged.
pub(crate) async fn publish(
    context: &jetstream::Context,
    messages: impl Iterator<Item = anyhow::Result<(String, String, Vec<u8>)>>,
) -> anyhow::Result<()> {
    const WINDOW: usize = 1024;
    let mut window = futures_util::stream::FuturesOrdered::new();
    for message in messages {
        let (subject, id, payload) = message?;
        if window.len() == WINDOW
            && let Some(ack) = window.next().await
        {
            let _: Result<_, async_nats::jetstream::context::PublishError> = ack;
            ack?;
        }
        let message = PublishMessage::build()
            .message_id(&id)
            .payload(payload.into());
        window.push_back(context.send_publish(subject, message).await?.into_future());
    }
    while let Some(ack) = window.next().await {
        ack?;
    }
    Ok(())
}
