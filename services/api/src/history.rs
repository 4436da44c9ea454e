//! `GET /v1/history?image=&limit=&cursor=`: the revisions of a tag, newest first.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use tagtrail_proto::{Digest, Kind, Origin, Pinned, Point, Registry, Repository, Tag};

use crate::database::Database;
use crate::error::Error;
use crate::instant::Instant;
use crate::paging::{Items, Page};
use crate::parameters::Parameters;
use crate::store;

/// The data of a revision event, without `head`: that was the head when the revision was recorded, news only then.
#[derive(Debug, Serialize)]
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
pub(crate) async fn history(
    State(database): State<Database>,
    uri: Uri,
) -> Result<Json<Items<Change>>, Error> {
    let parameters = Parameters::read(&uri, &["image", "limit", "cursor"])?;
    let image = parameters.image()?;
    let page = Page::read("history", &parameters)?;
    let mut db = database.connection().await?;
    let Some(tag) = store::tag(&mut db, &image).await? else {
        return Err(Error::TagUnknown(image));
    };
    let changes = store::history(&mut db, tag, &image, &page).await?;
    Ok(Json(page.cut(changes)))
}
