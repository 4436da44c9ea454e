//! The api serves history, triggers and rollouts over HTTP: the digest of a tag at any time, the
//! images that ever had a digest, manifests, and the images that are deployed.
//!
//! In scope: the HTTP API under `/v1`, each answer from one snapshot of Postgres; the live feed;
//! tokens; the OpenAPI document; the web pages, which show the same answers (`pages.rs`). The api
//! writes only orders of people: acts, holds, approvals, and the triggers that it makes. Each
//! resource has a file in `operations/`, and each operation a row in the table of operations; each
//! page has a file in `pages/`, and a row in the table of pages.
//!
//! Out of scope: making the history (the indexer), rollouts (the trigger service), and the SQL
//! that reads history (`tagtrail-history`).
//!
//! A successful answer is JSON. Every other answer is problem details (RFC 9457) with a stable
//! `code`:
//!
//! | status | code |
//! |---|---|
//! | 400 | `image_invalid`, `digest_invalid`, `time_invalid`, `revision_invalid`, `flag_invalid`, `limit_invalid`, `cursor_invalid`, `match_invalid`, `kinds_invalid`, `parameter_unknown`, `parameter_repeated`, `parameter_conflict` |
//! | 400, 421 | `host_invalid`, `host_unknown`: the request names no host, or another one than this server's |
//! | 400 | `header_repeated`: several `Authorization` headers |
//! | 401, 403 | `unauthenticated`, `forbidden`; `origin_forbidden`: a web page of another origin sent the request |
//! | 429 | `too_many_refusals`: the address sent many requests without a right token |
//! | 404 | `tag_unknown`, `tag_deleted`, `revision_unknown`, `manifest_unknown`, `trigger_unknown`, `rollout_unknown`, `quarantine_unknown`, `not_found` |
//! | 409 | `not_replayed`: the body of QUARANTINE can't be interpreted yet |
//! | 405 | `method_not_allowed` |
//! | 400, 413, 415 | `body_invalid`, `body_too_large`, `body_not_json`: of operations with a body |
//! | 500 | `internal`: a defect of Tagtrail; only the log has the cause |
//! | 503 | `store_unavailable`: Postgres is down or slow; `quarantine_unavailable`: NATS or the gateway does not answer; `busy`: the feed has too many followers, or too many questions wait for an answer; the client retries after `Retry-After` |

mod config;
mod database;
mod feed;
mod follow;
mod http;
mod metrics;
mod operations;
mod pages;
mod quarantine;
mod shared;
mod store;
mod together;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::response::IntoResponse as _;
use tagtrail_config::{Checked, File, Follower, Role};
use tagtrail_daemon::http::{Limits, listen, serve as serve_http};
use tagtrail_daemon::{Context, Tasks};
use tagtrail_postgres::presence::presence;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

pub use config::{Config, Pace};
use database::Database;
use feed::Feed;
use http::error::Error;
use http::identity::People;
use http::openapi;
use http::tokens::Tokens;
use shared::Shared;
use together::Together;

/// Returns the OpenAPI 3.1 document of the API.
#[must_use]
pub fn openapi() -> serde_json::Value {
    openapi::document(operations::ALL)
}

/// Reads the settings of the api in the file, secrets included. Returns a line for each.
#[must_use]
pub fn check(file: &File) -> Checked {
    let (_, broken) = Tokens::read(file);
    let line = |token: &tagtrail_config::Token| {
        let may = match token.role {
            Role::Read => "may read",
            Role::Approve => "may read, approve and reject",
            Role::Operate => "may read and give orders",
            Role::Report => "may report outcomes of rollouts",
        };
        let on = match (&token.triggers, token.role) {
            (_, Role::Read | Role::Report) => String::new(),
            (Some(globs), _) => {
                let globs: Vec<&str> = globs.iter().map(AsRef::as_ref).collect();
                format!(" (triggers {})", globs.join(", "))
            }
            (None, _) if follow::carries(file, token) => {
                let name = token.name.get_ref();
                format!(" ({})", follow::own_alone(name))
            }
            (None, _) => String::new(),
        };
        format!("token {}: {may}{on}", token.name.get_ref())
    };
    Checked {
        lines: file.token.iter().map(line).collect(),
        mistakes: broken.into_iter().map(|one| one.problem).collect(),
    }
}

