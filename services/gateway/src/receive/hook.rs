//! The webhook: from a request to an answer, in the order in which things are checked.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;
use tagtrail_bus::Bus;
use tagtrail_daemon::{Span, SpanKind};
use tagtrail_proto::{PARTITIONS, Quarantined, TRACEPARENT, TraceContext, clean_text};
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::{Source, Voice};
use crate::error::Error;
use crate::interpret::{Receipt, Understood};
use crate::metrics::Metrics;
use crate::proof::credentials::Admission;
use crate::publish::{Outgoing, publish};
use crate::receive::body::{self, Room};

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
        .route("/hooks/{source}", post(hook).options(may_i))
        .route("/hooks/{source}/{secret}", post(hook).options(may_i))
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
    // Awaited without the body, which can't be shared.
    let admission = source.credentials.admit(&head.headers, secret).await;
    let outcome = match admit(&gateway, source, admission, &head.headers, &body) {
        Ok(admitted) => {
            let request = (&head.headers, body);
            take(&gateway, source, request, admitted, span.context()).await
        }
        Err(refusal) => {
            body::throw_away(&head.headers, body).await;
            Err(refusal)
        }
    };
    match &outcome {
        Ok(Answer::Receipt(receipt)) => {
            gateway.metrics.took(name, receipt);
            tracing::debug!(source = name, ?receipt, "took a body");
        }
        Ok(Answer::Handshake(_)) => {
            tracing::info!(source = name, "told the sender that it may send here")
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
        Ok(Answer::Receipt(_)) => StatusCode::ACCEPTED,
        Ok(Answer::Handshake(_)) => StatusCode::OK,
        Err(error) => {
            span.fail(error);
            error.status().0
        }
    };
    span.set("http.response.status_code", i64::from(status.as_u16()));
    gateway.metrics.answered(name, status.as_u16());
    let seconds = started.elapsed().as_secs_f64();
    gateway.metrics.seconds.observe(seconds);
    outcome.map(|answer| match answer {
        Answer::Receipt(receipt) => (status, Json(receipt)).into_response(),
        Answer::Handshake(answer) => (status, Json(answer)).into_response(),
    })
}

/// Answers the question of a sender of `CloudEvents` whether it may send here (HTTP Webhooks for Event Delivery, section 4).
async fn may_i(
    State(gateway): State<Arc<Gateway>>,
    route: Result<Path<Route>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let Path(route) = route.map_err(|_| Error::UnknownSource)?;
    let source = gateway.sources.get(&route.source);
    let source = source.ok_or(Error::UnknownSource)?;
    let secret = route.secret.as_deref();
    if source.credentials.admit(&headers, secret).await != Admission::Granted {
        return Err(Error::Unauthenticated);
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

/// What an authentic sender is told.
pub(crate) enum Answer {
    Receipt(Receipt),
    Handshake(Value),
}

/// A request whose body is read.
struct Admitted {
    _place: OwnedSemaphorePermit,
    /// Whether the body has to prove where it is from.
    by_signature: bool,
}

/// Decides on the head of a request alone whether its body is read, and keeps a place for it.
fn admit(
    gateway: &Gateway,
    source: &Source,
    admission: Admission,
    headers: &HeaderMap,
    body: &Body,
) -> Result<Admitted, Error> {
    if admission == Admission::Refused {
        return Err(Error::Unauthenticated);
    }
    if body::is_encoded(headers) {
        return Err(Error::Encoded);
    }
    Ok(Admitted {
        _place: gateway.room.reserve(body, source.voice.kind.largest)?,
        by_signature: admission == Admission::BySignature,
    })
}

/// Reads, understands and stores a body. An authentic sender is told 2xx whatever it says, once its words are stored: on 4xx
/// Distribution sends the same event for ever, and nothing after it.
async fn take(
    gateway: &Gateway,
    source: &Source,
    (headers, body): (&HeaderMap, Body),
    admitted: Admitted,
    trace: &TraceContext,
) -> Result<Answer, Error> {
    let received_at = OffsetDateTime::now_utc();
    let voice = &source.voice;
    let body = body::read(body, voice.kind.largest).await?;
    if admitted.by_signature && !source.credentials.signed(headers, &body) {
        return Err(Error::WrongSignature);
    }
    let message = Heard {
        headers,
        body: &body,
        received_at,
    };
    hear(gateway.bus.get(), voice, &message, trace).await
}

/// Something that an authentic sender said.
pub(crate) struct Heard<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    pub(crate) received_at: OffsetDateTime,
}

/// Understands and stores what was said; what is not understood goes to QUARANTINE.
pub(crate) async fn hear(
    bus: Option<&Bus>,
    voice: &Voice,
    heard: &Heard<'_>,
    trace: &TraceContext,
) -> Result<Answer, Error> {
    let Heard {
        headers,
        body,
        received_at,
    } = *heard;
    let partitions = bus.map_or(PARTITIONS, Bus::partitions);
    let understood = Understood::new(voice, headers, body, received_at, partitions)?;
    let Understood {
        mut messages,
        mut receipt,
        malformed,
        handshake,
    } = understood;
    if !malformed.is_empty() {
        let shown =
            |value: &HeaderValue| clean_text(&String::from_utf8_lossy(value.as_bytes()), 255);
        let mut kept = Quarantined::new(
            voice.name.as_ref(),
            voice.kind.name,
            malformed.join("; "),
            received_at,
            headers.get(CONTENT_TYPE).map(shown),
            body,
        );
        let telling = voice.kind.headers.iter();
        kept.headers = telling
            .filter_map(|name| Some(((*name).to_owned(), shown(headers.get(*name)?))))
            .collect();
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
    Ok(handshake.map_or(Answer::Receipt(receipt), Answer::Handshake))
}
