//! Publishing a group of messages: the server stores all of them, or none (an atomic batch).
//!
//! A server that syncs each message syncs a group about five times, regardless of its size.
//! So a group costs more than a few single messages, and far less than many. The server refuses a
//! whole group for one id that the stream holds already. The caller then sends the messages one by
//! one with the same ids: each gets an answer of its own.
//!
//! A replicated stream takes one message behind a fence at a time, or one group.

use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
};
use async_nats::jetstream::Context;
use async_nats::jetstream::message::PublishMessage;

use crate::fence::Fence;
use crate::publish::{Ack, Condition, Message, PublishError, build, publish_error};
use crate::topology::Stream;
use crate::{Bus, server};

/// Most messages of a group; nats-server takes 1,000.
pub const MOST: usize = 500;
/// Bytes of headers that a message needs besides its body, at most.
const HEADERS: usize = 1024;

impl Bus {
    /// Returns whether groups are stored faster than single messages: if the server syncs each
    /// message, and streams have one copy. (A replicated stream syncs all messages that wait at
    /// once, without a group.)
    #[must_use]
    pub fn prefers_groups(&self) -> bool {
        self.sync_always && self.replicas == 1
    }

    /// Stores messages of one stream, at most [`MOST`], with different ids. Returns the answers in
    /// the order of the messages.
    ///
    /// # Errors
    /// [`PublishError`]: as a rule the server stored no message. Without an acknowledgement it may
    /// have stored all of them, so send them again with the same ids.
    pub async fn publish_group(&self, messages: &[Message<'_>]) -> Result<Vec<Ack>, PublishError> {
        server::check(&self.context.client())?;
        let last = messages.last().map(|last| self.stream_of(last.subject));
        let Some(stream) = last else {
            return Ok(Vec::new());
        };
        store(&self.context, stream, messages, Condition::None).await
    }
}

impl Fence {
    /// Stores revisions of the partition, at most [`MOST`] and without ids, if no other holder has
    /// fenced the partition. Call it again only after the answer: the server refuses a second group
    /// behind the same fence at the same time. Returns the answers in the order of the messages.
    ///
    /// # Errors
    /// As [`Bus::publish_group`].
    pub async fn publish_group(&self, messages: &[Message<'_>]) -> Result<Vec<Ack>, PublishError> {
        let session = self.session();
        let (stream, condition) = (Stream::Revisions, Condition::Fence(self));
        let acks = store(&session.context, stream, messages, condition).await?;
        if let Some(last) = acks.last() {
            session.note_acknowledged(last.sequence);
        }
        Ok(acks)
    }
}

/// Stores a group by a connection, under a condition that each of its messages names.
async fn store(
    context: &Context,
    stream: Stream,
    messages: &[Message<'_>],
    condition: Condition<'_>,
) -> Result<Vec<Ack>, PublishError> {
    let client = context.client();
    let Some((last, others)) = messages.split_last() else {
        return Ok(Vec::new());
    };
    // The server keeps a group without its last message for 10 s, and keeps few of them. So
    // nothing is sent of a group that the client can't send whole.
    let limit = client.server_info().max_payload.saturating_sub(HEADERS);
    if messages.iter().any(|message| message.payload.len() > limit) {
        return Err(PublishError::TooLarge);
    }
    let group = client.new_inbox();
    let unsent = |cause: &dyn std::fmt::Display| PublishError::Unacknowledged(cause.to_string());
    for (number, message) in (1_usize..).zip(others) {
        let sent = member(message, condition, &group, number)
            .outbound_message(message.subject.to_string());
        let headers = sent.headers.unwrap_or_default();
        let sent = client.publish_with_headers(sent.subject, headers, sent.payload);
        sent.await.map_err(|err| unsent(&err))?;
    }
    let commit = member(last, condition, &group, messages.len())
        .header(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
    let failed = |err| publish_error(&err, stream);
    let sent = context.send_publish(last.subject.to_string(), commit);
    let ack = sent.await.map_err(failed)?.await.map_err(failed)?;
    // A server that knows no groups would have stored the messages one by one.
    let count = messages.len() as u64;
    if ack.batch_size != Some(count) {
        return Err(unsent(&"the server did not take the messages as a group"));
    }
    let before = ack.sequence.saturating_sub(count);
    let stored = |sequence| Ack {
        sequence,
        duplicate: false,
    };
    Ok((before + 1..=ack.sequence).map(stored).collect())
}

/// Returns a message as number `number` of a group.
fn member(
    message: &Message<'_>,
    condition: Condition<'_>,
    group: &str,
    number: usize,
) -> PublishMessage {
    build(message, condition)
        .header(NATS_BATCH_ID, group)
        .header(NATS_BATCH_SEQUENCE, number.to_string())
}
