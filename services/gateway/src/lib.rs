//! The gateway receives the webhooks of registries and publishes their events on the bus.
//!
//! In scope: authentication of senders, decoding of bodies ([`source`](self), one file for each
//! kind), and answering 2xx only for stored events. The gateway has no database: on 503 a
//! sender keeps its event and sends it again. In memory the gateway keeps only the numbers of
//! bodies that it did not accept ([`receive`](self), `attempts`), so that a retry is a duplicate.
//!
//! Also here: the settings to make in a registry, so that its events reach a source ([`setup()`]),
//! for `tagtrail doctor`.
//!
//! Out of scope: the effect of a push on its tag (the indexer), digests that an event does not name
//! (the resolver).
//!
//! | answer | when |
//! |---|---|
//! | 202 | every event of the body is stored, or need not be; `{"accepted","unresolved","ignored","quarantined"}` count the events, `reasons` explains the last two |
//! | 400 | a header that may prove the sender's identity has several values; the body was not read |
//! | 401 | no live secret of the source is in the request, and the body was not read; or the signature does not match the body |
//! | 429 | the address has sent many wrong proofs of identity; a right proof is always accepted |
//! | 404, 405 | no source has the path (counted, and logged below `/hooks`), the method is not POST |
//! | 408, 413, 415 | the body took over 10 s, or has a signature and arrives at less than 16 KiB/s; has over 8 MiB (from GitHub 25), or is compressed |
//! | 503 | the source is broken in `tagtrail.toml`, so that its registry sends again after the repair; the keys that verify tokens can't be had; or an event may be missing on the bus: NATS is down, slow or full, or the bodies being received fill the memory for bodies; `Retry-After: 1` |
//!
//! An authentic but malformed body also gets 202, and is kept in QUARANTINE: on any other status
//! Distribution sends the same event for ever, and blocks the events after it. Events outside the
//! `repositories` of a source get 202 for the same reason: a registry notifies of all its
//! repositories alike, so refusing some by status would stop the rest.

mod commit;
mod config;
mod error;
mod follow;
mod interpret;
mod metrics;
mod movers;
mod proof;
mod publish;
mod receive;
mod setup;
mod shared;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, RwLock};

use anyhow::bail;
use tagtrail_bus::{Bus, BusError};
use tagtrail_config::Follower;
use tagtrail_daemon::http::{self, Limits};
use tagtrail_daemon::{Context, Tasks};
use tokio::net::TcpListener;

use crate::config::Settings;
use crate::publish::Outlet;
use crate::shared::Shared;

pub use config::{Config, check};
pub use interpret::Receipt;
pub use movers::warnings;
pub use receive::replay::{ReplayError, replay};
pub use setup::{KindSetup, Setup, kinds, setup};

/// Listens for webhooks until shutdown.
///
/// # Errors
/// Mistakes that waiting can't heal: a wrong `tagtrail.toml`, an address in use, refused
/// credentials, streams with other settings.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    let listener = bind(config.listen, "--listen").await?;
    serve(listener, config, ctx).await
}

/// Binds the address for webhooks. `flag` is the flag that sets it, for errors.
///
/// # Errors
/// The address can't be bound: the error names cause and cure.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    http::listen(address, "webhooks", flag).await
}

/// As [`run`], with a listener that the caller bound, and so knows the address of.
///
/// # Errors
/// As [`run`].
pub async fn serve(listener: TcpListener, config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("http");
    ctx.health.register("nats");
    let files = Follower::start(&config.config)?;
    let path = config.config.clone();
    let Settings {
        sources,
        registries,
        hosts,
        broken,
    } = Settings::read(&files.file(), None);
    ctx.metrics
        .config_errors("gateway", files.file().mistakes(&broken));
    tracing::info!(address = %listener.local_addr()?, sources = sources.good.len(), "listening for webhooks");
    let metrics = metrics::Metrics::new(&ctx.metrics);
    metrics.sources(&sources);
    let shared = Arc::new(Shared {
        sources: RwLock::new(Arc::new(sources)),
        outlet: OnceLock::new(),
        budget: receive::body::Budget::default(),
        attempts: receive::attempts::Attempts::default(),
        pulls: receive::pulls::Pulls::new(registries),
        metrics,
        unknown_paths: receive::unknown::Throttle::default(),
    });
    // Requests are accepted from the start: until NATS is reached, the answer is 503.
    let router = receive::hook::router(Arc::clone(&shared));
    ctx.health.set("http", Ok(()));
    let mut tasks = Tasks::new();
    let limits = Limits {
        strangers: true,
        ..Limits::default()
    };
    tasks.spawn(
        "http",
        http::serve(listener, router, ctx.shutdown.clone(), limits, hosts),
    );
    let following = follow::follow(Arc::clone(&shared), files, ctx.clone());
    tasks.spawn("files", following);
    tasks.spawn("bus", connect(shared, config.bus, path, ctx.clone()));
    tasks.join(&ctx).await
}

/// Connects to NATS, then reports the health of the connection.
async fn connect(
    shared: Arc<Shared>,
    args: tagtrail_bus::BusArgs,
    config: PathBuf,
    ctx: Context,
) -> anyhow::Result<()> {
    let bus = match Bus::connect(&args, "gateway", &ctx.shutdown).await {
        Err(BusError::Stopped) => return Ok(()),
        connected => connected?,
    };
    let (queues, committing) = if bus.prefers_groups() {
        tracing::info!(
            "pushes that wait are stored in groups, because nats-server syncs each message"
        );
        commit::committers(&bus, &shared.metrics)
    } else {
        Default::default()
    };
    let outlet = Outlet::new(bus.clone(), queues);
    if shared.outlet.set(outlet).is_err() {
        bail!("the gateway connected to NATS twice");
    }
    // A committer ends after the last receiver of bodies, so also bodies that are received during
    // a stop are stored.
    drop(shared);
    let replaying = receive::replays::answer(bus.clone(), &config, ctx.clone());
    let reporting = bus.report_health(ctx.health, ctx.shutdown);
    let (reported, replayed, _) = tokio::join!(reporting, replaying, committing.join_all());
    reported?;
    replayed
}

/// Interpretation without a server or a bus, for the fuzz targets in `fuzz/`.
#[cfg(fuzzing)]
pub mod fuzz {
    use axum::http::header::CONTENT_TYPE;
    use axum::http::{HeaderMap, HeaderValue};
    use tagtrail_config::File;
    use time::OffsetDateTime;

    use crate::interpret::{Interpretation, Receipt};
    use crate::receive::attempts::Identity;

    /// Returns the subjects and payloads of the messages that a body becomes. `place` is the index
    /// of the source in the file.
    pub fn understand(
        file: &File,
        place: usize,
        content_type: &[u8],
        body: &[u8],
    ) -> Option<(Receipt, Vec<(String, Vec<u8>)>)> {
        let rules = crate::config::rules(file, file.source.get(place)?).ok()?;
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(content_type) {
            headers.insert(CONTENT_TYPE, value);
        }
        let identity = Identity {
            number: 0,
            received_at: OffsetDateTime::now_utc(),
        };
        let interpretation = Interpretation::new(&rules, &headers, body, identity, 8);
        let messages = interpretation.messages.iter().map(|message| {
            let message = message.message().expect("a message that can be written");
            (message.subject.to_string(), message.payload.to_vec())
        });
        Some((interpretation.receipt, messages.collect()))
    }
}
