//! Publishes the answer of a registry as a push: for a question, or after reconciling.

use tagtrail_bus::Bus;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_proto::{Action, Image, Origin, Push, Scope, Subject, TimeSource, TraceContext};
use tagtrail_registry::Descriptor;
use time::{Duration, OffsetDateTime};

/// The reason for which a registry was asked.
#[derive(Debug)]
pub(crate) struct Occasion {
    pub(crate) origin: Origin,
    pub(crate) source: String,
    pub(crate) actor: Option<String>,
    pub(crate) event_id: String,
}

/// Returns the time from which an answer counts: the moment of asking, but after the head that the
/// question was about. That head may be ahead, by the clock of its sender.
pub(crate) fn effective_from(
    asked_at: OffsetDateTime,
    head_at: Option<OffsetDateTime>,
) -> OffsetDateTime {
    head_at.map_or(asked_at, |head| {
        asked_at.max(head + Duration::microseconds(1))
    })
}

/// Converts an answer to a push with the time from which it counts. `found` is `None` if the
/// registry has no such tag.
pub(crate) fn push_of(
    image: Image,
    found: Option<Descriptor>,
    at: OffsetDateTime,
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
        occurred_at: at,
        occurred_at_source: TimeSource::Received,
        source: occasion.source,
        origin: occasion.origin,
        event_id: occasion.event_id,
    }
}

/// Publishes a push without a `Nats-Msg-Id`. The time tells the push from all other answers, and
/// the indexer drops a second copy of the same push.
pub(crate) async fn publish(
    bus: &Bus,
    subject: &Subject,
    push: Push,
    trace: Option<TraceContext>,
) -> Result<(), PublishError> {
    let message = Message::of(subject, &push.event())?.with_trace(trace);
    bus.publish(message).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_after_a_head_that_is_ahead() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let after = |seconds| effective_from(now, Some(now + Duration::seconds(seconds)));
        assert_eq!(after(-3), now);
        assert_eq!(after(0), now + Duration::MICROSECOND);
        assert_eq!(after(8), now + Duration::seconds(8) + Duration::MICROSECOND);
        assert_eq!(effective_from(now, None), now);
    }
}
