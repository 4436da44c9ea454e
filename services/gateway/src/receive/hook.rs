//! The webhook: from a request to an answer, in the order of the checks.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::header::ALLOW;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderName, HeaderValue, StatusCode};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use tagtrail_daemon::http::{discard, keep};
use tagtrail_daemon::{Span, SpanKind};
use tagtrail_proto::{TRACEPARENT, TraceContext};
use time::OffsetDateTime;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::Source;
use crate::error::Error;
use crate::proof::credentials::Admission;
use crate::receive::body::{self, Room};
use crate::receive::{self, Inbound, Reply, unknown};
use crate::shared::Shared;

/// Returns the routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/hooks/{source}", post(hook).options(handshake))
        .route("/hooks/{source}/", post(hook).options(handshake))
        .route("/hooks/{source}/{secret}", post(hook).options(handshake))
        .route("/hooks/{source}/{secret}/", post(hook).options(handshake))
        .method_not_allowed_fallback(async || Error::NotPost)
        .fallback(no_such_path)
        .with_state(shared)
        .layer(CatchPanicLayer::new())
}

/// The path of a request. The path may hold the secret, so neither must be logged.
#[derive(Deserialize)]
struct Route {
    source: String,
    secret: Option<String>,
}

/// Returns the address of the client, or of the proxy before the gateway.
fn remote(extensions: &Extensions) -> Option<SocketAddr> {
    let remote = extensions.get::<ConnectInfo<SocketAddr>>();
    remote.map(|ConnectInfo(remote)| *remote)
}

/// Counts and logs a request to a path that belongs to no source.
fn report_unknown(shared: &Shared, path: &str, extensions: &Extensions) {
    shared.metrics.count_request("", 404);
    let remote = remote(extensions);
    unknown::log(&shared.unknown_paths, &shared.sources(), path, remote);
}

async fn no_such_path(State(shared): State<Arc<Shared>>, request: Request) -> Error {
    let (head, body) = request.into_parts();
    report_unknown(&shared, head.uri.path(), &head.extensions);
    discard(&head.headers, body);
    Error::NoSuchPath
}

/// Finds the source of a request.
fn find(shared: &Shared, route: Option<&Route>, head: &Parts) -> Result<Arc<Source>, Error> {
    let sources = shared.sources();
    let name = route.map_or("", |route| route.source.as_str());
    if let Some(source) = sources.good.get(name) {
        return Ok(Arc::clone(source));
    }
    if sources.broken.contains(name) {
        shared.metrics.count_request(name, 503);
        return Err(Error::SourceBroken);
    }
    report_unknown(shared, head.uri.path(), &head.extensions);
    Err(Error::UnknownSource)
}

async fn hook(
    State(shared): State<Arc<Shared>>,
    route: Result<Path<Route>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    // An undecodable path names no source.
    let route = route.ok().map(|Path(route)| route);
    let source = match find(&shared, route.as_ref(), &head) {
        Ok(source) => source,
        Err(error) => {
            discard(&head.headers, body);
            return Err(error);
        }
    };
    let source = &*source;
    let name = source.rules.name.as_ref();
    let caused_by = head.headers.get(TRACEPARENT);
    let caused_by = caused_by.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut span = Span::start("hook", SpanKind::Server, caused_by.as_ref());
    span.set("tagtrail.source", name.to_owned());
    let secret = route.as_ref().and_then(|route| route.secret.as_deref());
    let mut outcome = accept(&shared, source, (&head, secret), body, span.context()).await;
    if let Err(refusal) = outcome {
        outcome = Err(refuse(source, refusal, &head.extensions).await);
    }
    log(&shared, source, &outcome, remote(&head.extensions));
    let status = match &outcome {
        Ok(Reply::Receipt(_)) => StatusCode::ACCEPTED,
        Ok(Reply::Handshake(_)) => StatusCode::OK,
        Err(error) => {
            span.fail(error);
            error.status().0
        }
    };
    span.set("http.response.status_code", i64::from(status.as_u16()));
    shared.metrics.count_request(name, status.as_u16());
    let seconds = started.elapsed().as_secs_f64();
    shared.metrics.seconds.observe(seconds);
    outcome.map(|answer| match answer {
        Reply::Receipt(receipt) => (status, Json(receipt)).into_response(),
        Reply::Handshake(answer) => (status, Json(answer)).into_response(),
    })
}

/// Counts a wrong proof of identity. A sender of many receives another error, after a moment.
async fn refuse(source: &Source, refusal: Error, extensions: &Extensions) -> Error {
    let address = remote(extensions).map(|remote| remote.ip());
    if refusal.is_wrong_proof() && source.refusals.exceeded(address).await {
        return Error::TooManyRefusals;
    }
    refusal
}

