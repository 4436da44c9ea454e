//! Publishing messages, and waiting for NATS to store them.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tagtrail_bus::Bus;
use tagtrail_bus::publish::{Message, PublishError, Unacknowledged};
use tagtrail_bus::topology::Stream;
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{Event, Image, Name, Push, Quarantined, Subject, TimeSource, TraceContext};

use crate::commit::{Answer, Queue};
use crate::error::NotStored;
use crate::source::BODY_ID;

/// Longest wait for the acknowledgement of a body's first message: Distribution waits 1 s for an
/// answer.
const FIRST: Duration = Duration::from_millis(800);
/// The time that each further message of a body adds, if the sender waits that long. NATS syncs
/// each message, which takes a busy disk about this long.
const FURTHER: Duration = Duration::from_millis(20);

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
    /// `number` is the number of the body.
    pub(crate) fn push(push: Push, partitions: u16, number: u64) -> Outbound {
        let subject = Subject::of_push(&push, partitions);
        let id = match subject {
            // An UNRESOLVED push has no identifier, so that no push counts as a duplicate:
            // registries that send no digests send the same body for each platform of an image, and
            // the tag is complete only after the last.
            Subject::Unresolved { .. } => None,
            _ if lacks_identity(&push) => {
                let within_body = Sha256::new()
                    .chain_update(push.message_id())
                    .chain_update(number.to_be_bytes());
                Some(hex(&within_body.finalize()))
            }
            _ => Some(push.message_id()),
        };
        Outbound {
            subject,
            id,
            body: Body::Push(Box::new(push.event())),
        }
    }

    /// An observation: a question for the resolver with the digest that a pull named. `None` if
    /// the push names no tag.
    pub(crate) fn observation(push: Push) -> Option<Outbound> {
        let Image {
            registry,
            repository,
            tag,
        } = push.image()?;
        Some(Outbound {
            subject: Subject::Unresolved {
                registry,
                repository,
                tag,
            },
            id: None,
            body: Body::Push(Box::new(push.event())),
        })
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
            id: Some(hex(&id)),
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
/// with the same content can be a retry, or a tag that went from A to B and back to A. So the
/// identifier of such a push counts within its body and the retries of the body.
fn lacks_identity(push: &Push) -> bool {
    push.event_id.starts_with(BODY_ID) && push.occurred_at_source == TimeSource::Received
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The way to the streams.
#[derive(Debug)]
pub(crate) struct Outlet {
    bus: Bus,
    /// The queues of pushes that are stored in groups, by stream. A push without one is published
    /// by itself.
    pushes: HashMap<Stream, Queue>,
}

/// A message under way.
pub(crate) enum Sent {
    Alone(Unacknowledged),
    Queued(Answer),
}

impl Outlet {
    pub(crate) fn new(bus: Bus, pushes: HashMap<Stream, Queue>) -> Outlet {
        Outlet { bus, pushes }
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    pub(crate) async fn send(&self, message: Message<'_>) -> Result<Sent, PublishError> {
        let stream = match message.subject {
            // Not known, or a new one, after a move of partitions.
            Subject::Push { partition, .. } if !self.pushes.is_empty() => {
                self.bus.layout().owner(*partition)
            }
            _ => None,
        };
        match stream.and_then(|stream| self.pushes.get(&stream)) {
            Some(queue) => queue.push(message).await.map(Sent::Queued),
            None => self.bus.send(message).await.map(Sent::Alone),
        }
    }
}

impl Sent {
    pub(crate) async fn acknowledged(self) -> Result<(), PublishError> {
        match self {
            Sent::Alone(sent) => sent.acknowledged().await?,
            Sent::Queued(answer) => answer.acknowledged().await?,
        };
        Ok(())
    }
}

/// Returns the way to the streams, if NATS is connected.
///
/// # Errors
/// If nothing can be sent now.
pub(crate) fn reached(outlet: Option<&Outlet>) -> Result<&Outlet, NotStored> {
    let outlet = outlet.ok_or(NotStored::NotYetConnected)?;
    // On a lost connection the client would buffer the messages and send them later, despite the
    // 503.
    if !outlet.bus.link().borrow().up {
        return Err(NotStored::Disconnected);
    }
    Ok(outlet)
}

/// Returns the longest wait for the acknowledgements of `count` messages, if the sender waits for
/// an answer for `patience`. A fifth of that time remains for the network.
fn time_for(count: usize, patience: Duration) -> Duration {
    let further = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
    let needed = FIRST.saturating_add(FURTHER.saturating_mul(further));
    needed.min((patience / 5 * 4).max(FIRST))
}

/// Publishes all messages in order, caused by `trace`, and waits until all are stored: for the time
/// that their number needs, and at most until the sender stops waiting.
///
/// # Errors
/// If a message was not confirmed. The others may be stored: on a resend, NATS drops the
/// duplicates.
pub(crate) async fn publish(
    outlet: &Outlet,
    messages: &[Outbound],
    trace: Option<TraceContext>,
    patience: Duration,
) -> Result<(), NotStored> {
    let encoded: Result<Vec<Message<'_>>, PublishError> =
        messages.iter().map(Outbound::message).collect();
    let encoded = encoded?;
    let all = async {
        let mut sent = Vec::with_capacity(encoded.len());
        for message in encoded {
            sent.push(outlet.send(message.with_trace(trace)).await?);
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
    let most = time_for(messages.len(), patience);
    tokio::time::timeout(most, all)
        .await
        .map_err(|_| NotStored::TooLate(most))??;
    FailPoint::GatewayStored.pass();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_gets_the_time_that_its_size_needs_and_that_its_sender_waits() {
        for (count, patience, expected) in [
            (1, 1000, 800),
            (1, 30_000, 800),
            (40, 1000, 800),
            (40, 3000, 1580),
            (1000, 5000, 4000),
            (1000, 30_000, 20_780),
            (0, 0, 800),
            (usize::MAX, 10_000, 8000),
        ] {
            let time = time_for(count, Duration::from_millis(patience));
            assert_eq!(time, Duration::from_millis(expected), "{count} {patience}");
        }
    }
}
