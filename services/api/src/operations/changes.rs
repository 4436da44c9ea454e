//! `GET /v1/changes`: the newest revisions of all images.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use tagtrail_config::{ImagePattern, Role};
use tagtrail_history::changes::HistoryItem;
use tagtrail_history::recorded::{Between, newest};
use tagtrail_proto::{Image, Tag};

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{Parameter, Parameters, SIGNATURES, optional, time};
use crate::operations::revisions::MATCH;
use crate::shared::Shared;

const SINCE: Parameter = optional(
    "since",
    "Only revisions recorded at this time or later (RFC 3339).",
    "2026-03-03T14:02:00Z",
    time,
);
const UNTIL: Parameter = optional(
    "until",
    "Only revisions recorded before this time (RFC 3339).",
    "2026-03-03T15:00:00Z",
    time,
);

pub(crate) const CHANGES: Operation = Operation {
    id: "changes",
    method: Method::Get,
    path: "/v1/changes",
    summary: "The revisions of all images that match, the last recorded first. A page may have fewer items than `limit` though it has a `next`, if few images match.",
    role: Role::Read,
    in_path: &[],
    query: &[SINCE, UNTIL, MATCH, SIGNATURES, LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<HistoryItem>>),
    problems: &[
        (400, "match_invalid"),
        (400, "time_invalid"),
        (400, "flag_invalid"),
        (400, "parameter_conflict"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
    ],
    serve: |method| on(method, changes),
};

const LIST: List<3> = List {
    name: "changes",
    time: Some(0),
};

async fn changes(
    State(shared): State<Shared>,
    uri: Uri,
) -> Result<Json<Items<HistoryItem>>, Error> {
    let parameters = Parameters::read(&uri, CHANGES.query)?;
    let page = Page::read(LIST, &parameters)?;
    let pattern = match parameters.text(MATCH.name) {
        None => None,
        Some(text) => Some(shared.names.get().pattern(text).map_err(Error::Match)?),
    };
    let tag = pattern.as_ref().and_then(|pattern| pattern.tag(false));
    let by_name = tag.is_some_and(Tag::names_signatures);
    let signatures = parameters.flag(SIGNATURES.name)? || by_name;
    let (since, until) = parameters.range()?;
    let found = shared
        .database
        .ask_large(async |db| {
            let between = Between { since, until };
            let keeps = |image: &Image| keeps(pattern.as_ref(), signatures, image);
            newest(db, between, page.after, keeps, page.limit()).await
        })
        .await?;
    Ok(Json(page.of(found.items, found.next)))
}

/// Returns whether an image is among those of a pattern; tags that hold signatures are no images.
fn keeps(pattern: Option<&ImagePattern>, signatures: bool, image: &Image) -> bool {
    (signatures || !image.tag.is_signature())
        && pattern.is_none_or(|pattern| pattern.matches(image))
}
