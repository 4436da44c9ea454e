//! What a registry answered, as a fact on PUSHES: whether it was asked because of an event, or compared.

use tagtrail_bus::Bus;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_proto::{Action, Image, Origin, Push, Scope, Subject, TimeSource, TraceContext};
use tagtrail_registry::Descriptor;
use time::OffsetDateTime;

/// Why a registry was asked.
#[derive(Debug)]
pub(crate) struct Occasion {
    pub(crate) origin: Origin,
    pub(crate) source: String,
    pub(crate) actor: Option<String>,
    pub(crate) event_id: String,
}

/// The fact that an answer is: of the moment of asking. `found` is `None` where there is no such tag.
pub(crate) fn push_of(
    image: Image,
    found: Option<Descriptor>,
    asked_at: OffsetDateTime,
    occasion: Occasion,
) -> Push {
    let (action, digest, media_type, size) = match found {
        Some(found) => (
            Action::Push,
            Some(found.digest),
            found.media_type,
            found.size,
        ),
        None => (Action::Delete, None, None, None),
    };
    Push {
        action,
        scope: Scope::Tag,
        registry: image.registry,
        repository: image.repository,
        tag: Some(image.tag),
        digest,
        media_type,
        // Postgres has no unsigned numbers.
        size: size.filter(|size| i64::try_from(*size).is_ok()),
        actor: occasion.actor,
        occurred_at: asked_at,
        occurred_at_source: TimeSource::Received,
        source: occasion.source,
        origin: occasion.origin,
        event_id: occasion.event_id,
    }
}

/// Without a message identifier: a fact's time tells it from every other answer, and sent twice it is one fact.
pub(crate) async fn publish(
    bus: &Bus,
    subject: &Subject,
    push: Push,
    trace: Option<TraceContext>,
) -> Result<(), PublishError> {
    let payload = serde_json::to_vec(&push.event())
        .map_err(|error| PublishError::Unacknowledged(error.to_string()))?;
    let message = Message {
        subject,
        id: None,
        payload: payload.into(),
        trace,
    };
    bus.publish(message).await.map(|_| ())
}
