//! Pages that have not changed since the browser read them: a 304 in place of the page.
//!
//! A page is made of the store, the files, the reader, the address and the clock. The tag of a page
//! is a hash of them all, with the minute for the clock: pages say "3 min ago". The state of the
//! store is the list of transactions whose changes are visible, so that no kind of change can be
//! forgotten; the price is that any write, to any table, has each page made again once.
//!
//! The state is read before the page. A change in between is on the page, whose tag is then that of
//! the state before: the next request makes the page again, and none keeps an old page.

use axum::extract::{Request, State};
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tagtrail_proto::Digest;

use crate::pages::assets::{SCRIPT_ADDRESS, STYLE_ADDRESS};
use crate::pages::part::digest::digits;
use crate::pages::reader::Reader;
use crate::shared::Shared;
use crate::store::snapshot;

/// Answers with 304 if the browser has the page as it is now; otherwise adds the tag of the page.
pub(crate) async fn answer(
    State(shared): State<Shared>,
    reader: Reader,
    request: Request,
    next: Next,
) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    // Without an answer of Postgres the page itself names the problem.
    let state = shared.database.ask(snapshot::seen).await;
    let Ok(Some(state)) = state else {
        return next.run(request).await;
    };
    let tag = tag(&shared, &reader, &state);
    if has(request.headers(), &tag) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
    }
    let mut response = next.run(request).await;
    if response.status() == StatusCode::OK {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// Returns the tag of a page. It is weak: a page is compressed for some browsers.
fn tag(shared: &Shared, reader: &Reader, state: &str) -> HeaderValue {
    let parts = format!(
        "{:?}",
        (
            env!("CARGO_PKG_VERSION"),
            STYLE_ADDRESS.as_str(),
            SCRIPT_ADDRESS.as_str(),
            state,
            (shared.file.changes(), shared.quarantine.count()),
            (&reader.holder, reader.everybody, reader.theme),
            &reader.address,
            reader.now.unix_timestamp().div_euclid(60),
        )
    );
    let hash = digits(&Digest::sha256_of(parts.as_bytes()), 32);
    HeaderValue::try_from(format!("W/\"{hash}\"")).unwrap_or(HeaderValue::from_static("W/\"\""))
}

/// Returns whether the browser has a page of this tag.
fn has(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = |text: &str| text.trim().trim_start_matches("W/").to_owned();
    let wanted = opaque(tag.to_str().unwrap_or_default());
    let values = headers.get_all(IF_NONE_MATCH).iter();
    let mut tags = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    tags.any(|one| opaque(one) == wanted)
}
