//! Lookups in a stream: single messages, and its first and last sequence.

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tagtrail_proto::Subject;

use crate::consume::{Delivery, Position, ReadError, is_missing, nanoseconds};
use crate::topology::Stream;
use crate::{Bus, BusError};

impl Bus {
    /// Returns a handle on a stream, without asking the server.
    pub(crate) async fn handle(
        &self,
        stream: Stream,
    ) -> Result<jetstream::stream::Stream<()>, ReadError> {
        let handle = self.context.get_stream_no_info(stream.name()).await;
        handle.map_err(|error| ReadError::Failed(stream.name(), error.to_string()))
    }

    /// Returns the sequences of the first and the last message that a stream holds; some between
    /// may be missing. Empty for a stream that holds nothing.
    ///
    /// # Errors
    /// [`ReadError::Failed`].
    pub async fn held(&self, stream: Stream) -> Result<std::ops::RangeInclusive<u64>, ReadError> {
        let failed = |cause: String| ReadError::Failed(stream.name(), cause);
        let handle = self.context.get_stream(stream.name()).await;
        let handle = handle.map_err(|err| failed(err.to_string()))?;
        let state = &handle.cached_info().state;
        // A stream that never had a message reports 0 for both: there is no message 0.
        Ok(state.first_sequence.max(1)..=state.last_sequence)
    }

    /// Returns the number of messages that a stream holds.
    ///
    /// # Errors
    /// [`ReadError::Failed`].
    pub async fn count(&self, stream: Stream) -> Result<u64, ReadError> {
        let handle = self.context.get_stream(stream.name()).await;
        let handle = handle.map_err(|error| ReadError::Failed(stream.name(), error.to_string()))?;
        Ok(handle.cached_info().state.messages)
    }

    /// Returns the sequence of the last message that matches a subject with wildcards; `None` if
    /// there is no such message.
    ///
    /// # Errors
    /// [`ReadError::Failed`].
    pub async fn last_sequence(
        &self,
        stream: Stream,
        filter: &str,
    ) -> Result<Option<u64>, ReadError> {
        let handle = self.handle(stream).await?;
        match handle.get_last_raw_message_by_subject(filter).await {
            Ok(message) => Ok(Some(message.sequence)),
            Err(err) if is_missing(&err) => Ok(None),
            Err(err) => Err(ReadError::Failed(stream.name(), err.to_string())),
        }
    }

    /// Returns the message with this sequence; `None` if the stream does not hold it.
    ///
    /// # Errors
    /// [`ReadError::Failed`].
    pub async fn message(
        &self,
        stream: Stream,
        sequence: u64,
    ) -> Result<Option<Delivery>, ReadError> {
        // The server refuses a request for message 0 in place of reporting it as missing.
        if sequence == 0 {
            return Ok(None);
        }
        let failed = |cause: String| ReadError::Failed(stream.name(), cause);
        let handle = self.handle(stream).await?;
        match handle.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message.into())),
            Err(err) if is_missing(&err) => Ok(None),
            Err(err) => Err(failed(err.to_string())),
        }
    }

    /// Returns all messages that a stream holds of one subject, in order. One request for each
    /// message: meant for the few subjects whose messages must be repaired.
    ///
    /// # Errors
    /// [`ReadError::Failed`].
    pub async fn messages_of(
        &self,
        stream: Stream,
        subject: &Subject,
    ) -> Result<Vec<Delivery>, ReadError> {
        let (mut found, mut next) = (Vec::new(), 1);
        while let Some(message) = self.first_message(stream, subject, next).await? {
            next = message.sequence + 1;
            found.push(message);
        }
        Ok(found)
    }

    /// Returns the first message of a subject that has this sequence or a later one; `None` if
    /// there is none.
    ///
    /// # Errors
    /// [`ReadError::Failed`].
    pub async fn first_message(
        &self,
        stream: Stream,
        subject: &Subject,
        from: u64,
    ) -> Result<Option<Delivery>, ReadError> {
        let handle = self.handle(stream).await?;
        let subject = subject.to_string();
        match handle
            .get_first_raw_message_by_subject(&subject, from)
            .await
        {
            Ok(message) => Ok(Some(message.into())),
            Err(err) if is_missing(&err) => Ok(None),
            Err(err) => Err(ReadError::Failed(stream.name(), err.to_string())),
        }
    }

    /// Returns the position after the last message of a stream, for a reader that needs no earlier
    /// message.
    ///
    /// # Errors
    /// [`ReadError::Failed`].
    pub async fn end_of(&self, stream: Stream) -> Result<Position, ReadError> {
        let failed = |cause: String| ReadError::Failed(stream.name(), cause);
        let handle = self.handle(stream).await?;
        let info = handle
            .get_info()
            .await
            .map_err(|err| failed(err.to_string()))?;
        Ok(Position {
            stream_created_ns: Some(nanoseconds(info.created)),
            sequence: info.state.last_sequence,
            time_ns: None,
        })
    }

    /// Returns the last message of each subject that has messages, in no particular order.
    ///
    /// # Errors
    /// [`BusError::Unreachable`].
    pub async fn last_messages(
        &self,
        stream: Stream,
        subjects: Vec<Subject>,
    ) -> Result<Vec<(Subject, Bytes)>, BusError> {
        /// Concurrent requests.
        const AT_ONCE: usize = 64;
        futures_util::stream::iter(subjects)
            .map(|subject| async move {
                let last = self.last_message(stream, &subject).await?;
                Ok::<_, BusError>(last.map(|(_, payload)| (subject, payload)))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|found| std::future::ready(Ok(found)))
            .try_collect()
            .await
    }

    /// Returns the last message of a subject with its sequence; `None` if it has no message.
    ///
    /// # Errors
    /// [`BusError::Unreachable`].
    pub async fn last_message(
        &self,
        stream: Stream,
        subject: &Subject,
    ) -> Result<Option<(u64, Bytes)>, BusError> {
        let unreachable = |cause: String| {
            BusError::Unreachable(format!(
                "asking {} for its last message: {cause}",
                stream.name()
            ))
        };
        let handle = self
            .handle(stream)
            .await
            .map_err(|err| unreachable(err.to_string()))?;
        // Asks the leader, never a replica (direct get): a stale answer would let a revision be
        // published twice.
        match handle
            .get_last_raw_message_by_subject(&subject.to_string())
            .await
        {
            Ok(message) => Ok(Some((message.sequence, message.payload))),
            Err(err) if is_missing(&err) => Ok(None),
            Err(err) => Err(unreachable(err.to_string())),
        }
    }
}
