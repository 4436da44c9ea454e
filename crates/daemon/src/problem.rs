//! Problem details (RFC 9457): the body of every HTTP response that is an error.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

/// Returns the response with this status, a stable `code` for programs, and a `detail` for people
/// that names cause and cure.
#[must_use]
pub fn response(status: StatusCode, code: &str, detail: &str) -> Response {
    let problem = json!({
        // The status and `code` identify the kind of problem.
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
    });
    let content_type = HeaderValue::from_static("application/problem+json");
    (status, [(CONTENT_TYPE, content_type)], problem.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_has_the_members_of_rfc_9457() {
        let response = response(StatusCode::NOT_FOUND, "tag_unknown", "no push of it");
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 1000).await;
        let problem: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
        assert_eq!(
            problem,
            json!({
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "no push of it",
                "code": "tag_unknown",
            })
        );
    }
}
