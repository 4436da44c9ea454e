//! Reading a stream from a known position, in order and without a gap.
//!
//! A reader is an ephemeral pull consumer without acks. The caller stores the position together
//! with the effect of the messages, so nothing depends on redelivery. On any error, silence or gap
//! the caller drops the reader and opens another from the stored position. (Measured: of the
//! client's five ways to read, only this one survives a killed server, a deleted consumer and a
//! recreated stream without missing a message.)

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use async_nats::jetstream::stream::{Info, RawMessageError, RawMessageErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
pub use tagtrail_proto::{Position, nanoseconds};
use tagtrail_proto::{TRACEPARENT, TraceContext};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::topology::Stream;
use crate::{Bus, Link};

/// Messages requested at a time.
const BATCH: usize = 500;
/// Messages requested at a time by a reader that works slowly, and may never come to them.
const FEW: usize = 10;
/// Interval of the server's heartbeats; after two missed ones the reader fails.
const HEARTBEAT: Duration = Duration::from_secs(2);
const EXPIRES: Duration = Duration::from_secs(10);
/// The begin of the names of readers' consumers.
const READER_PREFIX: &str = "tt-";
/// The server deletes the consumer of a dropped reader after this time.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Longest wait for a message that the stream is known to hold.
const HELD_MESSAGE: Duration = Duration::from_secs(20);
/// Interval at which an idle reader checks that its stream was not recreated: a recreated stream
/// sends nothing.
const IDLE_CHECK: Duration = Duration::from_secs(5);

/// One message as the stream holds it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// The stream's timestamp: the moment at which the server stored it.
    pub time: OffsetDateTime,
    /// Its subject, as text.
    pub subject: String,
    /// Its body.
    pub payload: Bytes,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// The number of later messages that match the reader's filter.
    pub pending: u64,
}

impl From<jetstream::message::StreamMessage> for Delivery {
    fn from(message: jetstream::message::StreamMessage) -> Delivery {
        Delivery {
            sequence: message.sequence,
            time: message.time,
            subject: message.subject.to_string(),
            payload: message.payload,
            trace: trace_of(Some(&message.headers)),
            pending: 0,
        }
    }
}

/// Returns the trace that the headers of a message name.
pub(crate) fn trace_of(headers: Option<&async_nats::HeaderMap>) -> Option<TraceContext> {
    headers?.get(TRACEPARENT)?.as_str().parse().ok()
}

/// The end of a reader. The caller opens another one from the position, after a pause.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection was lost or replaced.
    #[error("the connection to NATS changed")]
    Reconnected,
    /// The stream was recreated, or went back to an older state, since the reader was opened.
    #[error("the stream {0} was recreated or rolled back")]
    Changed(&'static str),
    /// Messages are missing between two that arrived.
    #[error("the stream {stream} skipped from consumer sequence {from} to {to}")]
    Gap {
        /// Name of the stream.
        stream: &'static str,
        /// Consumer sequence of the last message that arrived.
        from: u64,
        /// Consumer sequence of the message that arrived next.
        to: u64,
    },
    /// An operator has paused the consumer, which then delivers nothing.
    #[error(
        "the consumer {consumer} of the stream {stream} is paused and delivers nothing; `nats consumer resume {stream} {consumer}` ends the pause"
    )]
    Paused {
        /// Name of the stream.
        stream: &'static str,
        /// Name of the consumer.
        consumer: String,
    },
    /// Any other error of the server or the client, with the name of the stream.
    #[error("reading {0}: {1}")]
    Failed(&'static str, String),
}

/// An open reader.
pub struct Reader {
    stream: Stream,
    handle: jetstream::stream::Stream<()>,
    messages: pull::Stream,
    /// The place after the last message returned.
    position: Position,
    consumer_sequence: u64,
    /// The time of the last message or check. Kept here, because callers drop a waiting call.
    checked: Instant,
    link: watch::Receiver<Link>,
    generation: u64,
    restarted_because: Option<String>,
}

