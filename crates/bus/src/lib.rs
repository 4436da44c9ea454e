//! The bus: NATS `JetStream` as Tagtrail uses it, and the only crate that names `async-nats`.
//!
//! In scope: connecting ([`Bus`]), the streams and their limits ([`topology`]: the one place to
//! look), publishing with an acknowledgement that can be awaited later ([`publish`]), behind a
//! fence ([`fence`]), or several at once ([`group`]), reading a stream from a known position
//! ([`consume`]), looking single messages up (`lookup.rs`), and sharing messages among instances
//! ([`jobs`]).
//!
//! Out of scope: the meaning of the messages (`tagtrail-proto`), and storing positions (each
//! service's `store/`).

mod address;
pub mod consume;
mod durability;
pub mod fence;
pub mod group;
pub mod jobs;
mod lookup;
pub mod publish;
pub mod pushes;
mod request;
mod server;
mod session;
mod subscription;
pub mod topology;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use address::Address;
use pushes::Layout;
pub use request::{Request, Requests};
pub use session::Session;
use session::Sessions;
pub use subscription::Subscription;
use wait::{Patience, first_connection};

/// Settings of the connection, as flags and environment variables of every service that uses the
/// bus.
#[derive(Debug, Clone, clap::Args)]
pub struct BusArgs {
    /// URL of NATS with its credentials, such as `nats://user:password@127.0.0.1:4222`; several
    /// servers of one cluster are separated by commas.
    #[arg(
        long = "nats-url",
        env = "NATS_URL",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222"
    )]
    pub url: String,
    /// Number of partitions of the stream PUSHES, fixed once the stream exists.
    #[arg(long, env = "TAGTRAIL_PARTITIONS", default_value_t = tagtrail_proto::PARTITIONS, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub partitions: u16,
    /// Copies that the cluster keeps of every stream: 1 for a single server, 3 for a cluster of
    /// three.
    #[arg(long = "nats-replicas", env = "TAGTRAIL_NATS_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,
    /// Number of streams of pushes, if this process makes them; there is one for all partitions, or
    /// several share the partitions. `tagtrail migrate` moves existing ones [default: 1].
    #[arg(long, env = "TAGTRAIL_PUSH_STREAMS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub push_streams: Option<u16>,
    /// URL of the monitoring port of nats-server, such as `http://127.0.0.1:8222`, to report at the
    /// start whether nats-server syncs each message to disk [default: no report].
    #[arg(long = "nats-monitor-url", env = "NATS_MONITOR_URL")]
    pub monitor_url: Option<String>,
    /// Whether nats-server syncs each message to disk (`sync_interval: always`): the gateway then
    /// stores pushes that wait in groups [default: as the monitoring port says; without it false].
    #[arg(long = "nats-sync-always", env = "TAGTRAIL_NATS_SYNC_ALWAYS")]
    pub sync_always: Option<bool>,
}

impl BusArgs {
    /// Returns the defaults, for the server at this URL.
    #[must_use]
    pub fn new(url: &str) -> BusArgs {
        BusArgs {
            url: url.to_owned(),
            partitions: tagtrail_proto::PARTITIONS,
            replicas: 1,
            push_streams: None,
            monitor_url: None,
            sync_always: None,
        }
    }
}

/// An error of the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The address or the credentials are wrong; waiting can't help.
    #[error("NATS refuses the connection: check the address and the credentials in NATS_URL")]
    Refused(#[source] async_nats::ConnectError),
    /// The server or its streams don't fit this program; waiting can't help.
    #[error("{0}")]
    Unsuitable(String),
    /// The server can't be reached or didn't answer in time; a retry may succeed.
    #[error("NATS did not answer: {0}")]
    Unreachable(String),
    /// The program was asked to stop while waiting.
    #[error("stopped while waiting for NATS")]
    Stopped,
}

/// A subscription without any guarantee of delivery; see [`Bus::listen`].
#[derive(Debug)]
pub struct Listener(async_nats::Subscriber);

impl Listener {
    /// Waits for the next message. `None`: the subscription has ended.
    pub async fn next(&mut self) -> Option<()> {
        use futures_util::StreamExt as _;
        self.0.next().await.map(|_| ())
    }
}

/// The state of the connection, as the client reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// `true` while connected.
    pub up: bool,
    /// The number of connections made so far. A reader of an earlier generation must be reopened:
    /// the server may have been replaced in between.
    pub generation: u64,
}

