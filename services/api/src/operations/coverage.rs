//! `GET /v1/coverage`: the number of changes by the way in which they became known, and the share
//! of changes that no event reported.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_config::Role;
use tagtrail_history::coverage::{self, NotCompared, SourceCoverage};
use tagtrail_history::instant::Instant;
use time::OffsetDateTime;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, optional};

/// Time before now that is counted without `since`.
const USUAL: time::Duration = time::Duration::days(7);

const SINCE: Parameter = optional(
    "since",
    "Changes recorded since the hour (UTC) of this time (RFC 3339); without it, those of the last seven days.",
    "2026-03-03T00:00:00Z",
    crate::http::parameters::time,
);

pub(crate) const COVERAGE: Operation = Operation {
    id: "coverage",
    method: Method::Get,
    path: "/v1/coverage",
    summary: "Changes by registry and source, and by the way in which they became known: an event, a question to the registry about an incomplete event, a pull, or only reconciling; and the repositories that could not be reconciled.",
    role: Role::Read,
    in_path: &[],
    query: &[SINCE],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Coverage>),
    problems: &[(400, "time_invalid")],
    serve: |method| on(method, coverage),
};

/// The coverage of all registries and sources.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Coverage {
    /// The start of the hour (UTC) from which on changes are counted.
    since: Instant,
    /// By registry, then source.
    items: Vec<SourceCoverage>,
    /// Repositories whose last comparison with their registry did not reach its end, the newest
    /// first. At most 100.
    not_compared: Vec<NotCompared>,
    /// Recorded changes that are not among the numbers yet. The indexer counts every second; after
    /// an upgrade it counts all of history first.
    uncounted: u64,
}

async fn coverage(State(database): State<Database>, uri: Uri) -> Result<Json<Coverage>, Error> {
    let parameters = Parameters::read(&uri, COVERAGE.query)?;
    let since = parameters.time("since")?;
    let since = since.unwrap_or_else(|| OffsetDateTime::now_utc() - USUAL);
    let (counted, not_compared) = database
        .ask_large(async |db| {
            let counted = coverage::since(db, since).await?;
            Ok((counted, coverage::not_compared(db).await?))
        })
        .await?;
    Ok(Json(Coverage {
        since: Instant(counted.since),
        items: counted.items,
        not_compared,
        uncounted: counted.uncounted,
    }))
}
