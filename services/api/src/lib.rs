//! The api answers: what a tag meant at any time, which images ever had a digest and what that is, what is deployed.
//!
//! In scope: the HTTP API under `/v1`, one file a resource, from one snapshot of Postgres each; the live feed ([`feed`](self));
//! who may ask; and the description of it all in OpenAPI. Besides pausing and resuming a trigger it writes nothing. A resource
//! is a file with its [`Operation`](self)s and a line each in the table of operations.
//!
//! Out of scope: deciding what the history is (the indexer) and what is rolled out (the trigger service).
//!
//! An answer is JSON; a refusal is problem details (RFC 9457) with a stable `code`:
//!
//! | status | code |
//! |---|---|
//! | 400 | `image_invalid`, `digest_invalid`, `time_invalid`, `revision_invalid`, `limit_invalid`, `cursor_invalid`, `match_invalid`, `parameter_unknown`, `parameter_repeated`, `parameter_conflict` |
//! | 401, 403 | `unauthenticated`, `forbidden` |
//! | 404 | `tag_unknown`, `tag_deleted`, `revision_unknown`, `manifest_unknown`, `trigger_unknown`, `rollout_unknown`, `not_found` |
//! | 405 | `method_not_allowed` |
//! | 500 | `internal`: a defect of ours; the cause is in the log alone |
//! | 503 | `store_unavailable`: Postgres is down or slow; `busy`: too many follow the feed; `Retry-After` says when to come again |

mod config;
mod database;
mod feed;
mod http;
mod metrics;
mod operations;
mod shared;
mod store;

use std::sync::Arc;

use anyhow::Context as _;
use axum::response::IntoResponse as _;
use tagtrail_config::{ConfigError, File, Role};
use tagtrail_daemon::http::{Limits, serve as serve_http};
use tagtrail_daemon::{Context, Tasks};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

pub use config::{Config, Pace};
use database::Database;
use feed::Feed;
use http::error::Error;
use http::openapi;
use http::tokens::Tokens;
use shared::Shared;

/// The OpenAPI 3.1 document of the API.
#[must_use]
pub fn openapi() -> serde_json::Value {
    openapi::document(operations::ALL)
}

/// Looks at everything that the api needs of the file, secrets included, and says what it found there, a line each.
///
/// # Errors
/// What is wrong, with its line and the cure.
pub fn check(file: &File) -> Result<Vec<String>, ConfigError> {
    Tokens::read(file)?;
    let line = |token: &tagtrail_config::Token| {
        let may = match token.role {
            Role::Read => "may read",
            Role::Operate => "may read, pause and resume",
        };
        format!("token {}: {may}", token.name.get_ref())
    };
    Ok(file.token.iter().map(line).collect())
}

/// Listens, and runs until a stop is asked for.
///
/// # Errors
/// What waiting can't heal: an address in use, one that everybody can reach without a token, a wrong `tagtrail.toml`, refused
/// credentials, a schema that is too new.
pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "can't listen on {} for the API; choose another address",
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
    ctx.health.register("api");
    ctx.health.register("postgres");
    let tokens = Tokens::read(&File::load(&File::find(config.config.as_deref()))?)?;
    let address = listener.local_addr()?;
    tokens.check(address)?;
    tracing::info!(%address, "answering questions");
    let database = Database::default();
    let feed = Feed::new(database.clone(), ctx.shutdown.clone());
    let shared = Shared {
        database: database.clone(),
        feed: feed.clone(),
        tokens: Arc::new(tokens),
        pace: config.pace,
        metrics: metrics::Metrics::new(&ctx.metrics),
    };
    let router = operations::router(operations::ALL, shared)
        .layer(CatchPanicLayer::custom(|_| Error::Panicked.into_response()));
    ctx.health.set("api", Ok(()));
    let mut tasks = Tasks::new();
    tasks.spawn(
        "http",
        serve_http(listener, router, ctx.shutdown.clone(), Limits::default()),
    );
    tasks.spawn("postgres", database.keep(config.db, ctx.clone()));
    tasks.spawn("feed", feed.clone().keep());
    tasks.spawn("news", feed.listen(config.bus, ctx.clone()));
    tasks.join(&ctx.shutdown).await
}
