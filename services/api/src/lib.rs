//! The api answers: what a tag meant at any time, which images ever had a digest, what is deployed.
//!
//! In scope: the HTTP API under `/v1`, one file a resource, from one snapshot of Postgres each. Besides pausing and resuming a
//! trigger it writes nothing.
//!
//! Out of scope: deciding what the history is (the indexer) and what is rolled out (the trigger service).
//!
//! An answer is JSON; a refusal is problem details (RFC 9457) with a stable `code`:
//!
//! | status | code |
//! |---|---|
//! | 400 | `image_invalid`, `digest_invalid`, `time_invalid`, `revision_invalid`, `limit_invalid`, `cursor_invalid`, `parameter_unknown`, `parameter_repeated`, `parameter_conflict` |
//! | 404 | `tag_unknown`, `tag_deleted`, `revision_unknown`, `trigger_unknown`, `rollout_unknown`, `not_found` |
//! | 405 | `method_not_allowed` |
//! | 500 | `internal`: a defect of ours; the cause is in the log alone |
//! | 503 | `store_unavailable`: Postgres is down or slow; `Retry-After` says when to come again |

mod config;
mod database;
mod digests;
mod error;
mod history;
mod instant;
mod paging;
mod parameters;
mod resolve;
mod rollouts;
mod store;
mod triggers;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tagtrail_daemon::http::{self, Limits};
use tagtrail_daemon::{Context, Tasks};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

pub use config::Config;
use database::Database;
use error::Error;

/// Time for a whole answer, above everything that bounds its parts.
const ANSWER: Duration = Duration::from_secs(10);

/// Listens, and runs until a stop is asked for.
///
/// # Errors
/// What waiting can't heal: an address in use, refused credentials, a schema that is too new.
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
    let database = Database::default();
    announce(listener.local_addr()?);
    ctx.health.set("api", Ok(()));
    let mut tasks = Tasks::new();
    tasks.spawn(
        "http",
        http::serve(
            listener,
            router(database.clone()),
            ctx.shutdown.clone(),
            Limits::default(),
        ),
    );
    tasks.spawn("postgres", database.keep(config.db, ctx.clone()));
    tasks.join(&ctx.shutdown).await
}

fn announce(address: SocketAddr) {
    tracing::info!(%address, "answering questions");
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "there are no API tokens yet: everyone who reaches this address may read all history and pause and resume triggers; \
             listen on 127.0.0.1, or put an authenticating proxy in front"
        );
    }
}

fn router(database: Database) -> Router {
    Router::new()
        .route("/v1/resolve", get(resolve::resolve))
        .route("/v1/history", get(history::history))
        .route("/v1/digests/{digest}", get(digests::digest))
        .route("/v1/triggers", get(triggers::list))
        .route("/v1/triggers/{name}", get(triggers::one))
        .route("/v1/triggers/{name}/pause", post(triggers::pause))
        .route("/v1/triggers/{name}/resume", post(triggers::resume))
        .route("/v1/rollouts", get(rollouts::list))
        .route("/v1/rollouts/{id}", get(rollouts::one))
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .fallback(async || Error::NotFound)
        .with_state(database)
        .layer(from_fn(in_time))
        .layer(CatchPanicLayer::custom(|_| Error::Panicked.into_response()))
}

/// Postgres bounds what a statement may take, but not the way there: a cut-off server answers nothing at all.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => Error::TooSlow.into_response(),
    }
}