/// A connection to NATS. Cheap to clone; all clones share one connection.
#[derive(Debug, Clone)]
pub struct Bus {
    context: jetstream::Context,
    link: watch::Receiver<Link>,
    sessions: Sessions,
    /// Name of the service.
    name: Arc<str>,
    partitions: u16,
    replicas: u8,
    push_streams: Option<u16>,
    layout: Arc<watch::Sender<Layout>>,
    /// Whether the server is known to sync each message.
    sync_always: bool,
}

/// Longest wait for an answer of the server.
const ANSWER: Duration = Duration::from_secs(3);
/// Most outstanding acknowledgements: three times the windows of all partitions of a process,
/// because a dropped acknowledgement keeps its place until it times out (measured: 8 publishers
/// blocked at the client's default).
const UNACKNOWLEDGED: usize = 65_536;
/// Interval of the test messages that show whether the server stores messages.
const CANARY: Duration = Duration::from_secs(10);

impl Bus {
    /// Connects as the service `name`, waiting for the server without a limit (the log tells of
    /// it), then creates or updates the streams and logs each setting under which the server may
    /// lose acknowledged messages.
    ///
    /// # Errors
    /// [`BusError::Refused`] and [`BusError::Unsuitable`] when waiting can't help,
    /// [`BusError::Stopped`] when `shutdown` fires first.
    pub async fn connect(
        args: &BusArgs,
        name: &str,
        shutdown: &CancellationToken,
    ) -> Result<Bus, BusError> {
        Bus::prepare(args, name, Patience::until(shutdown)).await
    }

    /// Connects as [`Bus::connect`] does, and waits for the server and its streams up to `wait`.
    ///
    /// # Errors
    /// [`BusError::Unreachable`] with the cause of the last failed attempt; else as
    /// [`Bus::connect`].
    pub async fn connect_within(
        args: &BusArgs,
        name: &str,
        wait: Duration,
    ) -> Result<Bus, BusError> {
        Bus::prepare(args, name, Patience::of(wait)).await
    }

    /// Connects as [`Bus::connect`] does, without touching the streams: for a program that neither
    /// reads nor writes them.
    ///
    /// # Errors
    /// [`BusError::Refused`] and [`BusError::Unsuitable`] when waiting can't help,
    /// [`BusError::Stopped`] when `shutdown` fires first.
    pub async fn observe(
        args: &BusArgs,
        name: &str,
        shutdown: &CancellationToken,
    ) -> Result<Bus, BusError> {
        Bus::open(args, name, &mut Patience::until(shutdown)).await
    }

    /// Connects as [`Bus::observe`] does, and waits for the server up to `wait`.
    ///
    /// # Errors
    /// [`BusError::Unreachable`] with the cause of the last failed attempt; else as
    /// [`Bus::observe`].
    pub async fn observe_within(
        args: &BusArgs,
        name: &str,
        wait: Duration,
    ) -> Result<Bus, BusError> {
        Bus::open(args, name, &mut Patience::of(wait)).await
    }

    async fn prepare(args: &BusArgs, name: &str, mut patience: Patience) -> Result<Bus, BusError> {
        let mut bus = Bus::open(args, name, &mut patience).await?;
        bus.ensure_streams(&mut patience).await?;
        let found = durability::report(&bus, args.monitor_url.as_deref()).await;
        bus.sync_always = args.sync_always.or(found).unwrap_or(false);
        Ok(bus)
    }

    async fn open(args: &BusArgs, name: &str, patience: &mut Patience) -> Result<Bus, BusError> {
        let (sender, link) = watch::channel(Link {
            up: false,
            generation: 0,
        });
        let address = Arc::new(Address::parse(&args.url, name)?);
        let options = address.with_credentials(address.common(async_nats::ConnectOptions::new()));
        let made = AtomicU64::new(0);
        let options = options
            .name(format!("tagtrail-{name}"))
            .reconnect_delay_callback(|attempt| {
                tagtrail_daemon::backoff(u32::try_from(attempt).unwrap_or(u32::MAX))
                    .min(Duration::from_secs(2))
            })
            .event_callback(move |event| {
                note_event(&event, &made, &sender);
                std::future::ready(())
            });
        let client = first_connection(options, &address, patience).await?;
        server::check(&client)?;
        Ok(Bus {
            context: context(client),
            link,
            sessions: Sessions::new(address),
            name: name.into(),
            partitions: args.partitions,
            replicas: args.replicas,
            push_streams: args.push_streams,
            layout: Arc::new(watch::Sender::new(Layout::default())),
            sync_always: false,
        })
    }

