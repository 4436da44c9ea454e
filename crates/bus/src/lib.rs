//! The bus: NATS `JetStream` as Tagtrail uses it, and the only crate that names `async-nats`.
//!
//! In scope: connecting ([`Bus`]), the streams and their limits ([`topology`]: the one place to look), publishing with an
//! acknowledgement that can be awaited later and with a fence ([`publish`]), reading a stream from a known position
//! ([`consume`]), looking single messages up (`lookup.rs`), and sharing messages among instances ([`jobs`]).
//!
//! Out of scope: what the messages mean (`tagtrail-proto`), and where positions are kept (each service's `store.rs`).

mod address;
pub mod consume;
mod durability;
pub mod jobs;
mod lookup;
pub mod publish;
mod session;
mod subscription;
pub mod topology;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use address::Address;
pub use session::Session;
use session::Sessions;
pub use subscription::Subscription;

/// Settings of the connection, as flags and environment variables of every service that uses the bus.
#[derive(Debug, Clone, clap::Args)]
pub struct BusArgs {
    /// URL of NATS with its credentials, such as `nats://user:password@127.0.0.1:4222`; several are separated by commas.
    #[arg(
        long = "nats-url",
        env = "NATS_URL",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222"
    )]
    pub url: String,
    /// Number of partitions of the stream PUSHES; it can't be changed once the stream exists.
    #[arg(long, env = "TAGTRAIL_PARTITIONS", default_value_t = tagtrail_proto::PARTITIONS, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub partitions: u16,
    /// Copies that the cluster keeps of every stream: 1 for a single server, 3 for a cluster of three.
    #[arg(long = "nats-replicas", env = "TAGTRAIL_NATS_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,
    /// URL of the monitoring port of nats-server, such as `http://127.0.0.1:8222`: to say at the start whether each message is
    /// synced to disk [default: not looked at].
    #[arg(long = "nats-monitor-url", env = "NATS_MONITOR_URL")]
    pub monitor_url: Option<String>,
}

impl BusArgs {
    /// The defaults, for the server at this URL.
    #[must_use]
    pub fn new(url: &str) -> BusArgs {
        BusArgs {
            url: url.to_owned(),
            partitions: tagtrail_proto::PARTITIONS,
            replicas: 1,
            monitor_url: None,
        }
    }
}

/// What went wrong with the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The address or the credentials can't be right, whatever is waited for.
    #[error("NATS refuses the connection: check the address and the credentials in NATS_URL")]
    Refused(#[source] async_nats::ConnectError),
    /// The server, or what it holds, doesn't fit this program; waiting would not help.
    #[error("{0}")]
    Unsuitable(String),
    /// The server can't be reached or didn't answer in time; worth another try.
    #[error("NATS did not answer: {0}")]
    Unreachable(String),
    /// The program was asked to stop while it waited.
    #[error("stopped while waiting for NATS")]
    Stopped,
}

/// See [`Bus::listen`].
#[derive(Debug)]
pub struct Listener(async_nats::Subscriber);

impl Listener {
    /// Waits for the next message. `None`: there will be no more.
    pub async fn next(&mut self) -> Option<()> {
        use futures_util::StreamExt as _;
        self.0.next().await.map(|_| ())
    }
}

/// State of the connection, as seen by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether there is a connection now.
    pub up: bool,
    /// Rises by one with every connection made. A reader or publisher made under an older one must be made again, since
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
}

/// How long any one answer of the server is waited for.
const ANSWER: Duration = Duration::from_secs(3);
/// Acknowledgements that may be outstanding at once. The windows of all partitions of one process fit three times, because a
/// dropped acknowledgement keeps its place until it times out (research: 8 publishers stood still at the default).
const UNACKNOWLEDGED: usize = 65_536;
/// How often it is tried whether the server stores messages.
const CANARY: Duration = Duration::from_secs(10);
/// Oldest server that has per-stream persistence and the fence on another subject.
const MINIMUM: (u64, u64) = (2, 12);

