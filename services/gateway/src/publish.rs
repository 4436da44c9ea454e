//! Publishing messages, and waiting for NATS to store them.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tagtrail_bus::Bus;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{Event, Name, Push, Quarantined, Subject, TimeSource, TraceContext};

use crate::error::NotStored;
use crate::source::BODY_ID;

/// Longest wait for the acknowledgements of all messages of a body: Distribution waits 1 s for an
/// answer.
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(800);

/// A message to be published.
#[derive(Debug)]
pub(crate) struct Outbound {
    subject: Subject,
    id: Option<String>,
    body: Body,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Body {
    Push(Box<Event<Push>>),
    Quarantined(Box<Quarantined>),
}

impl Outbound {
    /// A push: for PUSHES if the digest is known, otherwise for UNRESOLVED.
    pub(crate) fn push(push: Push, partitions: u16) -> Outbound {
        let subject = Subject::of_push(&push, partitions);
        let id = match subject {
            // An UNRESOLVED push has no identifier, so that no push counts as a duplicate:
            // registries that send no digests send the same body for each platform of an image, and
            // the tag is complete only after the last.
            Subject::Unresolved { .. } => None,
            _ => (!lacks_identity(&push)).then(|| push.message_id()),
        };
        Outbound {
            subject,
            id,
            body: Body::Push(Box::new(push.event())),
        }
    }

    /// A malformed body, for QUARANTINE. A resent body has the same identifier, and is kept once.
    pub(crate) fn quarantined(source: &Name, body: Quarantined) -> Outbound {
        // A hash over the source and the hash of the body. No name holds a zero byte.
        let id = Sha256::new()
            .chain_update(source.as_ref())
            .chain_update([0])
            .chain_update(body.sha256.as_bytes())
            .finalize();
        Outbound {
            subject: Subject::Quarantine {
                source: source.clone(),
            },
            id: Some(id.iter().map(|byte| format!("{byte:02x}")).collect()),
            body: Body::Quarantined(Box::new(body)),
        }
    }

    /// Encodes the message.
    pub(crate) fn message(&self) -> Result<Message<'_>, PublishError> {
        let message = Message::of(&self.subject, &self.body)?;
        Ok(match &self.id {
            Some(id) => message.with_id(id),
            None => message,
        })
    }
}

/// Returns whether a push has neither an identifier nor a time from the sender. Two such pushes
/// with the same content can be a retry, or a tag that went from A to B and back to A. Dropping the
/// second as a duplicate could lose a change, while keeping a retry only records twice that the tag
/// has this digest. So such a push has no identifier.
fn lacks_identity(push: &Push) -> bool {
    push.event_id.starts_with(BODY_ID) && push.occurred_at_source == TimeSource::Received
}

/// Publishes all messages in order, caused by `trace`, and waits until all are stored.
///
/// # Errors
/// If a message was not confirmed. The others may be stored: on a resend, NATS drops the
/// duplicates.
pub(crate) async fn publish(
    bus: Option<&Bus>,
    messages: &[Outbound],
    trace: Option<TraceContext>,
) -> Result<(), NotStored> {
    if messages.is_empty() {
        return Ok(());
    }
    let bus = bus.ok_or(NotStored::NotYetConnected)?;
    // On a lost connection the client would buffer the messages and send them later, despite the
    // 503.
    if !bus.link().borrow().up {
        return Err(NotStored::Disconnected);
    }
    let encoded: Result<Vec<Message<'_>>, PublishError> =
        messages.iter().map(Outbound::message).collect();
    let encoded = encoded?;
    let all = async {
        let mut sent = Vec::with_capacity(encoded.len());
        for message in encoded {
            sent.push(bus.send(message.with_trace(trace)).await?);
        }
        if FailPoint::GatewayAcknowledgement.skipped() {
            return Ok(());
        }
        for message in sent {
            message.acknowledged().await?;
        }
        Ok::<(), PublishError>(())
    };
    FailPoint::GatewayUnderstood.pass();
    if FailPoint::GatewayStore.skipped() {
        return Ok(());
    }
    tokio::time::timeout(PUBLISH_TIMEOUT, all)
        .await
        .map_err(|_| NotStored::TooLate(PUBLISH_TIMEOUT))??;
    FailPoint::GatewayStored.pass();
    Ok(())
}
