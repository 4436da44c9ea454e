//! Replaying a quarantined body after the cause is fixed.

use std::collections::HashMap;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tagtrail_bus::Bus;
use tagtrail_config::{ConfigError, File, Names};
use tagtrail_proto::{Event, Push, Quarantined};

use crate::config::rules;
use crate::error::NotStored;
use crate::interpret::{Interpretation, Receipt};

use crate::publish::{Outbound, Outlet, publish, reached};
use crate::receive::UNWATCHED;
use crate::receive::attempts::Identity;

/// The reason why a body was not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// QUARANTINE holds only the beginning of the body.
    #[error(
        "QUARANTINE holds only the first {} KiB of {length} bytes: have the registry send the event again",
        Quarantined::KEPT >> 10
    )]
    Truncated {
        /// Bytes of the whole body.
        length: u64,
    },
    /// The configuration no longer has the source.
    #[error(
        "no [[source]] in tagtrail.toml has the name {0:?} any more: add it, or name another file with --config"
    )]
    NoSource(String),
    /// The configuration has a mistake.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The quarantined body is not Base64, so another program wrote the message.
    #[error("the quarantined body is not Base64")]
    Garbled,
    /// The body is still malformed, and no event was published.
    #[error("the body is still malformed: {0}")]
    Malformed(String),
    /// The events of the body could not be stored.
    #[error("the events of the body could not be stored")]
    NotStored(#[source] NotStored),
}

/// Interprets a quarantined body by the present rules of the source, and publishes the events.
/// Events that were stored before are dropped as duplicates, so replaying a body twice is harmless.
///
/// # Errors
/// [`ReplayError`].
pub async fn replay(bus: &Bus, file: &File, kept: &Quarantined) -> Result<Receipt, ReplayError> {
    if kept.truncated {
        return Err(ReplayError::Truncated {
            length: kept.length,
        });
    }
    let body = STANDARD
        .decode(&kept.body)
        .map_err(|_| ReplayError::Garbled)?;
    // A replay has a number of its own. The time of receipt is the first one, so that a push that
    // is replayed twice is recorded once.
    let identity = Identity {
        number: rand::random(),
        received_at: kept.received_at,
    };
    let mut interpretation = if kept.kind == Quarantined::PUSH {
        pushed(&body, file.names(), bus.partitions(), identity.number)?
    } else {
        let entry = file
            .source
            .iter()
            .find(|entry| entry.name.get_ref().as_ref() == kept.source)
            .ok_or_else(|| ReplayError::NoSource(kept.source.clone()))?;
        let mut headers = HeaderMap::new();
        let content_type = kept.content_type.as_deref();
        if let Some(value) = content_type.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(CONTENT_TYPE, value);
        }
        for (name, value) in &kept.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                headers.insert(name, value);
            }
        }
        Interpretation::new(
            &rules(file, entry)?,
            &headers,
            &body,
            identity,
            bus.partitions(),
        )
    };
    interpretation
        .receipt
        .add(std::mem::take(&mut interpretation.unread_times));
    if !interpretation.malformed.is_empty() {
        return Err(ReplayError::Malformed(interpretation.malformed.join("; ")));
    }
    if !interpretation.messages.is_empty() {
        let outlet = Outlet::new(bus.clone(), HashMap::new());
        let outlet = reached(Some(&outlet)).map_err(ReplayError::NotStored)?;
        publish(outlet, &interpretation.messages, None, UNWATCHED)
            .await
            .map_err(ReplayError::NotStored)?;
    }
    Ok(interpretation.receipt)
}

/// Replays a message of the bus itself: a push that the resolver could not resolve, or that the
/// indexer refused.
fn pushed(
    body: &[u8],
    names: &Names,
    partitions: u16,
    number: u64,
) -> Result<Interpretation, ReplayError> {
    let malformed = |error: &dyn std::fmt::Display| ReplayError::Malformed(error.to_string());
    let event: Event<Push> = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let mut push = event.data;
    push.registry = names.registry(push.registry);
    push.tag = push.tag.map(|tag| names.tag(&push.registry, tag));
    let mut receipt = Receipt::default();
    if push.image().is_some()
        && push.digest.is_none()
        && push.action == tagtrail_proto::Action::Push
    {
        receipt.unresolved = 1;
    } else {
        push.check().map_err(|error| malformed(&error))?;
        receipt.accepted = 1;
    }
    Ok(Interpretation {
        messages: vec![Outbound::push(push, partitions, number)],
        sightings: Vec::new(),
        receipt,
        malformed: Vec::new(),
        unread_times: Vec::new(),
        handshake: None,
    })
}