impl Bus {
    /// Connects as `name` and waits for the server as long as it takes, saying so; then creates or checks the streams, and says
    /// in the log what of their settings is weak.
    ///
    /// # Errors
    /// [`BusError::Refused`] and [`BusError::Unsuitable`] when waiting can't help, [`BusError::Stopped`] when `shutdown`
    /// fires first.
    pub async fn connect(
        args: &BusArgs,
        name: &str,
        shutdown: &CancellationToken,
    ) -> Result<Bus, BusError> {
        let bus = Bus::observe(args, name, shutdown).await?;
        bus.ensure_streams(shutdown).await?;
        durability::report(&bus.context, args.monitor_url.as_deref()).await;
        Ok(bus)
    }

    /// The same without a look at the streams, for those who neither read nor write them.
    ///
    /// # Errors
    /// [`BusError::Refused`] and [`BusError::Unsuitable`] when waiting can't help, [`BusError::Stopped`] when `shutdown`
    /// fires first.
    pub async fn observe(
        args: &BusArgs,
        name: &str,
        shutdown: &CancellationToken,
    ) -> Result<Bus, BusError> {
        let (sender, link) = watch::channel(Link {
            up: false,
            generation: 0,
        });
        let made = AtomicU64::new(0);
        let address = Arc::new(Address::parse(&args.url, name)?);
        let options = address.with_credentials(address.common(async_nats::ConnectOptions::new()));
        let options = options
            .name(format!("tagtrail-{name}"))
            .reconnect_delay_callback(|attempt| {
                tagtrail_daemon::backoff(u32::try_from(attempt).unwrap_or(u32::MAX))
                    .min(Duration::from_secs(2))
            })
            .event_callback(move |event| {
                let link = match &event {
                    async_nats::Event::Connected => Some(Link {
                        up: true,
                        generation: made.fetch_add(1, Ordering::Relaxed) + 1,
                    }),
                    async_nats::Event::Disconnected | async_nats::Event::Closed => Some(Link {
                        up: false,
                        generation: made.load(Ordering::Relaxed),
                    }),
                    _ => None,
                };
                match (&event, link) {
                    (_, Some(link)) => {
                        tracing::info!(generation = link.generation, "NATS: {event}");
                        sender.send_replace(link);
                    }
                    (
                        async_nats::Event::ServerError(_) | async_nats::Event::ClientError(_),
                        None,
                    ) => {
                        tracing::warn!("NATS: {event}");
                    }
                    _ => tracing::debug!("NATS: {event}"),
                }
                std::future::ready(())
            });
        let client = first_connection(options, &address, shutdown).await?;
        let bus = Bus {
            context: context(client),
            link,
            sessions: Sessions::new(address),
            name: name.into(),
            partitions: args.partitions,
            replicas: args.replicas,
        };
        bus.check_version()?;
        Ok(bus)
    }

    /// What is published under a subject (which may hold wildcards) from now on, without any promise: for those who look
    /// elsewhere for what is true, and want to know when to look.
    ///
    /// # Errors
    /// [`BusError::Unreachable`].
    pub async fn listen(&self, subject: String) -> Result<Listener, BusError> {
        let messages = self.context.client().subscribe(subject).await;
        messages
            .map(Listener)
            .map_err(|err| BusError::Unreachable(err.to_string()))
    }

    /// The state of the connection, to be watched.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// A connection for messages whose order must hold over a loss of the connection; the whole process shares one.
    ///
    /// # Errors
    /// [`BusError::Unreachable`].
    pub async fn session(&self) -> Result<Session, BusError> {
        self.sessions.session().await
    }

    /// Waits until everything that was handed to the connection is written, a moment at most: for what needs no answer and is
    /// said last.
    pub async fn flush(&self) {
        let client = self.context.client();
        let _ = tokio::time::timeout(Duration::from_secs(1), client.flush()).await;
    }

