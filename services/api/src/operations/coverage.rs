//! `GET /v1/coverage`: how many changes came by event, and how many had to be found: the share that registries lost.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_config::Role;
use tagtrail_history::coverage::{self, SourceCoverage};
use tagtrail_history::instant::Instant;
use time::OffsetDateTime;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, optional};

/// What is looked at if nothing else is asked for.
const USUAL: time::Duration = time::Duration::days(7);

const SINCE: Parameter = optional(
    "since",
    "Changes recorded since this time (RFC 3339); without it, those of the last seven days.",
    "2026-03-03T00:00:00Z",
    crate::http::parameters::time,
);

pub(crate) const COVERAGE: Operation = Operation {
    id: "coverage",
    method: Method::Get,
    path: "/v1/coverage",
    summary: "By registry and source, how changes became known: by an event, by asking because an event did not say enough, or only by comparing.",
    role: Role::Read,
    in_path: &[],
    query: &[SINCE],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Coverage>),
    problems: &[(400, "time_invalid")],
    serve: |method| on(method, coverage),
};

/// How well registries told of their changes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Coverage {
    since: Instant,
    /// By registry, then source.
    items: Vec<SourceCoverage>,
}

async fn coverage(State(database): State<Database>, uri: Uri) -> Result<Json<Coverage>, Error> {
    let parameters = Parameters::read(&uri, COVERAGE.query)?;
    let since = parameters.time("since")?;
    let since = since.unwrap_or_else(|| OffsetDateTime::now_utc() - USUAL);
    let items = database
        .ask(async |db| coverage::since(db, since).await)
        .await?;
    Ok(Json(Coverage {
        since: Instant(since),
        items,
    }))
}
