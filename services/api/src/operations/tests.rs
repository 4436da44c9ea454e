//! The table of operations against the texts that list operations, and a row with a body and a
//! role.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::routing::on;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tagtrail_config::Role;
use tagtrail_proto::Name;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::*;
use crate::config::Pace;
use crate::database::Database;
use crate::feed::Feed;
use crate::http::body::JsonBody;
use crate::http::operation::{Method, RequestBody, ResponseBody, schema};
use crate::http::parameters::PathValues;
use crate::http::tokens::Tokens;
use crate::operations::triggers::NAME;
use crate::together::Together;

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Hold {
    reason: String,
    /// May be left out.
    until: Option<String>,
}

const PUT: Operation = Operation {
    id: "hold",
    method: Method::Put,
    path: "/v1/test/{name}/hold",
    summary: "Holds a trigger.",
    role: Role::Operate,
    in_path: &[NAME],
    query: &[],
    header: &[],
    body: Some(RequestBody {
        schema: schema::<Hold>,
        max_size: 100,
        required: true,
    }),
    response: ResponseBody::Json(schema::<Hold>),
    problems: &[],
    serve: |method| on(method, put),
};

const DELETE: Operation = Operation {
    id: "end_hold",
    method: Method::Delete,
    summary: "Ends the hold.",
    body: None,
    serve: |method| on(method, async || StatusCode::NO_CONTENT),
    ..PUT
};

async fn put(path: PathValues, JsonBody(hold): JsonBody<Hold>) -> Result<Json<Value>, Error> {
    let name: Name = path.parse(&NAME).map_err(|_| Error::TriggerUnknown)?;
    Ok(Json(json!({ "name": name, "hold": hold })))
}

fn tokens() -> Tokens {
    Tokens::of(&[
        ("dashboard", "read-only-secret", Role::Read),
        ("deployer", "operating-secret", Role::Operate),
    ])
}

/// The state of an api without a database.
fn shared(tokens: Tokens) -> Shared {
    let database = Database::default();
    let metrics = Metrics::new(&tagtrail_daemon::Metrics::default());
    Shared {
        feed: Feed::new(database.clone(), CancellationToken::new()),
        quarantine: crate::quarantine::Quarantine::new(),
        together: Together::new(&database, &metrics).0,
        database,
        names: crate::follow::Current::new(tagtrail_config::Names::default()),
        tokens: crate::follow::Current::new(tokens),
        people: None,
        refusals: Arc::default(),
        file: crate::follow::Current::new(tagtrail_config::File::default()),
        gateway: None,
        pace: Pace::default(),
        metrics,
    }
}

/// Sends a request with this token. Returns status and body of the answer.
async fn send(method: &str, token: &str, content_type: &str, body: &str) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri("/v1/test/shop/hold")
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(CONTENT_TYPE, content_type)
        .body(Body::from(body.to_owned()))
        .unwrap();
    let mut router = router(&[PUT, DELETE], shared(tokens()));
    let response = router.call(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 10_000).await;
    (
        status,
        serde_json::from_slice(&body.unwrap()).unwrap_or_default(),
    )
}

#[tokio::test]
async fn an_operation_takes_a_body_from_those_who_have_its_role() {
    const JSON: &str = "application/json; charset=utf-8";
    let hold = r#"{ "reason": "sale" }"#;
    assert_eq!(
        send("PUT", "operating-secret", JSON, hold).await,
        (
            200,
            json!({ "name": "shop", "hold": { "reason": "sale", "until": null } })
        )
    );
    assert_eq!(send("DELETE", "operating-secret", JSON, "").await.0, 204);
    let long = json!({ "reason": "x".repeat(100) }).to_string();
    for (method, token, content_type, body, status, code) in [
        ("PUT", "read-only-secret", JSON, hold, 403, "forbidden"),
        ("DELETE", "read-only-secret", JSON, "", 403, "forbidden"),
        ("PUT", "wrong", JSON, "not read", 401, "unauthenticated"),
        (
            "PUT",
            "operating-secret",
            "text/plain",
            hold,
            415,
            "body_not_json",
        ),
        (
            "PUT",
            "operating-secret",
            JSON,
            &long,
            413,
            "body_too_large",
        ),
        ("PUT", "operating-secret", JSON, "", 400, "body_invalid"),
        ("PUT", "operating-secret", JSON, "{}", 400, "body_invalid"),
        (
            "PUT",
            "operating-secret",
            JSON,
            r#"{ "reason": "x", "untill": "y" }"#,
            400,
            "body_invalid",
        ),
        (
            "POST",
            "operating-secret",
            JSON,
            hold,
            405,
            "method_not_allowed",
        ),
    ] {
        let answer = send(method, token, content_type, body).await;
        assert_eq!(
            (answer.0, answer.1["code"].as_str()),
            (status, Some(code)),
            "{method} {token} {content_type} {body}"
        );
    }
}

/// Sends a request as a browser does for a page of another origin. Returns the status, and the
/// headers of the answer that concern other origins.
async fn from_a_page(
    tokens: Tokens,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("origin", "https://dash.example.com");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = router(ALL, shared(tokens)).call(request).await.unwrap();
    let shown = response.headers().iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("access-control-")?;
        Some(format!("{name}: {}", value.to_str().unwrap()))
    });
    let mut shown: Vec<String> = shown.collect();
    shown.sort();
    (response.status().as_u16(), shown.join("; "))
}

