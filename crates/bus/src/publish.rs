//! Publishing with an acknowledgement that can be awaited later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Context, ErrorCode};
use bytes::Bytes;
use serde::Serialize;
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{Subject, TRACEPARENT, TraceContext};

use crate::fence::Fence;
use crate::topology::Stream;
use crate::{Bus, BusError, Session, server};

/// The header with the media type of a message, as the NATS binding of CloudEvents spells it.
pub(crate) const CONTENT_TYPE: &str = "content-type";

/// A message to be stored by a stream.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Its subject, which decides the stream.
    pub subject: &'a Subject,
    /// `Nats-Msg-Id`: for 10 minutes the server acknowledges a second message with this id without
    /// storing it.
    pub id: Option<&'a str>,
    /// The body: JSON, at most 1 MiB.
    pub payload: Bytes,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
}

impl<'a> Message<'a> {
    /// Builds the message that carries `body` (as a rule an [`Event`](tagtrail_proto::Event)) as
    /// JSON, without a `Nats-Msg-Id` and without a trace.
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

/// The server's answer about a stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The sequence of the message in its stream.
    pub sequence: u64,
    /// `true` if the stream already held a message with this id, so that this one was dropped.
    pub duplicate: bool,
}

/// The reason for which a message may not be stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The session was lost: compare the stream with Postgres before anything is sent again.
    #[error("the connection to NATS was lost")]
    Lost,
    /// The condition did not hold: another holder has fenced the partition (final), or another
    /// message of the subject came first.
    #[error("fenced: another instance publishes this now")]
    Fenced,
    /// The message is too large for the server; a retry can't help.
    #[error("the message is larger than NATS accepts (max_payload, or max_msg_size of the stream)")]
    TooLarge,
    /// The stream is full, by a limit of an operator or of the account.
    #[error(
        "the stream {} is full: {cause}; raise its limits, or those of the account",
        .stream.name()
    )]
    Full {
        /// The stream.
        stream: Stream,
        /// The limit, as the server names it.
        cause: String,
    },
    /// The body can't be written as JSON: a defect of this program.
    #[error("the message can't be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The server does not fit this program, so nothing was sent.
    #[error("{0}")]
    Unsuitable(String),
    /// No acknowledgement came, so the message may or may not be stored: send it again with the
    /// same id.
    #[error("NATS did not acknowledge: {0}")]
    Unacknowledged(String),
}

/// A sent message whose acknowledgement is outstanding. Dropping this value does not cancel the
/// message.
#[derive(Debug)]
pub struct Unacknowledged {
    ack: PublishAckFuture,
    stream: Stream,
    /// Of the session whose fence the message was sent behind: the greatest acknowledged sequence.
    acknowledged: Option<Arc<AtomicU64>>,
}

impl Unacknowledged {
    /// Has the session of a fence note the sequence at the acknowledgement.
    pub(crate) fn noting(self, session: &Session) -> Unacknowledged {
        Unacknowledged {
            acknowledged: Some(Arc::clone(&session.acknowledged)),
            ..self
        }
    }

    /// Waits for the acknowledgement, 3 s at most.
    ///
    /// # Errors
    /// [`PublishError`]; unless the error is final, the same message may be sent again.
    pub async fn acknowledged(self) -> Result<Ack, PublishError> {
        let ack = self.ack.await;
        let ack = ack.map_err(|err| publish_error(&err, self.stream))?;
        if let Some(acknowledged) = self.acknowledged {
            acknowledged.fetch_max(ack.sequence, Ordering::Relaxed);
        }
        Ok(Ack {
            sequence: ack.sequence,
            duplicate: ack.duplicate,
        })
    }
}

/// Returns the media type of the messages of a subject. SDKs of CloudEvents recognise an event by
/// it.
fn content_type(subject: &Subject) -> &'static str {
    match subject {
        Subject::Push { .. }
        | Subject::Unresolved { .. }
        | Subject::Revision { .. }
        | Subject::Rollout { .. }
        | Subject::Hold { .. }
        | Subject::Trigger { .. }
        | Subject::Manifest { .. } => "application/cloudevents+json",
        Subject::Fence { .. } | Subject::Quarantine { .. } => "application/json",
    }
}

