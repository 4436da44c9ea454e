//! `GET /v1/digests/{digest}/rollouts`: the rollouts that had a digest.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use tagtrail_config::Role;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::digests::{DIGEST_IN_PATH, whole_digest};
use crate::store;
use crate::store::rollouts::RolloutWithAttempt;

pub(crate) const LIST: Operation = Operation {
    id: "digest_rollouts",
    method: Method::Get,
    path: "/v1/digests/{digest}/rollouts",
    summary: "The rollouts of all triggers that had this digest, newest first.",
    role: Role::Read,
    in_path: &[DIGEST_IN_PATH],
    query: &[LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<RolloutWithAttempt>>),
    problems: &[
        (400, "digest_invalid"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
        (404, "digest_unknown"),
        (400, "digest_ambiguous"),
    ],
    serve: |method| on(method, list),
};

const OF_DIGEST: List<3> = List {
    name: "rollouts-of-digest",
    time: Some(0),
};

async fn list(
    State(database): State<Database>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<Items<RolloutWithAttempt>>, Error> {
    let parameters = Parameters::read(&uri, LIST.query)?;
    let page = Page::read(OF_DIGEST, &parameters)?;
    let digest = whole_digest(&database, &path).await?;
    let rollouts = database
        .ask_large(async |db| {
            store::rollouts::with_digest(db, &digest, page.after, page.fetch()).await
        })
        .await?;
    Ok(Json(page.cut(rollouts)))
}
