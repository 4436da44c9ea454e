//! Jobs: messages that several instances share, each to be done with by one of them.
//!
//! A durable consumer with explicit acknowledgements. Nothing is lost: a job that is neither done nor put off in time is given to
//! somebody again. So it may be done twice, and doing it twice must be harmless.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::Acker;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tagtrail_proto::TraceContext;
use tokio::sync::watch;

use crate::consume::{ReadError, trace_of};
use crate::topology::Stream;
use crate::{Bus, Link};

/// Jobs in hand or put off at once, of all instances.
const AT_ONCE: i64 = 20_000;
/// Jobs asked for at once, where nothing else is said.
const PREFETCH: usize = 500;
/// The server says that it is alive this often.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// An open source of jobs.
pub struct Jobs {
    stream: Stream,
    messages: pull::Stream,
    link: watch::Receiver<Link>,
    generation: u64,
}

/// A message to be done with.
pub struct Job {
    /// Its body.
    pub payload: Bytes,
    /// What caused it.
    pub trace: Option<TraceContext>,
    /// How often it was given out, this time included: 1, 2, 3 …
    pub attempt: u32,
    acker: Acker,
}

impl Bus {
    /// Opens the jobs of a stream, shared by everybody who opens them under the same name. A job that is not heard of for
    /// `ack_wait` is given to somebody else.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn jobs(
        &self,
        stream: Stream,
        name: &str,
        ack_wait: Duration,
    ) -> Result<Jobs, ReadError> {
        self.jobs_of(stream, name, "", ack_wait, PREFETCH).await
    }

    /// The same of those messages that match `filter` (a subject with wildcards; empty: of all). At most `prefetch` are sent to us
    /// before we have taken the first: few, where each takes long, since the time that they wait here counts towards `ack_wait`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn jobs_of(
        &self,
        stream: Stream,
        name: &str,
        filter: &str,
        ack_wait: Duration,
        prefetch: usize,
    ) -> Result<Jobs, ReadError> {
        let failed = |cause: String| ReadError::Failed(stream.name(), cause);
        let mut link = self.link();
        let generation = link.borrow_and_update().generation;
        let handle = self.handle(stream).await?;
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            description: Some("Shared by all instances; made by Tagtrail".to_owned()),
            filter_subject: filter.to_owned(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            // A finite number would drop what fails for long.
            max_deliver: -1,
            max_ack_pending: AT_ONCE,
            ..pull::Config::default()
        };
        // Creates it or brings it up to date; merely getting it would keep settings of an older version.
        let consumer = handle
            .create_consumer(config)
            .await
            .map_err(|err| failed(err.to_string()))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(prefetch)
            .expires(Duration::from_secs(10))
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|err| failed(err.to_string()))?;
        Ok(Jobs {
            stream,
            messages,
            link,
            generation,
        })
    }
}

impl Jobs {
    /// Gives back what was sent to us and not taken, so that others need not wait until it is missed.
    pub async fn release(mut self) {
        while let Ok(Ok(job)) = tokio::time::timeout(Duration::ZERO, self.next()).await {
            job.nak(Duration::ZERO).await;
        }
    }

    /// The next job; waits for it as long as it takes. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError`]; it must be opened again then.
    pub async fn next(&mut self) -> Result<Job, ReadError> {
        let name = self.stream.name();
        loop {
            let message = tokio::select! {
                biased;
                message = self.messages.next() => message,
                changed = self.link.changed() => {
                    if changed.is_err() || self.link.borrow_and_update().generation != self.generation {
                        return Err(ReadError::Reconnected);
                    }
                    continue;
                }
            };
            let message = message
                .ok_or_else(|| ReadError::Failed(name, "the consumer ended".to_owned()))?
                .map_err(|err| ReadError::Failed(name, err.to_string()))?;
            let attempt = message
                .info()
                .map_or(1, |info| u32::try_from(info.delivered).unwrap_or(u32::MAX));
            let (message, acker) = message.split();
            return Ok(Job {
                trace: trace_of(message.headers.as_ref()),
                payload: message.payload,
                attempt,
                acker,
            });
        }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// Nobody need do it any more. Should that not be heard, it is given out again.
    pub async fn ack(self) {
        self.say(AckKind::Ack).await;
    }

    /// It is to be given out again, after a pause.
    pub async fn nak(self, pause: Duration) {
        self.say(AckKind::Nak(Some(pause))).await;
    }

    async fn say(self, what: AckKind) {
        if let Err(err) = self.acker.ack_with(what).await {
            tracing::debug!("a job will be given out again: {err}");
        }
    }
}
