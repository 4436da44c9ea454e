//! `/v1/rollouts/{id}/attempts`: the calls of the target, each with the answer.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use tagtrail_config::Role;
use uuid::Uuid;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::rollouts::ID;
use crate::store;
use crate::store::attempts::Attempt;

pub(crate) const LIST: Operation = Operation {
    id: "attempts",
    method: Method::Get,
    path: "/v1/rollouts/{id}/attempts",
    summary: "The attempts at a rollout, newest first, each with the end of the target's answer or output.",
    role: Role::Read,
    in_path: &[ID],
    query: &[LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<Attempt>>),
    problems: &[
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
        (404, "rollout_unknown"),
    ],
    serve: |method| on(method, list),
};

const ATTEMPTS: List<1> = List {
    name: "attempts",
    time: None,
};

async fn list(
    State(database): State<Database>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<Items<Attempt>>, Error> {
    let parameters = Parameters::read(&uri, LIST.query)?;
    let page = Page::read(ATTEMPTS, &parameters)?;
    let id: Uuid = path.parse(&ID).map_err(|_| Error::RolloutUnknown)?;
    let attempts = database
        .ask_large(async |db| {
            let attempts = store::attempts::of(db, id, page.after, page.fetch()).await?;
            let known = !attempts.is_empty() || store::attempts::has_rollout(db, id).await?;
            Ok(known.then_some(attempts))
        })
        .await?;
    Ok(Json(page.cut(attempts.ok_or(Error::RolloutUnknown)?)))
}
