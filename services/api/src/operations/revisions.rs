//! `GET /v1/revisions?match=&since=`: the live feed of revisions; `live.rs` sends it.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::on;
use tagtrail_config::Role;
use tagtrail_proto::Revision;

use super::live::{self, LAST_EVENT_ID, LAST_EVENT_ID_IN_QUERY, SINCE};
use crate::feed::EventKind;
use crate::http::error::Error;
use crate::http::guard::Actor;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, SIGNATURES, text};
use crate::http::tokens::ACCESS_TOKEN;
use crate::shared::Shared;

pub(super) const MATCH: Parameter = Parameter {
    name: "match",
    required: false,
    description: "Only images that match: `*` within a part, `**` for any parts; without a tag, every tag matches. A pattern whose first part is no registry matches in any registry.",
    example: "registry.example.com/foo/**:latest",
    schema: text,
};

pub(crate) const REVISIONS: Operation = Operation {
    id: "revisions",
    method: Method::Get,
    path: "/v1/revisions",
    summary: "The live feed: revisions as they are recorded, as server-sent events.",
    role: Role::Read,
    in_path: &[],
    query: &[MATCH, SINCE, SIGNATURES, ACCESS_TOKEN],
    header: &[LAST_EVENT_ID],
    body: None,
    response: ResponseBody::Events(schema::<tagtrail_proto::Event<Revision>>),
    problems: &[
        (400, "match_invalid"),
        (400, "time_invalid"),
        (400, "flag_invalid"),
        (400, "cursor_invalid"),
    ],
    serve: |method| on(method, revisions),
};

async fn revisions(
    State(shared): State<Shared>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read_also(&uri, REVISIONS.query, LAST_EVENT_ID_IN_QUERY)?;
    let kinds = [EventKind::Revision].into();
    live::open(shared, &actor, &headers, &parameters, kinds).await
}
