//! `GET /v1/digests/{digest}`: every image that ever had it, and when.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde::Serialize;
use tagtrail_proto::{Digest, Image};

use crate::database::Database;
use crate::error::Error;
use crate::instant::Instant;
use crate::paging::{Items, Page};
use crate::parameters::Parameters;
use crate::store;

/// The images that had a digest. None is an answer too: nobody ever pushed it under a tag.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    digest: Digest,
    #[serde(flatten)]
    spans: Items<Span>,
}

/// A time over which an image had it.
#[derive(Debug, Serialize)]
pub(crate) struct Span {
    pub(crate) image: Image,
    pub(crate) revision: u64,
    pub(crate) from: Instant,
    /// None: it still has.
    pub(crate) until: Option<Instant>,
}

/// Answers, by image in the order in which they were first seen, then by time.
pub(crate) async fn digest(
    State(database): State<Database>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Answer>, Error> {
    let Path(digest) = path?;
    let digest: Digest = digest.parse().map_err(Error::Digest)?;
    let parameters = Parameters::read(&uri, &["limit", "cursor"])?;
    let page = Page::read("digest", &parameters)?;
    let mut db = database.connection().await?;
    let spans = page.cut(store::spans(&mut db, &digest, &page).await?);
    Ok(Json(Answer { digest, spans }))
}