/// The condition under which the server stores a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Condition<'a> {
    None,
    /// No later fence of the partition was written.
    Fence(&'a Fence),
    /// The last message of the same subject has this sequence; 0: the subject has no message.
    After(u64),
}

/// Returns a message as the client takes it.
pub(crate) fn build(message: &Message<'_>, condition: Condition<'_>) -> PublishMessage {
    let mut publish = PublishMessage::build().payload(message.payload.clone());
    if let Some(id) = message.id {
        publish = publish.message_id(id);
    }
    publish = publish.header(CONTENT_TYPE, content_type(message.subject));
    if let Some(trace) = message.trace {
        publish = publish.header(TRACEPARENT, trace.to_string().as_str());
    }
    match condition {
        Condition::None => publish,
        Condition::Fence(_) if FailPoint::IndexerFence.skipped() => publish,
        Condition::Fence(fence) => publish
            .expected_last_subject_sequence(fence.sequence)
            .header(
                "Nats-Expected-Last-Subject-Sequence-Subject",
                fence.subject.as_str(),
            ),
        Condition::After(sequence) => publish.expected_last_subject_sequence(sequence),
    }
}

/// Sends a message by a connection.
pub(crate) async fn send(
    context: &Context,
    message: Message<'_>,
    condition: Condition<'_>,
) -> Result<Unacknowledged, PublishError> {
    let publish = build(&message, condition);
    let stream = Stream::of(message.subject);
    let ack = context
        .send_publish(message.subject.to_string(), publish)
        .await
        .map_err(|err| publish_error(&err, stream))?;
    Ok(Unacknowledged {
        ack,
        stream,
        acknowledged: None,
    })
}

impl From<BusError> for PublishError {
    fn from(error: BusError) -> PublishError {
        match error {
            BusError::Unsuitable(cause) => PublishError::Unsuitable(cause),
            other => PublishError::Unacknowledged(other.to_string()),
        }
    }
}

impl Bus {
    /// Sends a message, in the order of the calls; the caller awaits the acknowledgement. While
    /// disconnected, the client buffers the message and sends it later; use a [`Session`] where a
    /// late message would be wrong. After a reconnection to a server that is too old nothing is
    /// sent.
    ///
    /// # Errors
    /// [`PublishError`] if the client does not accept the message.
    pub async fn send(&self, message: Message<'_>) -> Result<Unacknowledged, PublishError> {
        server::check(&self.context.client())?;
        let stream = self.stream_of(message.subject);
        let sent = send(&self.context, message, Condition::None).await?;
        Ok(Unacknowledged { stream, ..sent })
    }

    /// Sends a message and waits until it is stored.
    ///
    /// # Errors
    /// As [`Bus::send`] and [`Unacknowledged::acknowledged`].
    pub async fn publish(&self, message: Message<'_>) -> Result<Ack, PublishError> {
        self.send(message).await?.acknowledged().await
    }

    /// Publishes the first message of its subject. Returns `false` if the subject already has a
    /// message, which stays.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_first(&self, message: Message<'_>) -> Result<bool, PublishError> {
        server::check(&self.context.client())?;
        let sent = send(&self.context, message, Condition::After(0)).await?;
        match sent.acknowledged().await {
            Ok(_) => Ok(true),
            Err(PublishError::Fenced) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

pub(crate) fn publish_error(
    err: &async_nats::jetstream::context::PublishError,
    stream: Stream,
) -> PublishError {
    let refusal = std::error::Error::source(err).and_then(|cause| cause.downcast_ref());
    if let Some(refusal) = refusal {
        return refused(refusal, stream);
    }
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

/// Returns the meaning of the server's refusal to store a message.
fn refused(refusal: &async_nats::jetstream::Error, stream: Stream) -> PublishError {
    match refusal.error_code() {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE => PublishError::Fenced,
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => PublishError::TooLarge,
        // The same code also refuses a second message of a subject that takes only one.
        ErrorCode::STREAM_STORE_FAILED if !refusal.to_string().contains("per subject") => {
            PublishError::Full {
                stream,
                cause: refusal.to_string(),
            }
        }
        _ => PublishError::Unacknowledged(refusal.to_string()),
    }
}
