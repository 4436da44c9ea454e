//! `GET /v1/history?image=&since=&until=&limit=&cursor=`: the revisions of a tag, newest first.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use tagtrail_config::Role;
use tagtrail_history::changes::{self, HistoryItem, Range};
use tagtrail_history::tag_id;

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{IMAGE, Parameters, SINCE, UNTIL};
use crate::shared::Shared;

pub(crate) const HISTORY: Operation = Operation {
    id: "history",
    method: Method::Get,
    path: "/v1/history",
    summary: "The revisions of an image, newest first by (effective time, number).",
    role: Role::Read,
    in_path: &[],
    query: &[IMAGE, SINCE, UNTIL, LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<HistoryItem>>),
    problems: &[
        (400, "image_invalid"),
        (400, "time_invalid"),
        (400, "parameter_conflict"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
        (404, "tag_unknown"),
    ],
    serve: |method| on(method, history),
};

pub(crate) const LIST: List<2> = List {
    name: "history",
    time: Some(0),
};

async fn history(
    State(Shared {
        database, names, ..
    }): State<Shared>,
    uri: Uri,
) -> Result<Json<Items<HistoryItem>>, Error> {
    let parameters = Parameters::read(&uri, HISTORY.query)?;
    let image = parameters.image(&names.get())?;
    let (since, until) = parameters.range()?;
    let range = Range { since, until };
    let page = Page::read(LIST, &parameters)?;
    let changes = database
        .ask_large(async |db| match tag_id(db, &image).await? {
            Some(tag) => changes::changes(db, tag, &image, range, page.after, page.fetch())
                .await
                .map(Some),
            None => Ok(None),
        })
        .await?;
    let changes = changes.ok_or(Error::TagUnknown(image))?;
    Ok(Json(page.cut(changes)))
}
