//! Receivers of bodies: HTTP requests, messages of a NATS subject, and quarantined bodies that are
//! replayed.

pub(crate) mod attempts;
pub(crate) mod body;
pub(crate) mod hook;
pub(crate) mod nats;
pub(crate) mod pulls;
pub(crate) mod replay;
pub(crate) mod replays;
pub(crate) mod strangers;
pub(crate) mod unknown;

use std::time::Instant;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use serde_json::Value;
use tagtrail_proto::{PARTITIONS, Quarantined, TraceContext, clean_text};
use time::OffsetDateTime;
use tokio::time::Duration;

use crate::config::SourceRules;
use crate::error::NotStored;
use crate::interpret::{Interpretation, Receipt};
use crate::proof::hashing::off_thread;
use crate::publish::{Outbound, Outlet, publish, reached};
use crate::receive::attempts::Attempt;
use crate::shared::Shared;

/// The patience where no sender waits for an answer.
pub(crate) const UNWATCHED: Duration = Duration::from_secs(30);

/// A body from an authentic sender.
pub(crate) struct Inbound<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
    pub(crate) received_at: OffsetDateTime,
    /// The time after which the sender stops waiting for an answer.
    pub(crate) patience: Duration,
}

/// The reply to an authentic sender.
pub(crate) enum Reply {
    /// Every event of the body is stored, or need not be.
    Receipt(Receipt),
    /// The sender asked for permission, which this value grants.
    Handshake(Value),
}

/// Interprets a body and publishes the events. A body with malformed events goes to QUARANTINE.
///
/// # Errors
/// If the bus did not confirm every message. The sender must send the body again.
pub(crate) async fn store(
    shared: &Shared,
    rules: &SourceRules,
    inbound: &Inbound<'_>,
    trace: &TraceContext,
) -> Result<Reply, NotStored> {
    let Inbound { headers, body, .. } = *inbound;
    let outlet = shared.outlet.get();
    let (source, hashed) = (rules.name.clone(), body.clone());
    let key = off_thread(body.len(), move || attempts::key(&source, &hashed)).await;
    let mut attempt = shared.attempts.begin(key, inbound.received_at);
    let identity = attempt.identity();
    let partitions = outlet.map_or(PARTITIONS, |outlet| outlet.bus().partitions());
    let Interpretation {
        mut messages,
        sightings,
        mut receipt,
        malformed,
        unread_times,
        handshake,
    } = Interpretation::new(rules, headers, body, identity, partitions);
    if !malformed.is_empty() {
        let text =
            |value: &HeaderValue| clean_text(&String::from_utf8_lossy(value.as_bytes()), 255);
        let mut quarantined = Quarantined::new(
            rules.name.as_ref(),
            rules.kind.name,
            malformed.join("; "),
            identity.received_at,
            headers.get(CONTENT_TYPE).map(text),
            body,
        );
        let kept = rules.kind.headers.iter();
        quarantined.headers = kept
            .filter_map(|name| Some(((*name).to_owned(), text(headers.get(*name)?))))
            .collect();
        messages.push(Outbound::quarantined(&rules.name, quarantined));
    }
    let (observations, noted) = shared.pulls.take(&sightings, Instant::now());
    let name = rules.name.as_ref();
    shared.metrics.count_observations(name, observations.len());
    messages.extend(observations.into_iter().filter_map(Outbound::observation));
    send(outlet, &messages, &mut attempt, inbound.patience, trace).await?;
    attempt.stored();
    noted.stored();
    if let Some(first) = receipt.reasons.first() {
        tracing::warn!(source = %rules.name, events = receipt.reasons.len(), "ignored events outside the `repositories` of the source: {first}");
    }
    if let Some(first) = malformed.first() {
        tracing::warn!(source = %rules.name, events = receipt.quarantined, "quarantined a body: {first}");
    }
    if let Some(first) = unread_times.first() {
        tracing::warn!(source = %rules.name, events = receipt.unread_times, "accepted events whose time can't be read: {first}");
    }
    receipt.add(malformed);
    receipt.add(unread_times);
    Ok(handshake.map_or(Reply::Receipt(receipt), Reply::Handshake))
}

/// Publishes the messages of a body.
async fn send(
    outlet: Option<&Outlet>,
    messages: &[Outbound],
    attempt: &mut Attempt<'_>,
    patience: Duration,
    trace: &TraceContext,
) -> Result<(), NotStored> {
    if messages.is_empty() {
        return Ok(());
    }
    let outlet = reached(outlet)?;
    attempt.publishing();
    publish(outlet, messages, Some(*trace), patience).await
}