impl Bus {
    /// Opens a reader of the messages that match `filter` (a subject with wildcards) after
    /// `position`.
    ///
    /// If the stream was recreated or went back to an older state since, the reader starts at its
    /// first message, and logs the reason that [`Reader::restarted_because`] returns.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        &self,
        stream: Stream,
        filter: &str,
        position: Position,
    ) -> Result<Reader, ReadError> {
        let filter = pull::Config {
            filter_subject: filter.to_owned(),
            ..pull::Config::default()
        };
        self.open_reader(stream, filter, position, BATCH).await
    }

    /// Opens a reader as [`Bus::read`] does, of the messages that match one of several subjects
    /// with wildcards, none of which matches a subject of another. It holds few messages in
    /// advance.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_slowly(
        &self,
        stream: Stream,
        filters: Vec<String>,
        position: Position,
    ) -> Result<Reader, ReadError> {
        let filter = pull::Config {
            filter_subjects: filters,
            ..pull::Config::default()
        };
        self.open_reader(stream, filter, position, FEW).await
    }

    async fn open_reader(
        &self,
        stream: Stream,
        filter: pull::Config,
        position: Position,
        batch: usize,
    ) -> Result<Reader, ReadError> {
        let failed = |cause: String| ReadError::Failed(stream.name(), cause);
        let mut link = self.link();
        let generation = link.borrow_and_update().generation;
        let handle = self.handle(stream).await?;
        let info = handle
            .get_info()
            .await
            .map_err(|err| failed(err.to_string()))?;
        let restarted_because = restart_reason(&handle, &info, position)
            .await
            .map_err(failed)?;
        let created_ns = Some(nanoseconds(info.created));
        let start = match &restarted_because {
            Some(reason) => {
                tracing::warn!(
                    stream = stream.name(),
                    "reading {} from its first message, not after {}: {reason}",
                    stream.name(),
                    position.sequence
                );
                Position::default()
            }
            None => position,
        };
        let position = Position {
            stream_created_ns: created_ns,
            ..start
        };
        let start = position.sequence;
        let config = pull::Config {
            // Without a name the request goes to a subject at which the server also takes the name
            // of another consumer, and changes that one. So no account is allowed that subject.
            name: Some(format!("{READER_PREFIX}{:016x}", rand::random::<u64>())),
            // The server accepts a start beyond the end without an error; `restart_reason` has
            // excluded it.
            deliver_policy: if start == 0 {
                DeliverPolicy::All
            } else {
                DeliverPolicy::ByStartSequence {
                    start_sequence: start + 1,
                }
            },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            inactive_threshold: FORGOTTEN,
            num_replicas: 1,
            memory_storage: true,
            ..filter
        };
        let consumer = handle
            .create_consumer(config)
            .await
            .map_err(|err| failed(err.to_string()))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(batch)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|err| failed(err.to_string()))?;
        Ok(Reader {
            stream,
            handle,
            messages,
            position,
            consumer_sequence: 0,
            checked: Instant::now(),
            link,
            generation,
            restarted_because,
        })
    }
}

impl Reader {
    /// Returns the position after the last message that [`Reader::next`] returned; at first, the
    /// position at which the reader was opened.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the stream.
    #[must_use]
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Returns the creation time of the stream in nanoseconds since 1970.
    #[must_use]
    pub fn stream_created_ns(&self) -> i64 {
        self.position.stream_created_ns.unwrap_or_default()
    }

    /// Returns the reason for which the reader started at the first message instead of the
    /// position, if it did.
    #[must_use]
    pub fn restarted_because(&self) -> Option<&str> {
        self.restarted_because.as_deref()
    }

    /// Returns the next message, waiting without a limit. Cancel safe: a dropped call loses no
    /// message.
    ///
    /// # Errors
    /// [`ReadError`]; drop the reader then.
    pub async fn next(&mut self) -> Result<Delivery, ReadError> {
        loop {
            tokio::select! {
                biased;
                message = self.messages.next() => return self.accept(message),
                // The new connection may lead to another server, or to the same one with an older
                // disk. This notices it sooner than two missed heartbeats do.
                changed = self.link.changed() => {
                    if changed.is_err() || self.link.borrow_and_update().generation != self.generation {
                        return Err(ReadError::Reconnected);
                    }
                }
                () = tokio::time::sleep_until(self.checked + IDLE_CHECK) => {
                    self.check().await?;
                    self.checked = Instant::now();
                }
            }
        }
    }

