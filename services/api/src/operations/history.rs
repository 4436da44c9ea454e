//! `GET /v1/history?image=&since=&until=&limit=&cursor=&before=`: the revisions of a tag, newest
//! first.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::PgConnection;
use tagtrail_config::Role;
use tagtrail_history::changes::{self, HistoryItem, Range};
use tagtrail_history::instant::from_micros;
use tagtrail_history::tag_id;
use tagtrail_proto::Image;
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{IMAGE, Parameter, Parameters, SINCE, UNTIL, optional, text};
use crate::shared::Shared;

/// The way back to newer revisions.
pub(crate) const BEFORE: Parameter = optional(
    "before",
    "The `previous` of a page: the revisions just newer than that page, in place of `cursor`.",
    "MSBoaXN0b3J5IDE3NzI1NDY1MjAwMDAwMDAgMTc",
    text,
);

pub(crate) const HISTORY: Operation = Operation {
    id: "history",
    method: Method::Get,
    path: "/v1/history",
    summary: "The revisions of an image, newest first by (effective time, number).",
    role: Role::Read,
    in_path: &[],
    query: &[IMAGE, SINCE, UNTIL, LIMIT, CURSOR, BEFORE],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Trail>),
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

const LIST: List<2> = List {
    name: "history",
    time: Some(0),
};

/// A page of revisions, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Trail {
    #[serde(flatten)]
    pub(crate) items: Items<HistoryItem>,
    /// For `before`: the page of newer revisions, if there is one.
    pub(crate) previous: Option<String>,
    /// The time at which the first revision of the page was replaced, if another page names it.
    #[serde(skip)]
    pub(crate) replaced_at: Option<OffsetDateTime>,
}

/// Returns the cursor of a revision by its key.
pub(crate) fn cursor(key: [i64; 2]) -> String {
    LIST.encode(key)
}

/// The page that a request asks for, in either direction.
#[derive(Debug)]
pub(crate) struct Turned {
    page: Page<2>,
    before: Option<[i64; 2]>,
}

impl Turned {
    /// Reads `limit`, `cursor` and `before`. `rows`: the number of rows of a page of the web, in
    /// place of `limit`.
    pub(crate) fn read(parameters: &Parameters, rows: Option<usize>) -> Result<Turned, Error> {
        let page = Page::read(LIST, parameters)?;
        let page = match rows {
            Some(rows) => page.with(rows),
            None => page,
        };
        let before = parameters.text(BEFORE.name);
        let before = before.map(|text| LIST.decode(text).ok_or(Error::Cursor));
        let before = before.transpose()?;
        match (before, page.after) {
            (Some(_), Some(_)) => Err(Error::CursorAndBefore),
            _ => Ok(Turned { page, before }),
        }
    }

    /// Whether this is the first page, which begins with the head.
    pub(crate) fn is_start(&self) -> bool {
        self.page.after.is_none() && self.before.is_none()
    }

    /// Asks for the page.
    pub(crate) async fn ask(
        &self,
        db: &mut PgConnection,
        tag: i64,
        image: &Image,
        range: Range,
    ) -> Result<Trail, sqlx::Error> {
        let (page, fetch) = (&self.page, self.page.fetch());
        let Some(before) = self.before else {
            let found = changes::changes(db, tag, image, range, page.after, fetch).await?;
            let first = found.first().map(|(key, _)| *key);
            return Ok(Trail {
                previous: first.filter(|_| page.after.is_some()).map(cursor),
                replaced_at: page.after.and_then(|[at, _]| from_micros(at)),
                items: page.cut(found),
            });
        };
        let mut found = changes::newer(db, tag, image, range, before, fetch).await?;
        let more = found.len() > page.limit();
        // The revision beyond the page replaced the first one of the page.
        let beyond = found.get(page.limit()).map(|(_, item)| item.occurred_at.0);
        found.truncate(page.limit());
        found.reverse();
        let (first, last) = (found.first(), found.last());
        Ok(Trail {
            previous: first.filter(|_| more).map(|(key, _)| cursor(*key)),
            replaced_at: beyond,
            items: Items {
                next: last.map(|(key, _)| cursor(*key)),
                items: found.into_iter().map(|(_, item)| item).collect(),
            },
        })
    }
}

async fn history(
    State(Shared {
        database, names, ..
    }): State<Shared>,
    uri: Uri,
) -> Result<Json<Trail>, Error> {
    let parameters = Parameters::read(&uri, HISTORY.query)?;
    let image = parameters.image(&names.get())?;
    let (since, until) = parameters.range()?;
    let range = Range { since, until };
    let turned = Turned::read(&parameters, None)?;
    let trail = database
        .ask_large(async |db| match tag_id(db, &image).await? {
            Some(tag) => turned.ask(db, tag, &image, range).await.map(Some),
            None => Ok(None),
        })
        .await?;
    trail.map(Json).ok_or(Error::TagUnknown(image))
}
