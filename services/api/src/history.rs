//! `GET /v1/history?image=&limit=&cursor=`: the revisions of a tag, newest first.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_proto::{Digest, Kind, Origin, Pinned, Point, Registry, Repository, Tag};

use crate::database::Database;
use crate::error::Error;
use crate::instant::Instant;
use crate::openapi::schema;
use crate::operation::{Answer, Method, Operation};
use crate::paging::{Items, Page};
use crate::parameters::{CURSOR, IMAGE, LIMIT, Parameters};
use crate::store;

pub(crate) const HISTORY: Operation = Operation {
    id: "history",
    method: Method::Get,
    path: "/v1/history",
    summary: "The revisions of an image, newest first by (effective time, number).",
    in_path: &[],
    query: &[IMAGE, LIMIT, CURSOR],
    header: &[],
    answer: Answer::Json(schema::<Items<Change>>),
    problems: &[
        (400, "image_invalid"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
        (404, "tag_unknown"),
    ],
    serve: || get(history),
};

/// The data of a revision event, without `head`: that was the head when the revision was recorded, news only then.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Change {
    pub(crate) registry: Registry,
    pub(crate) repository: Repository,
    pub(crate) tag: Tag,
    pub(crate) revision: u64,
    pub(crate) kind: Kind,
    pub(crate) digest: Option<Digest>,
    pub(crate) pinned: Option<Pinned>,
    pub(crate) previous: Option<Point>,
    pub(crate) late: bool,
    pub(crate) occurred_at: Instant,
    pub(crate) recorded_at: Instant,
    pub(crate) origin: Origin,
    pub(crate) source: String,
    pub(crate) actor: Option<String>,
    pub(crate) media_type: Option<String>,
    pub(crate) size: Option<u64>,
}

/// Answers.
async fn history(State(database): State<Database>, uri: Uri) -> Result<Json<Items<Change>>, Error> {
    let parameters = Parameters::read(&uri, HISTORY.query)?;
    let image = parameters.image()?;
    let page = Page::read("history", &parameters)?;
    let mut db = database.connection().await?;
    let Some(tag) = store::tag(&mut db, &image).await? else {
        return Err(Error::TagUnknown(image));
    };
    let changes = store::history(&mut db, tag, &image, &page).await?;
    Ok(Json(page.cut(changes)))
}
