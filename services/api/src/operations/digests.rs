//! `GET /v1/digests/{digest}`: every image that ever had it, and when.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tagtrail_history::digests::{self, DigestInterval};
use tagtrail_proto::Digest;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{Parameter, Parameters};

pub(crate) const DIGEST: Operation = Operation {
    id: "digest",
    method: Method::Get,
    path: "/v1/digests/{digest}",
    summary: "Every image that ever had this digest, and when.",
    in_path: &[Parameter {
        name: "digest",
        required: true,
        description: "A digest.",
        example: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        schema: || json!({ "type": "string" }),
    }],
    query: &[LIMIT, CURSOR],
    header: &[],
    response: ResponseBody::Json(schema::<Holders>),
    problems: &[
        (400, "digest_invalid"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
    ],
    serve: || get(digest),
};

const LIST: List<3> = List {
    name: "digest",
    time: Some(1),
};

/// The images that had a digest. None is an answer too: nobody ever pushed it under a tag.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Holders {
    digest: Digest,
    #[serde(flatten)]
    intervals: Items<DigestInterval>,
}

/// Answers, by image in the order in which they were first seen, then by time.
async fn digest(
    State(database): State<Database>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Holders>, Error> {
    let Path(digest) = path?;
    let digest: Digest = digest.parse().map_err(Error::Digest)?;
    let parameters = Parameters::read(&uri, DIGEST.query)?;
    let page = Page::read(LIST, &parameters)?;
    let intervals = database
        .ask(async |db| digests::intervals(db, &digest, page.after, page.fetch()).await)
        .await?;
    let intervals = page.cut(intervals);
    Ok(Json(Holders { digest, intervals }))
}