/// Listens, and runs until a stop is requested.
///
/// # Errors
/// An error that a retry can't fix: an address in use, a public address without a token, a wrong
/// `tagtrail.toml`, refused credentials, a schema newer than this program.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    let listener = bind(config.listen, "--listen").await?;
    serve(listener, config, ctx).await
}

/// Reads `[pages.identity]`.
fn people(file: &File) -> anyhow::Result<Option<Arc<People>>> {
    let Some(identity) = &file.pages.identity else {
        return Ok(None);
    };
    let people = People::new(identity);
    let people = people.map_err(|why| anyhow::anyhow!("tagtrail.toml: pages.identity: {why}"))?;
    Ok(Some(Arc::new(people)))
}

/// Binds the address of the API. `flag` is the flag that sets it, for errors.
///
/// # Errors
/// The address can't be bound: the error names cause and cure.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    listen(address, "the API", flag).await
}

/// Checks the api's part of the file as the start of the service does, for this address.
///
/// # Errors
/// A mistake with which the service does not start.
pub fn check_start(file: &File, address: SocketAddr) -> anyhow::Result<()> {
    people(file)?;
    Tokens::read(file).0.check(address)
}

/// As [`run`], on a listener of the caller, who thus knows the address.
///
/// # Errors
/// As [`run`].
pub async fn serve(listener: TcpListener, config: Config, ctx: Context) -> anyhow::Result<()> {
    ctx.health.register("api");
    ctx.health.register("postgres");
    let files = Follower::start(&File::find(config.config.as_deref()))?;
    let file = files.file();
    let tokens = follow::tokens(&file, &ctx.metrics);
    let address = listener.local_addr()?;
    tokens.check(address)?;
    tracing::info!(%address, "serving the API");
    let database = Database::default();
    let feed = Feed::new(database.clone(), ctx.shutdown.clone());
    let metrics = metrics::Metrics::new(&ctx.metrics);
    let quarantine = quarantine::Quarantine::new();
    let (together, askers) = Together::new(&database, &metrics);
    let people = people(&file)?;
    let shared = Shared {
        database: database.clone(),
        together,
        feed: feed.clone(),
        quarantine: quarantine.clone(),
        tokens: follow::Current::new(tokens),
        refusals: Arc::default(),
        people: people.clone(),
        names: follow::Current::new(file.names().clone()),
        file: follow::Current::new(file.as_ref().clone()),
        pace: config.pace,
        gateway: config.gateway,
        metrics,
    };
    let following = follow::follow(files, shared.clone(), ctx.clone());
    let api = operations::router(operations::ALL, shared.clone());
    let router = pages::router(pages::ALL, shared, api)
        .layer(CatchPanicLayer::custom(|_| Error::Panicked.into_response()));
    ctx.health.set("api", Ok(()));
    let mut tasks = Tasks::new();
    tasks.spawn(
        "http",
        serve_http(
            listener,
            router,
            ctx.shutdown.clone(),
            Limits::default(),
            file.hosts(),
        ),
    );
    if let Some(people) = people {
        let shutdown = ctx.shutdown.clone();
        tasks.spawn("identity", async move {
            people.keys().keep(&shutdown).await;
            Ok(())
        });
    }
    for asker in askers {
        tasks.spawn("asker", asker.run());
    }
    tasks.spawn("files", following);
    tasks.spawn("presence", presence("api", config.db.clone(), ctx.clone()));
    tasks.spawn("postgres", database.keep(config.db, ctx.clone()));
    tasks.spawn("feed", feed.clone().keep());
    tasks.spawn(
        "news",
        feed.listen(config.bus, ctx.clone(), quarantine.clone()),
    );
    tasks.spawn("quarantine", quarantine.keep(ctx.clone()));
    tasks.join(&ctx).await
}