fn log(
    shared: &Shared,
    source: &Source,
    outcome: &Result<Reply, Error>,
    remote: Option<SocketAddr>,
) {
    let name = source.rules.name.as_ref();
    match outcome {
        Ok(Reply::Receipt(receipt)) => {
            shared.metrics.count_events(name, receipt);
            tracing::debug!(source = name, ?receipt, "accepted a body");
        }
        Ok(Reply::Handshake(_)) => {
            tracing::info!(source = name, "permitted the sender to send here")
        }
        Err(Error::NotStored(cause)) => {
            shared.metrics.count_not_stored(cause);
            tracing::warn!(
                source = name,
                "a body was not stored, so the sender must send it again: {cause}"
            );
        }
        // Anybody can send such requests, and must not fill the log.
        Err(refusal) => {
            if let Some(count) = source.refusals.line(remote.map(|it| it.ip())) {
                let remote = remote.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
                let reason = refusal.reason();
                tracing::warn!(source = name, remote, count, "refused a request: {reason}");
            }
        }
    }
}

/// Answers a `CloudEvents` sender that asks for permission (HTTP Webhooks for Event Delivery,
/// section 4).
async fn handshake(
    State(shared): State<Arc<Shared>>,
    route: Result<Path<Route>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    let (head, _) = request.into_parts();
    let headers = &head.headers;
    let route = route.ok().map(|Path(route)| route);
    let source = find(&shared, route.as_ref(), &head)?;
    let source = &*source;
    let secret = route.as_ref().and_then(|route| route.secret.as_deref());
    let refusal = match source.credentials.admit(headers, secret).await {
        Ok(Admission::Granted) => None,
        Ok(Admission::BySignature(_)) => Some(Error::Unauthenticated),
        Err(refusal) => Some(refusal),
    };
    if let Some(refusal) = refusal {
        let outcome = Err(refuse(source, refusal, &head.extensions).await);
        log(&shared, source, &outcome, remote(&head.extensions));
        return outcome.map(|_: Reply| StatusCode::OK.into_response());
    }
    let origin = headers.get("webhook-request-origin").cloned();
    let origin = origin.unwrap_or(HeaderValue::from_static("*"));
    let allowed = [
        (HeaderName::from_static("webhook-allowed-origin"), origin),
        (
            HeaderName::from_static("webhook-allowed-rate"),
            HeaderValue::from_static("*"),
        ),
        (ALLOW, HeaderValue::from_static("POST")),
    ];
    Ok((StatusCode::OK, AppendHeaders(allowed)).into_response())
}

/// Authenticates a request, then reads, interprets and stores its body. `secret` is the last part
/// of the path.
async fn accept(
    shared: &Shared,
    source: &Source,
    (head, secret): (&Parts, Option<&str>),
    body: Body,
    trace: &TraceContext,
) -> Result<Reply, Error> {
    let admission = source.credentials.admit(&head.headers, secret).await;
    let permit = admission.and_then(|admission| permit(shared, source, admission, head, &body));
    match permit {
        Ok(permit) => take(shared, source, head, body, permit, trace).await,
        Err(refusal) => {
            discard(&head.headers, body);
            Err(refusal)
        }
    }
}

/// The permission to read a body.
struct BodyPermit {
    room: Room,
    admission: Admission,
}

/// Decides by the head of a request whether to read the body, and reserves memory.
fn permit(
    shared: &Shared,
    source: &Source,
    admission: Admission,
    head: &Parts,
    body: &Body,
) -> Result<BodyPermit, Error> {
    if body::is_encoded(&head.headers) {
        return Err(Error::Encoded);
    }
    let authentic = admission == Admission::Granted;
    if authentic {
        keep(&head.extensions);
    }
    let most = source.rules.kind.max_body;
    Ok(BodyPermit {
        room: shared.budget.room(body, most, authentic)?,
        admission,
    })
}

/// Reads, interprets and stores a body. An authentic sender gets 2xx for any content that is
/// stored: on 4xx Distribution repeats the same event for ever, and sends no later events.
async fn take(
    shared: &Shared,
    source: &Source,
    head: &Parts,
    body: Body,
    permit: BodyPermit,
    trace: &TraceContext,
) -> Result<Reply, Error> {
    let received_at = OffsetDateTime::now_utc();
    let rules = &source.rules;
    let BodyPermit { room, admission } = permit;
    let body = body::read(body, rules.kind.max_body, &room).await?;
    let _room = match admission {
        Admission::Granted => room,
        Admission::BySignature(claim) => {
            let signed = tokio::select! {
                signed = source.credentials.signed(claim, &body) => signed,
                displaced = room.displaced() => return Err(displaced),
            };
            if !signed {
                return Err(Error::WrongSignature);
            }
            keep(&head.extensions);
            shared.budget.reserve(body.len())?
        }
    };
    let inbound = Inbound {
        headers: &head.headers,
        body: &body,
        received_at,
        patience: rules.kind.patience,
    };
    Ok(receive::store(shared, rules, &inbound, trace).await?)
}