#[tokio::test]
async fn pages_of_other_origins_may_read_with_a_token_and_do_nothing_else() {
    const FEED: &str = "/v1/revisions";
    let asked = |method| {
        [
            ("access-control-request-method", method),
            (
                "access-control-request-headers",
                "authorization,last-event-id",
            ),
        ]
    };
    let preflight = "allow-headers: Authorization, Last-Event-ID; allow-methods: GET; allow-origin: *; max-age: 3600";
    for (method, path, headers, expected) in [
        ("OPTIONS", FEED, &asked("GET")[..], (204, preflight)),
        ("OPTIONS", "/v1/triggers", &asked("GET"), (204, preflight)),
        ("OPTIONS", "/v1/triggers/x/pause", &asked("POST"), (405, "")),
        ("OPTIONS", FEED, &asked("get"), (405, "")),
        ("OPTIONS", FEED, &[], (405, "")),
        ("GET", "/v1/triggers", &[], (401, "allow-origin: *")),
        ("GET", "/v1/nothing", &[], (404, "allow-origin: *")),
        (
            "GET",
            FEED,
            &[("authorization", "Bearer read-only-secret")],
            (503, "allow-origin: *"),
        ),
        (
            "GET",
            "/v1/revisions?access_token=read-only-secret",
            &[],
            (503, "allow-origin: *"),
        ),
        (
            "GET",
            "/v1/revisions?access_token=operating-secret",
            &[],
            (403, "allow-origin: *"),
        ),
        // Only the feed takes a token from the query.
        (
            "GET",
            "/v1/triggers?access_token=read-only-secret",
            &[],
            (401, "allow-origin: *"),
        ),
        ("POST", "/v1/triggers/x/pause", &[], (401, "")),
    ] {
        let answer = from_a_page(tokens(), method, path, headers).await;
        assert_eq!(
            (answer.0, answer.1.as_str()),
            expected,
            "{method} {path} {headers:?}"
        );
    }
}

#[tokio::test]
async fn a_token_in_an_address_is_never_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    for token in ["read-only-secret", "operating-secret", "wrong-secret"] {
        let path = format!("/v1/revisions?since=x&access_token={token}");
        from_a_page(tokens(), "GET", &path, &[]).await;
        let path = format!("/v1/triggers?access_token={token}");
        from_a_page(tokens(), "GET", &path, &[]).await;
    }
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("token=\"deployer\""), "{text}");
    assert!(!text.contains("-secret"), "{text}");
}

/// The text of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn without_tokens_pages_of_other_origins_may_not_read() {
    let asked = [("access-control-request-method", "GET")];
    for (method, headers, status) in [("OPTIONS", &asked[..], 405), ("GET", &[], 503)] {
        let answer = from_a_page(Tokens::default(), method, "/v1/triggers", headers).await;
        assert_eq!(answer, (status, String::new()), "{method}");
    }
}

#[test]
fn the_openapi_document_describes_the_body_of_a_request() {
    let document = openapi::document(&[PUT, DELETE]);
    let path = &document["paths"]["/v1/test/{name}/hold"];
    assert_eq!(path["delete"]["requestBody"], Value::Null);
    let body = &path["put"]["requestBody"];
    assert_eq!(body["required"], true);
    let schema = &body["content"]["application/json"]["schema"];
    assert_eq!(schema["required"], json!(["reason"]), "{schema}");
    assert_eq!(schema["additionalProperties"], false);
    let codes = path["put"]["responses"]["413"]["description"].as_str();
    assert_eq!(codes, Some("`code`: `body_too_large`"));
    assert_eq!(path["delete"]["responses"]["413"], Value::Null);
}

#[test]
fn the_text_of_not_found_names_each_resource() {
    let text = Error::NotFound.to_string();
    let (_, names) = text.split_once("under /v1: ").unwrap();
    let (names, _) = names.split_once(';').unwrap();
    let named: BTreeSet<&str> = names.split(", ").collect();
    let resource = |operation: &Operation| operation.path.split('/').nth(2).unwrap();
    assert_eq!(named, ALL.iter().map(resource).collect());
}

/// Returns method and path with query of each call in a row of a Markdown table. The first column
/// looks like "`GET /v1/a?x=`, `/v1/b`".
fn calls(row: &str) -> Vec<(&str, String)> {
    let column = row.split('|').nth(1).unwrap_or_default();
    let mut calls: Vec<(&str, String)> = Vec::new();
    for code in column.split('`').skip(1).step_by(2) {
        let call = match (code.split_once(' '), calls.last()) {
            (Some((method, call)), _) => (method, call.to_owned()),
            (None, None) => continue,
            (None, Some((method, _))) if code.starts_with("/v1/") => (*method, code.to_owned()),
            // `/resume` after `/v1/triggers/{name}/pause` replaces the last segment.
            (None, Some((method, before))) => {
                let (parent, _) = before.rsplit_once('/').unwrap_or_default();
                (*method, format!("{parent}{code}"))
            }
        };
        calls.push(call);
    }
    calls.retain(|(_, call)| call.starts_with("/v1/"));
    calls
}

#[test]
fn the_readme_lists_each_operation_with_parameters_that_it_has() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let mut listed = BTreeSet::new();
    for (method, call) in readme.lines().flat_map(calls) {
        let (path, query) = call.split_once('?').unwrap_or((&call, ""));
        let operation = ALL
            .iter()
            .find(|row| row.path == path && row.method.name().eq_ignore_ascii_case(method))
            .unwrap_or_else(|| panic!("no operation {method} {path}"));
        for name in query.split_terminator('&') {
            let name = name.trim_end_matches('=');
            let known = operation.query.iter().any(|known| known.name == name);
            assert!(known, "{method} {path} has no parameter {name}");
        }
        listed.insert(operation.id);
    }
    let all: BTreeSet<&str> = ALL.iter().map(|operation| operation.id).collect();
    assert_eq!(listed, all);
}
