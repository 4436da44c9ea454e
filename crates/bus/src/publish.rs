//! Publishing with an acknowledgement that can be awaited later, and the fence that keeps a sleeper's words off the bus.

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use serde::Serialize;
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{Subject, TRACEPARENT, TraceContext};

use crate::topology::Stream;
use crate::{Bus, BusError, Session};

/// A message to be stored by a stream.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Where it goes; the stream follows from it.
    pub subject: &'a Subject,
    /// `Nats-Msg-Id`: a second message with it is acknowledged, but not stored, for 10 minutes.
    pub id: Option<&'a str>,
    /// JSON, at most 1 MiB.
    pub payload: Bytes,
    /// What caused it, for whoever reads it.
    pub trace: Option<TraceContext>,
}

impl<'a> Message<'a> {
    /// Builds the message that carries `body` (as a rule an [`Event`](tagtrail_proto::Event)) as JSON, without a `Nats-Msg-Id`
    /// and without a trace.
    ///
    /// # Errors
    /// [`PublishError::Json`].
    pub fn of<T: Serialize>(subject: &'a Subject, body: &T) -> Result<Message<'a>, PublishError> {
        Ok(Message {
            subject,
            id: None,
            payload: serde_json::to_vec(body)?.into(),
            trace: None,
        })
    }

    /// Sets the `Nats-Msg-Id`.
    #[must_use]
    pub fn with_id(self, id: &'a str) -> Message<'a> {
        Message {
            id: Some(id),
            ..self
        }
    }

    /// Sets the trace that the message belongs to.
    #[must_use]
    pub fn with_trace(self, trace: Option<TraceContext>) -> Message<'a> {
        Message { trace, ..self }
    }
}

/// The right to publish the revisions of one partition: the sequence of the fence message that this holder wrote, and the
/// [`Session`] that it wrote it by. Whoever fences later takes the right away.
#[derive(Debug, Clone)]
pub struct Fence {
    subject: String,
    sequence: u64,
    session: Session,
    replicated: bool,
}

/// What the server said of a stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Where the message stands in its stream.
    pub sequence: u64,
    /// Whether a message with this identifier was there already.
    pub duplicate: bool,
}

/// Why a message is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The line was lost: what the server holds now has to be looked at before anything is sent again.
    #[error("the connection to NATS was lost")]
    Lost,
    /// The condition did not hold: another holder has fenced this one out (final: the partition is no longer ours), or another
    /// message came in between.
    #[error("fenced: another instance publishes this now")]
    Fenced,
    /// It will never fit.
    #[error("the message is larger than NATS accepts (max_payload)")]
    TooLarge,
    /// It can't be written as JSON: a defect of the program.
    #[error("the message can't be written as JSON")]
    Json(#[from] serde_json::Error),
    /// No acknowledgement, so it may or may not be stored: send it again with the same identifier.
    #[error("NATS did not acknowledge: {0}")]
    Unacknowledged(String),
}

/// A message on its way. Dropping it does not take the message back.
#[derive(Debug)]
pub struct Unacknowledged(PublishAckFuture);

impl Unacknowledged {
    /// Waits for the acknowledgement, 3 s at most.
    ///
    /// # Errors
    /// [`PublishError`]; unless it is final, the same message may be sent again.
    pub async fn acknowledged(self) -> Result<Ack, PublishError> {
        let ack = self.0.await.map_err(|err| publish_error(&err))?;
        Ok(Ack {
            sequence: ack.sequence,
            duplicate: ack.duplicate,
        })
    }
}

impl Fence {
    /// Hands a message to the line. The server refuses it if the fence is no longer the last one of its partition; if the line
    /// is lost before the message is written, it is never written. Order between calls is kept.
    ///
    /// # Errors
    /// [`PublishError`] if it can't even be handed over.
    pub async fn send(&self, message: Message<'_>) -> Result<Unacknowledged, PublishError> {
        send(&self.session.context, message, Condition::Fence(self)).await
    }

    /// Messages that may be on their way at once. A replicated stream refuses a message whose condition names a subject that an
    /// unfinished one names too (error code 10164), and all behind a fence name the fence; one of a single copy has no limit.
    #[must_use]
    pub fn at_once(&self) -> usize {
        if self.replicated { 1 } else { usize::MAX }
    }

    /// The line that it holds over.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Resolves when the line is lost, and the right with it: the server that comes back may have forgotten an end of the
    /// stream, so nothing may be published before that was looked at.
    pub async fn lost(&self) {
        self.session.lost().await;
    }
}

