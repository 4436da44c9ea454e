//! The fence, by which the server refuses messages of an instance that no longer holds the
//! partition, and the places in REVISIONS that holders know.

use serde::{Deserialize, Serialize};
use tagtrail_proto::Subject;

use crate::consume::{ReadError, nanoseconds};
use crate::publish::{Condition, Message, PublishError, Unacknowledged, send};
use crate::topology::Stream;
use crate::{Bus, Session};

/// The right to publish the revisions of one partition: the sequence of the fence message of this
/// holder, and the [`Session`] that wrote the message. A later fence of another holder ends the
/// right.
#[derive(Debug, Clone)]
pub struct Fence {
    /// Subject and sequence of the fence message.
    pub(crate) subject: String,
    pub(crate) sequence: u64,
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

impl Fence {
    /// Sends a message by the session, in the order of the calls. The server refuses it if another
    /// fence of the partition was written since. A session that is lost before it has written the
    /// message never writes it.
    ///
    /// # Errors
    /// [`PublishError`] if the client does not accept the message.
    pub async fn send(&self, message: Message<'_>) -> Result<Unacknowledged, PublishError> {
        let sent = send(&self.session.context, message, Condition::Fence(self)).await?;
        Ok(sent.noting(&self.session))
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

impl Bus {
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
