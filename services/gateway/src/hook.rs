//! The webhook: from a request to an answer, in the order in which things are checked.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use tagtrail_bus::Bus;
use tagtrail_daemon::{Span, SpanKind};
use tagtrail_proto::{PARTITIONS, Quarantined, TRACEPARENT, TraceContext, clean_text};
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

use crate::body::{self, Room};
use crate::config::Source;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::publish::{Outgoing, publish};
use crate::understood::{Receipt, Understood};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The sources, by name.
    pub(crate) sources: HashMap<String, Source>,
    /// Set once NATS was reached; until then nothing can be stored, and senders are told to come again.
    pub(crate) bus: OnceLock<Bus>,
    /// Memory for bodies.
    pub(crate) room: Room,
    pub(crate) metrics: Metrics,
}

/// The routes.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/hooks/{source}", post(hook))
        .route("/hooks/{source}/{secret}", post(hook))
        .method_not_allowed_fallback(async || Error::NotPost)
        .fallback(async || Error::NoSuchPath)
        .with_state(gateway)
        .layer(CatchPanicLayer::new())
}

/// Where a request goes. The secret appears in nothing that is printed, and neither does the path.
#[derive(Deserialize)]
struct Route {
    source: String,
    secret: Option<String>,
}

async fn hook(
    State(gateway): State<Arc<Gateway>>,
    route: Result<Path<Route>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    // A path that can't be read is no source's.
    let route = route.ok().map(|Path(route)| route);
    let source = route
        .as_ref()
        .and_then(|route| gateway.sources.get(&route.source));
    let Some(source) = source else {
        gateway.metrics.answered("", 404);
        body::throw_away(&head.headers, body).await;
        return Err(Error::UnknownSource);
    };
    let name = source.voice.name.as_ref();
    let caused_by = head.headers.get(TRACEPARENT);
    let caused_by = caused_by.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut span = Span::start("hook", SpanKind::Server, caused_by.as_ref());
    span.set("tagtrail.source", name.to_owned());
    let secret = route.as_ref().and_then(|route| route.secret.as_deref());
    let outcome = match admit(&gateway, source, secret, &head.headers, &body) {
        Ok(_place) => take(&gateway, source, &head.headers, body, span.context()).await,
        Err(refusal) => {
            body::throw_away(&head.headers, body).await;
            Err(refusal)
        }
    };
    match &outcome {
        Ok(receipt) => {
            gateway.metrics.took(name, receipt);
            tracing::debug!(source = name, ?receipt, "took a body");
        }
        Err(Error::NotStored(cause)) => {
            tracing::warn!(
                source = name,
                "a body was not stored, its sender keeps it: {cause}"
            );
        }
        Err(refusal) => tracing::warn!(source = name, "refused a request: {refusal}"),
    }
    let status = match &outcome {
        Ok(_) => StatusCode::ACCEPTED,
        Err(error) => {
            span.fail(error);
            error.status().0
        }
    };
    span.set("http.response.status_code", i64::from(status.as_u16()));
    gateway.metrics.answered(name, status.as_u16());
    let seconds = started.elapsed().as_secs_f64();
    gateway.metrics.seconds.observe(seconds);
    outcome.map(|receipt| (status, Json(receipt)).into_response())
}

/// Decides on the head of a request alone whether its body is read, and keeps a place for it.
fn admit(
    gateway: &Gateway,
    source: &Source,
    secret: Option<&str>,
    headers: &HeaderMap,
    body: &Body,
) -> Result<OwnedSemaphorePermit, Error> {
    if !source.credentials.admit(headers, secret) {
        return Err(Error::Unauthenticated);
    }
    if body::is_encoded(headers) {
        return Err(Error::Encoded);
    }
    gateway.room.reserve(body)
}

/// Reads, understands and stores a body. An authentic sender is told 2xx whatever it says, once its words are stored: on 4xx
/// Distribution sends the same event for ever, and nothing after it.
async fn take(
    gateway: &Gateway,
    source: &Source,
    headers: &HeaderMap,
    body: Body,
    trace: &TraceContext,
) -> Result<Receipt, Error> {
    let received_at = OffsetDateTime::now_utc();
    let body = body::read(body).await?;
    let bus = gateway.bus.get();
    let partitions = bus.map_or(PARTITIONS, Bus::partitions);
    let voice = &source.voice;
    let understood = Understood::new(voice, headers, &body, received_at, partitions)?;
    let Understood {
        mut messages,
        mut receipt,
        malformed,
    } = understood;
    if !malformed.is_empty() {
        let content_type = headers
            .get(CONTENT_TYPE)
            .map(|value| clean_text(&String::from_utf8_lossy(value.as_bytes()), 255));
        let (name, kind) = (voice.name.as_ref(), voice.kind.name);
        let kept = Quarantined::new(
            name,
            kind,
            malformed.join("; "),
            received_at,
            content_type,
            &body,
        );
        messages.push(Outgoing::quarantined(&voice.name, &kept)?);
    }
    publish(bus, &messages, Some(*trace)).await?;
    if let Some(first) = receipt.reasons.first() {
        tracing::warn!(source = %voice.name, events = receipt.reasons.len(), "refused what this source may not say: {first}");
    }
    if let Some(first) = malformed.first() {
        tracing::warn!(source = %voice.name, events = receipt.quarantined, "put a body into quarantine: {first}");
    }
    receipt.add(malformed);
    Ok(receipt)
}
