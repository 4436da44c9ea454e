//! The gateway hears: it takes the webhooks of registries and puts what they say on the bus.
//!
//! In scope: who may post, what each kind of source says ([`source`](self), one file a kind), and answering 2xx only for what is
//! stored. It has no database, and remembers nothing: a sender that is told 503 keeps its event and sends it again.
//!
//! Also here: what has to be set in a registry so that it speaks to a source ([`setup()`]), for `tagtrail doctor`.
//!
//! Out of scope: what a push changes (the indexer), digests that an event did not name (the resolver).
//!
//! | answer | when |
//! |---|---|
//! | 202 | everything in the body is stored, or is of no interest; `{"accepted","unresolved","ignored","quarantined"}` count the events, `reasons` says what was wrong with some |
//! | 401 | no live secret of the source was shown, and nothing was read; or the signature is not that of the body |
//! | 404, 405 | no such source, not a POST |
//! | 408, 413, 415 | the body took over 10 s, has over 8 MiB (of GitHub 25), or is compressed |
//! | 503 | not everything is known to be stored: NATS is down, slow or full, or there are too many bodies at once; `Retry-After: 1` |
//!
//! A body that is authentic but not understood is answered 202 too, and kept in QUARANTINE: on anything else Distribution sends
//! the same event for ever, and blocks those after it. The same holds for repositories outside the `repositories` of a source:
//! a registry notifies of all of its repositories alike, so refusing some by status would stop the rest.

mod config;
mod error;
mod interpret;
mod metrics;
mod proof;
mod publish;
mod receive;
mod setup;
mod shared;
mod source;

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use tagtrail_bus::{Bus, BusError};
use tagtrail_daemon::http::{self, Limits};
use tagtrail_daemon::{Context, Tasks};
use tokio::net::TcpListener;

use crate::shared::Shared;

pub use config::{Config, check};
pub use interpret::Receipt;
pub use receive::replay::{ReplayError, replay};
pub use setup::{KindSetup, Setup, kinds, setup};

/// Listens, and runs until a stop is asked for.
///
/// # Errors
/// What waiting can't heal: a wrong `tagtrail.toml`, an address in use, refused credentials, streams that do not fit.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "can't listen on {}; --listen sets another address",
            config.listen
        )
    })?;
    serve(listener, config, ctx).await
}

/// The same with a listener of the caller's, who so knows the address.
///
/// # Errors
/// As [`run`].
pub async fn serve(listener: TcpListener, config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("http");
    ctx.health.register("nats");
    let sources = config.sources()?;
    tracing::info!(address = %listener.local_addr()?, sources = sources.len(), "listening for webhooks");
    let shared = Arc::new(Shared {
        sources,
        bus: OnceLock::new(),
        budget: receive::body::Budget::default(),
        metrics: metrics::Metrics::new(&ctx.metrics),
    });
    // Heard from the first moment on: until NATS is reached, senders are told to come again.
    let router = receive::hook::router(Arc::clone(&shared));
    ctx.health.set("http", Ok(()));
    let mut tasks = Tasks::new();
    tasks.spawn(
        "http",
        http::serve(listener, router, ctx.shutdown.clone(), Limits::default()),
    );
    for (name, source) in &shared.sources {
        if let Some(nats) = source.rules.options.nats.clone() {
            let listening =
                receive::nats::listen(Arc::clone(&shared), name.clone(), nats, ctx.clone());
            tasks.spawn("listening", listening);
        }
    }
    tasks.spawn("bus", keep_bus(shared, config.bus, ctx.clone()));
    tasks.join(&ctx.shutdown).await
}

/// Connects to NATS, then reports the connection.
async fn keep_bus(
    shared: Arc<Shared>,
    args: tagtrail_bus::BusArgs,
    ctx: Context,
) -> anyhow::Result<()> {
    let bus = match Bus::connect(&args, "gateway", &ctx.shutdown).await {
        Err(BusError::Stopped) => return Ok(()),
        connected => connected?,
    };
    let bus = shared.bus.get_or_init(|| bus).clone();
    Ok(bus.report_health(ctx.health, ctx.shutdown).await?)
}

/// For the fuzz targets in `fuzz/`: what a body means, without a server or a bus.
#[cfg(fuzzing)]
pub mod fuzz {
    use axum::http::header::CONTENT_TYPE;
    use axum::http::{HeaderMap, HeaderValue};
    use tagtrail_config::File;
    use time::OffsetDateTime;

    use crate::interpret::{Interpretation, Receipt};

    /// What a body that the source with this place in the file has sent puts on the bus, as subjects and payloads.
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
        let now = OffsetDateTime::now_utc();
        let interpretation = Interpretation::new(&rules, &headers, body, now, 8);
        let messages = interpretation.messages.iter().map(|message| {
            let message = message.message().expect("a message that can be written");
            (message.subject.to_string(), message.payload.to_vec())
        });
        Some((interpretation.receipt, messages.collect()))
    }
}
