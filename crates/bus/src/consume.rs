//! Reading a stream from a known position, in order and without a gap.
//!
//! A reader is a plain ephemeral pull consumer without acknowledgements: what was read is known from the reader's own
//! position, kept with what was made of it, so nothing depends on redelivery. On any error, silence or gap the reader is
//! thrown away and made again from the position. (Measured: of the client's five ways to read, only this one, made again on
//! every error, gets past a killed server, a deleted consumer and a recreated stream without missing a message.)

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

use crate::topology::Stream;
use crate::{Bus, Link};

/// Messages asked for at once.
const BATCH: usize = 500;
/// The server says that it is alive this often; after two silences the reader fails.
const HEARTBEAT: Duration = Duration::from_secs(2);
const EXPIRES: Duration = Duration::from_secs(10);
/// The server forgets the consumer of a reader that is gone after this long.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Longest wait for a message that the stream is known to hold.
const HELD_MESSAGE: Duration = Duration::from_secs(20);
/// How often an idle reader looks whether the stream is still the same: a recreated one is silent.
const IDLE_CHECK: Duration = Duration::from_secs(5);

/// One message as the stream holds it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Where it stands in its stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub time: OffsetDateTime,
    /// Its subject, as text.
    pub subject: String,
    /// Its body.
    pub payload: Bytes,
    /// What caused it.
    pub trace: Option<TraceContext>,
    /// How many more match the reader's filter behind it.
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

/// The trace that a message belongs to, if it says so.
pub(crate) fn trace_of(headers: Option<&async_nats::HeaderMap>) -> Option<TraceContext> {
    headers?.get(TRACEPARENT)?.as_str().parse().ok()
}

/// Why a reader ended. It is made again from the position, after a pause.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection was lost, or made anew.
    #[error("the connection to NATS changed")]
    Reconnected,
    /// The stream is not the one that this reader was made for.
    #[error("the stream {0} was recreated or rolled back")]
    Changed(&'static str),
    /// Messages are missing between two that arrived.
    #[error("the stream {stream} skipped from consumer sequence {from} to {to}")]
    Gap {
        /// Name of the stream.
        stream: &'static str,
        /// The last one that arrived.
        from: u64,
        /// The one that arrived next.
        to: u64,
    },
    /// Anything else that the server or the client said.
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
    link: watch::Receiver<Link>,
    generation: u64,
    restarted_because: Option<String>,
}

impl Bus {
    /// Opens a reader of the messages that match `filter` (a subject with wildcards) after `position`.
    ///
    /// If the stream is not the one that the position speaks of, it is read from its first message; [`Reader::restarted_because`] says why.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        &self,
        stream: Stream,
        filter: &str,
        position: Position,
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
            // A start beyond the end is accepted by the server without an error; `restart_reason` has ruled it out.
            deliver_policy: if start == 0 {
                DeliverPolicy::All
            } else {
                DeliverPolicy::ByStartSequence {
                    start_sequence: start + 1,
                }
            },
            ack_policy: AckPolicy::None,
            filter_subject: filter.to_owned(),
            replay_policy: ReplayPolicy::Instant,
            inactive_threshold: FORGOTTEN,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer = handle
            .create_consumer(config)
            .await
            .map_err(|err| failed(err.to_string()))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(BATCH)
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
            link,
            generation,
            restarted_because,
        })
    }
}

impl Reader {
    /// Returns the place after the last message returned by [`Reader::next`]; before the first one, the place to read on from.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the creation time of the stream in nanoseconds since 1970.
    #[must_use]
    pub fn stream_created_ns(&self) -> i64 {
        self.position.stream_created_ns.unwrap_or_default()
    }

    /// Why the stream is read from its first message rather than from the position, if it is.
    #[must_use]
    pub fn restarted_because(&self) -> Option<&str> {
        self.restarted_because.as_deref()
    }

    /// The next message; waits for it as long as it takes. Not cancel safe in the sense that a dropped call may lose its
    /// place in a check of the stream, but no message is lost by it.
    ///
    /// # Errors
    /// [`ReadError`]; the reader is then of no more use.
    pub async fn next(&mut self) -> Result<Delivery, ReadError> {
        loop {
            tokio::select! {
                biased;
                message = self.messages.next() => return self.accept(message),
                // The server may be another one, or the same from an older disk: faster than two missed heartbeats.
                changed = self.link.changed() => {
                    if changed.is_err() || self.link.borrow_and_update().generation != self.generation {
                        return Err(ReadError::Reconnected);
                    }
                }
                () = tokio::time::sleep(IDLE_CHECK) => self.check().await?,
            }
        }
    }

    /// Returns the next messages: at most `most`, up to and including the one with sequence `end`. Each must arrive within 20 s,
    /// for the caller knows that the stream holds them.
    ///
    /// # Errors
    /// [`ReadError`]; the reader is then of no more use.
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
        // Stream sequences have holes under a filter; the consumer's own have none.
        if consumer_sequence != self.consumer_sequence + 1 || sequence <= self.position.sequence {
            return Err(ReadError::Gap {
                stream: name,
                from: self.consumer_sequence,
                to: consumer_sequence,
            });
        }
        self.consumer_sequence = consumer_sequence;
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

/// Compares the position with the stream: `None` if reading may go on after it, else the reason why not.
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
        return Ok(None); // It has aged out, as it should.
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

/// Whether the server says that there is no such message.
pub(crate) fn is_missing(err: &RawMessageError) -> bool {
    match err.kind() {
        RawMessageErrorKind::NoMessageFound => true,
        RawMessageErrorKind::JetStream(refusal) => {
            refusal.error_code() == ErrorCode::NO_MESSAGE_FOUND
        }
        _ => false,
    }
}