    /// Number of partitions of PUSHES.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Reports as the part `nats` of the service's readiness, until `shutdown`, whether there is a connection and the server really
    /// stores what it is sent: one with a full disk still answers everything else. Streams that are gone are made again: the
    /// server may have come back with another disk.
    pub async fn report_health(
        self,
        health: tagtrail_daemon::Health,
        shutdown: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        let mut link = self.link();
        loop {
            let up = link.borrow_and_update().up;
            let state = if up {
                self.probe().await
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

    async fn probe(&self) -> Result<(), String> {
        let streams = topology::ensure(&self.context, self.partitions, self.replicas).await;
        streams.map_err(|err| err.to_string())?;
        self.canary().await
    }

    /// Has the server store a message.
    async fn canary(&self) -> Result<(), String> {
        let subject = format!("tagtrail.canary.{}", self.name);
        // Large enough to need new room: on a full disk a few bytes may still fit where the last ones stood.
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let body = format!("{now:<16384}");
        let stored = async { self.context.publish(subject, body.into()).await?.await };
        match stored.await {
            Ok(_) => Ok(()),
            Err(err) => Err(format!(
                "NATS stores no messages: {err}; see the log of nats-server. If its disk is full, make room and then restart it: it does not store again by itself"
            )),
        }
    }

    async fn ensure_streams(&self, shutdown: &CancellationToken) -> Result<(), BusError> {
        let mut attempt = 0;
        loop {
            match topology::ensure(&self.context, self.partitions, self.replicas).await {
                Ok(()) => return Ok(()),
                Err(BusError::Unreachable(cause)) => {
                    tracing::warn!("waiting for JetStream: {cause}");
                    pause(&mut attempt, shutdown).await?;
                }
                Err(other) => return Err(other),
            }
        }
    }

    fn check_version(&self) -> Result<(), BusError> {
        let version = self.context.client().server_info().version;
        let mut numbers = version
            .split('.')
            .map_while(|part| part.parse::<u64>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) if (major, minor) >= MINIMUM => Ok(()),
            _ => Err(BusError::Unsuitable(format!(
                "nats-server {version} is too old: Tagtrail needs {}.{} or newer (older ones lose data and can't fence); `make setup` fetches one",
                MINIMUM.0, MINIMUM.1
            ))),
        }
    }
}

fn context(client: async_nats::Client) -> jetstream::Context {
    jetstream::ContextBuilder::new()
        .timeout(ANSWER)
        .ack_timeout(ANSWER)
        .max_ack_inflight(UNACKNOWLEDGED)
        .build(client)
}

/// `async-nats` can retry the first connection by itself, but then bad credentials look like an absent server for ever.
async fn first_connection(
    options: async_nats::ConnectOptions,
    address: &Address,
    shutdown: &CancellationToken,
) -> Result<async_nats::Client, BusError> {
    use async_nats::ConnectErrorKind as Kind;
    let mut attempt = 0;
    loop {
        match options.clone().connect(address.servers.clone()).await {
            Ok(client) => return Ok(client),
            Err(err) => match err.kind() {
                Kind::ServerParse
                | Kind::Authentication
                | Kind::AuthorizationViolation
                | Kind::MaxReconnects => return Err(BusError::Refused(err)),
                Kind::Dns | Kind::TimedOut | Kind::Tls | Kind::Io => {
                    // The error of async-nats names the address without its credentials.
                    tracing::warn!("waiting for NATS: {err:#}");
                    pause(&mut attempt, shutdown).await?;
                }
            },
        }
    }
}

async fn pause(attempt: &mut u32, shutdown: &CancellationToken) -> Result<(), BusError> {
    *attempt = attempt.saturating_add(1);
    tokio::select! {
        () = shutdown.cancelled() => Err(BusError::Stopped),
        () = tokio::time::sleep(tagtrail_daemon::backoff(*attempt)) => Ok(()),
    }
}