    /// Returns the next messages: at most `most`, up to and including the message with sequence
    /// `end`. Each must arrive within 20 s, since the caller knows that the stream holds them.
    ///
    /// # Errors
    /// [`ReadError`]; drop the reader then.
    pub async fn next_until(&mut self, end: u64, most: usize) -> Result<Vec<Delivery>, ReadError> {
        let mut messages = Vec::new();
        while messages.len() < most {
            let next = tokio::time::timeout(HELD_MESSAGE, self.next()).await;
            let next = next.map_err(|_| {
                let cause = format!("no message in {HELD_MESSAGE:?}, though it holds more");
                ReadError::Failed(self.stream.name(), cause)
            })?;
            let message = next?;
            let at_end = message.sequence >= end;
            messages.push(message);
            if at_end {
                break;
            }
        }
        Ok(messages)
    }

    fn accept(
        &mut self,
        message: Option<Result<jetstream::Message, pull::MessagesError>>,
    ) -> Result<Delivery, ReadError> {
        let name = self.stream.name();
        let message = message
            .ok_or_else(|| ReadError::Failed(name, "the consumer ended".to_owned()))?
            .map_err(|err| ReadError::Failed(name, err.to_string()))?;
        let info = message
            .info()
            .map_err(|err| ReadError::Failed(name, err.to_string()))?;
        let (consumer_sequence, sequence, time, pending) = (
            info.consumer_sequence,
            info.stream_sequence,
            info.published,
            info.pending,
        );
        // With a filter, stream sequences have holes; consumer sequences have none.
        if consumer_sequence != self.consumer_sequence + 1 || sequence <= self.position.sequence {
            return Err(ReadError::Gap {
                stream: name,
                from: self.consumer_sequence,
                to: consumer_sequence,
            });
        }
        self.consumer_sequence = consumer_sequence;
        self.checked = Instant::now();
        self.position.sequence = sequence;
        self.position.time_ns = Some(nanoseconds(time));
        Ok(Delivery {
            sequence,
            time,
            subject: message.subject.to_string(),
            payload: message.payload.clone(),
            trace: trace_of(message.headers.as_ref()),
            pending,
        })
    }

    async fn check(&self) -> Result<(), ReadError> {
        let info = self
            .handle
            .get_info()
            .await
            .map_err(|err| ReadError::Failed(self.stream.name(), err.to_string()))?;
        if Some(nanoseconds(info.created)) != self.position.stream_created_ns
            || info.state.last_sequence < self.position.sequence
        {
            return Err(ReadError::Changed(self.stream.name()));
        }
        Ok(())
    }
}

/// Returns the reason for which reading can't continue after the position, if there is one.
async fn restart_reason(
    handle: &jetstream::stream::Stream<()>,
    info: &Info,
    position: Position,
) -> Result<Option<String>, String> {
    let Some(created_ns) = position.stream_created_ns else {
        return Ok(None);
    };
    if created_ns != nanoseconds(info.created) {
        return Ok(Some("the stream was created anew".to_owned()));
    }
    if info.state.last_sequence < position.sequence {
        return Ok(Some(format!(
            "the stream ends at {}, before the last message applied, {}",
            info.state.last_sequence, position.sequence
        )));
    }
    let Some(time_ns) = position.time_ns else {
        return Ok(None);
    };
    if position.sequence < info.state.first_sequence {
        return Ok(None); // The message has aged out, as it should.
    }
    match handle.get_raw_message(position.sequence).await {
        Ok(found) if nanoseconds(found.time) == time_ns => Ok(None),
        Ok(_) => Ok(Some(format!(
            "the message at {} is not the one that was applied",
            position.sequence
        ))),
        Err(err) if is_missing(&err) => Ok(Some(format!(
            "the message at {} is gone",
            position.sequence
        ))),
        Err(err) => Err(err.to_string()),
    }
}

/// Returns whether the server reports that the message does not exist.
pub(crate) fn is_missing(err: &RawMessageError) -> bool {
    match err.kind() {
        RawMessageErrorKind::NoMessageFound => true,
        RawMessageErrorKind::JetStream(refusal) => {
            refusal.error_code() == ErrorCode::NO_MESSAGE_FOUND
        }
        _ => false,
    }
}
