//! Every path that is no page: operations of the API, images and digests that were pasted after the
//! slash, and the page for the rest.

use axum::Extension;
use axum::extract::Request;
use axum::http::header::ACCEPT;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use time::OffsetDateTime;
use tower_service::Service as _;

use crate::http::error::Told;
use crate::pages::Operations;
use crate::pages::frame;
use crate::pages::reader::Reader;

pub(crate) async fn serve(
    Extension(Operations(mut api)): Extension<Operations>,
    request: Request,
) -> Response {
    let path = request.uri().path();
    let of_api = path.starts_with("/v1/") || path == "/openapi.json" || path == "/v1";
    if !of_api && [Method::GET, Method::HEAD].contains(request.method()) {
        if let Some(address) = pasted(path) {
            return Redirect::to(&address).into_response();
        }
        if is_browser(&request) {
            return missing(path);
        }
    }
    match api.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Returns the page of an image or digest that was pasted after the slash.
fn pasted(path: &str) -> Option<String> {
    let text = path.strip_prefix('/')?;
    if text.starts_with("sha256:") || text.starts_with("sha512:") {
        return Some(format!("/d/{text}"));
    }
    let (first, _) = text.split_once('/')?;
    let is_registry = first == "localhost" || first.contains(['.', ':']);
    let is_plain = first
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte));
    (is_registry && is_plain).then(|| format!("/i/{text}"))
}

fn is_browser(request: &Request) -> bool {
    let accepts = request.headers().get(ACCEPT);
    accepts.is_some_and(|accepts| {
        let accepts = accepts.to_str().unwrap_or_default();
        accepts.contains("text/html")
    })
}

/// The page says nothing about the store, so nobody need have signed in.
fn missing(path: &str) -> Response {
    let reader = Reader {
        holder: None,
        theme: None,
        now: OffsetDateTime::now_utc(),
        address: path.to_owned(),
        everybody: false,
    };
    let told = Told {
        code: "not_found",
        detail:
            "There is no such page. The search field finds images, digests, commits and rollouts."
                .to_owned(),
        similar: Vec::new(),
    };
    let page = frame::problem(&reader, StatusCode::NOT_FOUND, &told);
    (StatusCode::NOT_FOUND, page).into_response()
}
