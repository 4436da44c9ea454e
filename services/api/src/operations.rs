//! The table of all operations, and the routes.

pub(crate) mod acts;
pub(crate) mod api_triggers;
pub(crate) mod approvals;
pub(crate) mod attempts;
pub(crate) mod changes;
pub(crate) mod compare;
pub(crate) mod coverage;
pub(crate) mod digest_rollouts;
pub(crate) mod digests;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod generations;
pub(crate) mod history;
pub(crate) mod holds;
mod live;
pub(crate) mod manifests;
pub(crate) mod orders;
pub(crate) mod outcome;
pub(crate) mod quarantine;
pub(crate) mod registries;
pub(crate) mod replay;
pub(crate) mod reports;
pub(crate) mod repositories;
pub(crate) mod resolve;
pub(crate) mod revisions;
pub(crate) mod rollouts;
pub(crate) mod search;
pub(crate) mod sources;
pub(crate) mod status;
pub(crate) mod tags;
pub(crate) mod triggers;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;

use crate::http::cors::share_reads;
use crate::http::csv;
use crate::http::error::Error;
use crate::http::guard::{Guard, admit};
use crate::http::openapi;
use crate::http::operation::Operation;
use crate::http::renamed;
use crate::metrics::Metrics;
use crate::shared::Shared;

/// All operations.
pub(crate) const ALL: &[Operation] = &[
    resolve::RESOLVE,
    history::HISTORY,
    changes::CHANGES,
    digests::DIGEST,
    digest_rollouts::LIST,
    manifests::MANIFEST,
    compare::COMPARE,
    search::SEARCH,
    coverage::COVERAGE,
    reports::REPORT,
    status::STATUS,
    sources::SOURCES,
    quarantine::LIST,
    quarantine::ONE,
    quarantine::REPLAY,
    registries::REGISTRIES,
    repositories::REPOSITORIES,
    tags::TAGS,
    revisions::REVISIONS,
    events::EVENTS,
    triggers::LIST,
    triggers::ONE,
    explain::EXPLAIN,
    generations::LIST,
    api_triggers::PUT,
    api_triggers::DELETE,
    triggers::PAUSE,
    triggers::RESUME,
    triggers::RETRY,
    replay::TEST,
    rollouts::LIST,
    rollouts::ONE,
    attempts::LIST,
    orders::ROLLOUT,
    orders::ROLLBACK,
    orders::PIN,
    orders::RELEASE,
    orders::RENUMBER,
    orders::CANCEL,
    approvals::LIST,
    approvals::APPROVE,
    approvals::REJECT,
    outcome::REPORT,
    holds::LIST,
    holds::FREEZE,
    holds::THAW,
    acts::LIST,
];

/// Time-out of a whole answer, also of a page: longer than the time-outs of all parts.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Returns the routes of these operations, each behind the check of the role.
pub(crate) fn router(operations: &[Operation], shared: Shared) -> Router {
    let mut router = Router::new().route("/openapi.json", openapi::route(operations));
    for operation in operations {
        shared.metrics.expect_operation(operation.id);
        let guard = Guard {
            tokens: shared.tokens.clone(),
            refusals: Arc::clone(&shared.refusals),
            people: shared.people.clone(),
            role: operation.role,
            in_query: operation.takes_token(),
            path: operation.path,
            operation: operation.id,
            database: shared.database.clone(),
        };
        let counted = Counted {
            metrics: shared.metrics.clone(),
            operation: operation.id,
        };
        let route = (operation.serve)(operation.method.filter());
        let route = match operation.body {
            Some(body) => route.layer(DefaultBodyLimit::max(body.max_size)),
            None => route,
        };
        let (path, time) = match operation.id {
            // A trigger may have the name `test`: a layer of the route looks at the name.
            id if id == replay::TEST.id => (triggers::ONE.path, replay::ANSWER),
            _ => (operation.path, ANSWER),
        };
        let route = match operation.is_of_trigger() {
            true => route.route_layer(from_fn_with_state(shared.database.clone(), renamed::follow)),
            false => route,
        };
        let route = match csv::lists(&operation.response) {
            lists if lists.is_empty() => route,
            lists => route.route_layer(from_fn_with_state(lists.into(), csv::in_format)),
        };
        let guarded = route
            .route_layer(from_fn_with_state(time, in_time))
            .route_layer(from_fn_with_state(guard, admit))
            .route_layer(from_fn_with_state(counted, count));
        router = router.route(path, guarded);
    }
    let router = router
        .method_not_allowed_fallback(replay::not_allowed)
        .fallback(async || Error::NotFound);
    let router = match shared.tokens.get().is_empty() {
        true => router,
        false => router.layer(from_fn(share_reads)),
    };
    router.with_state(shared)
}

/// The operation, or the page, whose answers are counted.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) metrics: Metrics,
    pub(crate) operation: &'static str,
}

pub(crate) async fn count(
    State(counted): State<Counted>,
    request: Request,
    next: Next,
) -> Response {
    let started = tokio::time::Instant::now();
    let response = next.run(request).await;
    let (status, seconds) = (response.status().as_u16(), started.elapsed().as_secs_f64());
    counted.metrics.answered(counted.operation, status, seconds);
    response
}

/// Bounds the time of an answer. Postgres enforces the time-out of a statement, which does not help
/// when the network to Postgres is cut.
pub(crate) async fn in_time(
    State(time): State<Duration>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    tokio::time::timeout(time, next.run(request))
        .await
        .map_err(|_| Error::TooSlow(time))
}

/// Lets clients keep an answer that stays the same.
pub(crate) fn keep(mut response: Response, is_final: bool) -> Response {
    if is_final {
        let kept = HeaderValue::from_static("private, max-age=86400, immutable");
        response.headers_mut().insert(CACHE_CONTROL, kept);
    }
    response
}

#[cfg(test)]
mod tests;
