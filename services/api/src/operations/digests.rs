//! `GET /v1/digests/{digest}`: the images that ever had a digest, with times.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_config::Role;
use tagtrail_history::digests::{self, DigestInterval};
use tagtrail_history::prefix::{self, DigestPrefix};
use tagtrail_proto::Digest;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{Parameter, Parameters, PathValues, text};

pub(crate) const DIGEST_IN_PATH: Parameter = Parameter {
    name: "digest",
    required: true,
    description: "A digest, or its first hex digits: six or more, if no other digest begins with them.",
    example: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    schema: text,
};

pub(crate) const DIGEST: Operation = Operation {
    id: "digest",
    method: Method::Get,
    path: "/v1/digests/{digest}",
    summary: "The images that ever had this digest, with times. Tags that hold signatures come last.",
    role: Role::Read,
    in_path: &[DIGEST_IN_PATH],
    query: &[LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Holders>),
    problems: &[
        (400, "digest_invalid"),
        (400, "digest_ambiguous"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
        (404, "digest_unknown"),
    ],
    serve: |method| on(method, digest),
};

pub(crate) const LIST: List<4> = List {
    name: "holders",
    time: Some(2),
};

/// The images that had a digest. The list is empty if no tag ever had the digest.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Holders {
    digest: Digest,
    #[serde(flatten)]
    intervals: Items<DigestInterval>,
}

/// Digests that the answer about an ambiguous prefix names.
const NAMED: usize = 5;

/// Returns the digest that a path names, perhaps by its first digits. Whole digests are returned
/// without a look into the database.
pub(crate) async fn whole_digest(database: &Database, path: &PathValues) -> Result<Digest, Error> {
    let prefix = path.parse(&DIGEST_IN_PATH).map_err(Error::Digest)?;
    whole(database, prefix).await
}

/// Returns the only digest that begins with these digits.
pub(crate) async fn whole(database: &Database, prefix: DigestPrefix) -> Result<Digest, Error> {
    if let DigestPrefix::Whole(digest) = prefix {
        return Ok(digest);
    }
    let limit = i64::try_from(NAMED + 1).unwrap_or(i64::MAX);
    let mut found = database
        .ask(async |db| prefix::digests(db, &prefix, limit).await)
        .await?;
    match (found.len(), found.pop()) {
        (1, Some(digest)) => Ok(digest),
        (0, _) | (_, None) => Err(Error::DigestUnknown(prefix)),
        (more, Some(last)) => {
            found.extend(Some(last).filter(|_| more <= NAMED));
            Err(Error::DigestAmbiguous {
                prefix,
                digests: found,
                more: more > NAMED,
            })
        }
    }
}

/// Returns the images in the order in which they were first seen, each by time. Tags that hold
/// signatures come last.
async fn digest(
    State(database): State<Database>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<Holders>, Error> {
    let parameters = Parameters::read(&uri, DIGEST.query)?;
    let page = Page::read(LIST, &parameters)?;
    let digest = whole_digest(&database, &path).await?;
    let intervals = database
        .ask_large(async |db| digests::intervals(db, &digest, page.after, page.fetch()).await)
        .await?;
    let intervals = page.cut(intervals);
    Ok(Json(Holders { digest, intervals }))
}
