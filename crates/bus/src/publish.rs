//! Publishing with an acknowledgement that can be awaited later, and the fence, by which the server
//! refuses messages of an instance that no longer holds the partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Context, ErrorCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{Subject, TRACEPARENT, TraceContext};

use crate::consume::{ReadError, nanoseconds};
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

/// The right to publish the revisions of one partition: the sequence of the fence message of this
/// holder, and the [`Session`] that wrote the message. A later fence of another holder ends the
/// right.
#[derive(Debug, Clone)]
pub struct Fence {
    subject: String,
    sequence: u64,
    id: i64,
    stream_created_ns: i64,
    session: Session,
    replicated: bool,
    takes_groups: bool,
}

/// The body of a fence message.
#[derive(Debug, Serialize, Deserialize)]
struct FenceBody {
    /// The connection that wrote the fence, for people.
    client: u64,
    /// A random number that tells this fence from another one with the same sequence, which a
    /// stream that went back to an older state can give a second time. Fences of version 0.1 have
    /// none.
    #[serde(default)]
    id: Option<i64>,
}

/// A place in REVISIONS, with the fence under which its holder published.
///
/// Each message of the partition up to the sequence is in the Postgres that keeps the place, since
/// a holder commits each revision before it publishes the revision. This stays true of a Postgres
/// restored from a backup, but not of a REVISIONS that went back to an older state and then grew
/// again: [`Bus::still_holds`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Creation time of the stream in nanoseconds since 1970.
    pub stream_created_ns: i64,
    /// The place: a sequence of REVISIONS.
    pub sequence: u64,
    /// The sequence of the fence.
    pub fence_sequence: u64,
    /// The random number of the fence.
    pub fence_id: i64,
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

impl Fence {
    /// Sends a message by the session, in the order of the calls. The server refuses it if another
    /// fence of the partition was written since. A session that is lost before it has written the
    /// message never writes it.
    ///
    /// # Errors
    /// [`PublishError`] if the client does not accept the message.
    pub async fn send(&self, message: Message<'_>) -> Result<Unacknowledged, PublishError> {
        let sent = send(&self.session.context, message, Condition::Fence(self)).await?;
        Ok(Unacknowledged {
            acknowledged: Some(Arc::clone(&self.session.acknowledged)),
            ..sent
        })
    }

    /// Returns the last place in REVISIONS known to this holder: all messages of the partition up
    /// to there were sent by earlier holders, or by this one.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            stream_created_ns: self.stream_created_ns,
            sequence: self.session.acknowledged().max(self.sequence),
            fence_sequence: self.sequence,
            fence_id: self.id,
        }
    }

    /// Returns whether revisions are published in groups: the stream has several copies, and its
    /// settings allow groups, as `tagtrail migrate` makes them.
    #[must_use]
    pub fn takes_groups(&self) -> bool {
        self.takes_groups
    }

    /// Returns the most unacknowledged messages: 1 for a replicated stream, which refuses a message
    /// while another one with a condition on the same subject is unfinished (error code 10164), and
    /// all messages behind a fence name the fence. A stream with one replica has no limit.
    #[must_use]
    pub fn at_once(&self) -> usize {
        if self.replicated { 1 } else { usize::MAX }
    }

    /// Returns the session that wrote the fence.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Resolves when the session is lost, which ends the right too: the server may have lost the
    /// end of the stream, so the holder must compare the stream with Postgres before it publishes
    /// again.
    pub async fn lost(&self) {
        self.session.lost().await;
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
        send(&self.context, message, Condition::None).await
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

    /// Writes a fence for a partition and returns the right to publish its revisions: from now on
    /// the server refuses the messages that an earlier holder still has in its queues.
    ///
    /// # Errors
    /// [`PublishError::Fenced`] if another holder wrote a fence at the same time.
    pub async fn fence(&self, partition: u16) -> Result<Fence, PublishError> {
        // Opened before the last fence is read: a session opened later could reach another server
        // than the read.
        let session = self.session().await?;
        let subject = Subject::Fence { partition };
        // Compare and swap: the server refuses a delayed fence of an instance that has lost the
        // partition since.
        let last = self.last_message(Stream::Revisions, &subject).await?;
        let revisions = self.context.get_stream(Stream::Revisions.name()).await;
        let revisions = revisions.map_err(|err| PublishError::Unacknowledged(err.to_string()))?;
        let config = &revisions.cached_info().config;
        let before = Fence {
            replicated: config.num_replicas > 1,
            takes_groups: config.num_replicas > 1 && config.allow_atomic_publish,
            stream_created_ns: nanoseconds(revisions.cached_info().created),
            id: rand::random(),
            subject: subject.to_string(),
            sequence: last.map_or(0, |(sequence, _)| sequence),
            session,
        };
        let body = FenceBody {
            client: before.session.context.client().server_info().client_id,
            id: Some(before.id),
        };
        let message = Message::of(&subject, &body)?;
        let ack = before.send(message).await?.acknowledged().await?;
        Ok(Fence {
            sequence: ack.sequence,
            ..before
        })
    }

    /// Returns whether REVISIONS still holds all that it held when the place was noted: the fence
    /// of the partition is there, and no other fence up to the place. A stream that went back to an
    /// older state before the place ended the holder's session, and the next holder wrote a fence
    /// before its first message. Returns `false` too if the stream no longer holds the old fence.
    ///
    /// # Errors
    /// [`ReadError::Failed`].
    pub async fn still_holds(&self, partition: u16, known: &Known) -> Result<bool, ReadError> {
        let subject = Subject::Fence { partition };
        let fence = self
            .first_message(Stream::Revisions, &subject, known.fence_sequence)
            .await?;
        let Some(fence) = fence else {
            return Ok(false);
        };
        let body: Option<FenceBody> = serde_json::from_slice(&fence.payload).ok();
        if fence.sequence != known.fence_sequence
            || body.and_then(|body| body.id) != Some(known.fence_id)
        {
            return Ok(false);
        }
        let next = self
            .first_message(Stream::Revisions, &subject, known.fence_sequence + 1)
            .await?;
        Ok(next.is_none_or(|next| next.sequence > known.sequence))
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