/// On what condition the server stores a message.
pub(crate) enum Condition<'a> {
    None,
    /// The fence is the last one of its partition.
    Fence(&'a Fence),
    /// The last message of the same subject has this sequence; 0: there is none.
    After(u64),
}

/// Hands a message to a connection.
pub(crate) async fn send(
    context: &Context,
    message: Message<'_>,
    condition: Condition<'_>,
) -> Result<Unacknowledged, PublishError> {
    let mut publish = PublishMessage::build().payload(message.payload);
    if let Some(id) = message.id {
        publish = publish.message_id(id);
    }
    if let Some(trace) = message.trace {
        publish = publish.header(TRACEPARENT, trace.to_string().as_str());
    }
    publish = match condition {
        Condition::None => publish,
        Condition::Fence(_) if FailPoint::IndexerFence.skipped() => publish,
        Condition::Fence(fence) => publish
            .expected_last_subject_sequence(fence.sequence)
            .header(
                "Nats-Expected-Last-Subject-Sequence-Subject",
                fence.subject.as_str(),
            ),
        Condition::After(sequence) => publish.expected_last_subject_sequence(sequence),
    };
    let sent = context
        .send_publish(message.subject.to_string(), publish)
        .await
        .map_err(|err| publish_error(&err))?;
    Ok(Unacknowledged(sent))
}

impl Bus {
    /// Hands a message to the connection. While there is none it is kept, and sent later; where that would be wrong, a
    /// [`Session`] is right. Order between calls is kept; the acknowledgement is awaited by the caller.
    ///
    /// # Errors
    /// [`PublishError`] if it can't even be handed over.
    pub async fn send(&self, message: Message<'_>) -> Result<Unacknowledged, PublishError> {
        send(&self.context, message, Condition::None).await
    }

    /// Sends a message and waits until it is stored.
    ///
    /// # Errors
    /// As [`Bus::send`] and [`Unacknowledged::acknowledged`].
    pub async fn publish(&self, message: Message<'_>) -> Result<Ack, PublishError> {
        self.send(message).await?.acknowledged().await
    }

    /// The same for what is said once of its subject. Gives whether it is stored now; `false`: there was a message already.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_first(&self, message: Message<'_>) -> Result<bool, PublishError> {
        let sent = send(&self.context, message, Condition::After(0)).await?;
        match sent.acknowledged().await {
            Ok(_) => Ok(true),
            Err(PublishError::Fenced) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Takes the right to publish the revisions of a partition: from the returned fence on, the server refuses what any
    /// earlier holder still has in its queues.
    ///
    /// # Errors
    /// [`PublishError::Fenced`] if another holder did the same in between.
    pub async fn fence(&self, partition: u16) -> Result<Fence, PublishError> {
        let unreachable = |err: BusError| PublishError::Unacknowledged(err.to_string());
        // Before the question: had the line been lost since, the answer could be an older server's.
        let session = self.session().await.map_err(unreachable)?;
        let subject = Subject::Fence { partition };
        // Compare and swap: a fence of an instance that lost the partition meanwhile, delayed on the way, is refused.
        let last = self
            .last_message(Stream::Revisions, &subject)
            .await
            .map_err(unreachable)?;
        let revisions = self.context.get_stream(Stream::Revisions.name()).await;
        let revisions = revisions.map_err(|err| PublishError::Unacknowledged(err.to_string()))?;
        let before = Fence {
            replicated: revisions.cached_info().config.num_replicas > 1,
            subject: subject.to_string(),
            sequence: last.map_or(0, |(sequence, _)| sequence),
            session,
        };
        let holder = serde_json::json!({ "client": before.session.context.client().server_info().client_id });
        let message = Message {
            subject: &subject,
            id: None,
            payload: holder.to_string().into(),
            trace: None,
        };
        let ack = before.send(message).await?.acknowledged().await?;
        Ok(Fence {
            sequence: ack.sequence,
            ..before
        })
    }
}

fn publish_error(err: &async_nats::jetstream::context::PublishError) -> PublishError {
    match err.kind() {
        PublishErrorKind::WrongLastSequence => PublishError::Fenced,
        PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge,
        PublishErrorKind::StreamNotFound
        | PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending
        | PublishErrorKind::Other => PublishError::Unacknowledged(err.to_string()),
    }
}
