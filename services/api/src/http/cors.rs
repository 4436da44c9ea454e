//! Cross-origin requests (the Fetch standard, section 3.3): which answers a browser shows to pages
//! of other origins.
//!
//! Where a `[[token]]` is configured, a page of any origin may read: only a page that was given a
//! token receives more than a 401, and no cookie counts. Without a token, the API answers everyone
//! who can reach it, and so pages of other origins must not read.

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderName,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// The answer to the question of a browser whether a page may send a GET. A browser asks because
/// of the header `Authorization`; an hour later it asks again.
const PREFLIGHT: [(HeaderName, &str); 4] = [
    (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (ACCESS_CONTROL_ALLOW_METHODS, "GET"),
    // A `*` would not include `Authorization`.
    (ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Last-Event-ID"),
    (ACCESS_CONTROL_MAX_AGE, "3600"),
];

/// Lets pages of any origin read the answers to GET, problems included.
pub(crate) async fn share_reads(request: Request, next: Next) -> Response {
    if is_preflight_of_get(request.method(), request.headers()) {
        return (StatusCode::NO_CONTENT, PREFLIGHT).into_response();
    }
    let reads = *request.method() == Method::GET;
    let mut response = next.run(request).await;
    if reads {
        response
            .headers_mut()
            .insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}

fn is_preflight_of_get(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers
            .get(ACCESS_CONTROL_REQUEST_METHOD)
            .is_some_and(|asked| asked == "GET")
}