    /// Subscribes to a subject (wildcards allowed), without any guarantee: a message published
    /// during a disconnection is missed. For readers of Postgres that only need a hint that
    /// something is new.
    ///
    /// # Errors
    /// [`BusError::Unreachable`].
    pub async fn listen(&self, subject: String) -> Result<Listener, BusError> {
        let messages = self.context.client().subscribe(subject).await;
        messages
            .map(Listener)
            .map_err(|err| BusError::Unreachable(err.to_string()))
    }

    /// Returns the state of the connection, to be watched.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Returns the session of this process, a connection for messages whose order must survive a
    /// lost connection; opens one if there is none.
    ///
    /// # Errors
    /// [`BusError::Unreachable`].
    pub async fn session(&self) -> Result<Session, BusError> {
        self.sessions.session().await
    }

    /// Waits, for a second at most, until the client has written all buffered messages: for acks
    /// before a stop.
    pub async fn flush(&self) {
        let client = self.context.client();
        let _ = tokio::time::timeout(Duration::from_secs(1), client.flush()).await;
    }

    /// Returns the number of partitions of PUSHES.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Reports the part `nats` of the service's readiness until `shutdown`: connected, and a test
    /// message was stored. (A server with a full disk still answers everything else.) Recreates
    /// missing streams, since the server may have come back with another disk.
    pub async fn report_health(
        self,
        health: tagtrail_daemon::Health,
        shutdown: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        let mut link = self.link();
        let mut reported = 0;
        loop {
            let Link { up, generation } = *link.borrow_and_update();
            let state = if up {
                self.probe(generation, &mut reported).await
            } else {
                Err("not connected to NATS".to_owned())
            };
            health.set("nats", state);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(CANARY) => {}
                changed = link.changed() => if changed.is_err() { shutdown.cancelled().await; return Ok(()) },
            }
        }
    }

    /// Checks the server of this generation of the connection. Logs the limits of each server once.
    async fn probe(&self, generation: u64, reported: &mut u64) -> Result<(), String> {
        // The client learns the version of a new server a moment after it reports the connection,
        // and before it writes a message.
        self.flush().await;
        let client = self.context.client();
        server::check(&client).map_err(|err| err.to_string())?;
        if *reported != generation {
            server::report(&client);
            *reported = generation;
        }
        self.ensure_all().await.map_err(|err| err.to_string())?;
        self.canary().await
    }

    /// Publishes a test message and waits for its acknowledgement.
    async fn canary(&self) -> Result<(), String> {
        let subject = format!("tagtrail.canary.{}", self.name);
        // Large enough to need a new block: on a full disk a few bytes may still fit into the last
        // one.
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let body = format!("{now:<16384}");
        let message = PublishMessage::build()
            .payload(body.into())
            .header(publish::CONTENT_TYPE, "text/plain");
        let stored = async { self.context.send_publish(subject, message).await?.await };
        match stored.await {
            Ok(_) => Ok(()),
            Err(err) => Err(format!(
                "NATS stores no messages: {err}; see the log of nats-server. If its disk is full, free some space, then restart nats-server: it does not recover by itself"
            )),
        }
    }

    async fn ensure_streams(&self, patience: &mut Patience) -> Result<(), BusError> {
        loop {
            match self.ensure_all().await {
                Ok(()) => return Ok(()),
                Err(BusError::Unreachable(cause)) => patience.pause(cause).await?,
                Err(other) => return Err(other),
            }
        }
    }
}

/// Logs an event of the client, and records a change of the connection.
fn note_event(event: &async_nats::Event, made: &AtomicU64, link: &watch::Sender<Link>) {
    use async_nats::Event;
    let changed = match event {
        Event::Connected => Link {
            up: true,
            generation: made.fetch_add(1, Ordering::Relaxed) + 1,
        },
        Event::Disconnected | Event::Closed => Link {
            up: false,
            generation: made.load(Ordering::Relaxed),
        },
        Event::ServerError(_) | Event::ClientError(_) => {
            tracing::warn!("NATS: {event}");
            return;
        }
        _ => {
            tracing::debug!("NATS: {event}");
            return;
        }
    };
    tracing::info!(generation = changed.generation, "NATS: {event}");
    link.send_replace(changed);
}

fn context(client: async_nats::Client) -> jetstream::Context {
    jetstream::ContextBuilder::new()
        .timeout(ANSWER)
        .ack_timeout(ANSWER)
        .max_ack_inflight(UNACKNOWLEDGED)
        .build(client)
}
