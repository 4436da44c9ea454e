//! What can be asked: one [`Operation`] each, from which come the routes, who may use them, and the description in OpenAPI.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::MethodRouter;
use schemars::{Schema, SchemaGenerator};
use tagtrail_config::Role;

use crate::App;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::parameters::Parameter;
use crate::tokens::Tokens;
use crate::{digests, history, openapi, resolve, revisions, rollouts, triggers};

/// Every operation there is.
pub(crate) const ALL: &[Operation] = &[
    resolve::RESOLVE,
    history::HISTORY,
    digests::DIGEST,
    revisions::REVISIONS,
    triggers::LIST,
    triggers::ONE,
    triggers::PAUSE,
    triggers::RESUME,
    rollouts::LIST,
    rollouts::ONE,
];

/// Something that can be asked, or told.
pub(crate) struct Operation {
    /// `operationId`.
    pub(crate) id: &'static str,
    pub(crate) method: Method,
    /// As axum and OpenAPI both write it.
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    /// What stands in the path.
    pub(crate) in_path: &'static [Parameter],
    /// What may stand after the `?`.
    pub(crate) query: &'static [Parameter],
    /// What may stand in a header.
    pub(crate) header: &'static [Parameter],
    pub(crate) answer: Answer,
    /// Codes of its problems, besides those that any operation has.
    pub(crate) problems: &'static [(u16, &'static str)],
    pub(crate) serve: fn() -> MethodRouter<App>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Asks; a token with the role `read` may.
    Get,
    /// Changes something; takes the role `operate`.
    Post,
}

impl Method {
    fn role(self) -> Role {
        match self {
            Method::Get => Role::Read,
            Method::Post => Role::Operate,
        }
    }
}

/// What a good answer is.
pub(crate) enum Answer {
    /// One JSON document.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Server-sent events; the schema is that of `data`.
    Events(fn(&mut SchemaGenerator) -> Schema),
}

/// Time for a whole answer, above everything that bounds its parts.
pub(crate) const ANSWER: std::time::Duration = std::time::Duration::from_secs(10);

/// The routes of all operations, each behind its role.
pub(crate) fn router(app: App) -> Router {
    let mut router = Router::new().route("/openapi.json", openapi::route());
    for operation in ALL {
        let guard = Guard {
            tokens: Arc::clone(&app.tokens),
            role: operation.method.role(),
        };
        let counted = Counted {
            metrics: app.metrics.clone(),
            operation: operation.id,
        };
        let guarded = (operation.serve)()
            .route_layer(from_fn(in_time))
            .route_layer(from_fn_with_state(guard, admit))
            .route_layer(from_fn_with_state(counted, count));
        router = router.route(operation.path, guarded);
    }
    router
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .fallback(async || Error::NotFound)
        .with_state(app)
}

#[derive(Clone)]
struct Guard {
    tokens: Arc<Tokens>,
    role: Role,
}

#[derive(Clone)]
struct Counted {
    metrics: Metrics,
    operation: &'static str,
}

async fn count(State(counted): State<Counted>, request: Request, next: Next) -> Response {
    let started = tokio::time::Instant::now();
    let response = next.run(request).await;
    let (status, seconds) = (response.status().as_u16(), started.elapsed().as_secs_f64());
    counted.metrics.answered(counted.operation, status, seconds);
    response
}

/// Nothing is looked at before it is known who asks.
async fn admit(
    State(guard): State<Guard>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    guard.tokens.admit(request.headers(), guard.role)?;
    Ok(next.run(request).await)
}

/// Postgres bounds what a statement may take, but not the way there: a cut-off server answers nothing at all.
async fn in_time(request: Request, next: Next) -> Result<Response, Error> {
    tokio::time::timeout(ANSWER, next.run(request))
        .await
        .map_err(|_| Error::TooSlow)
}
