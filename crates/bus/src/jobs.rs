//! Jobs: messages shared by several instances, each handled by one of them.
//!
//! A durable consumer with explicit acks. Nothing is lost: the server redelivers a job that got
//! neither an ack nor a nak in time. So a job may be done twice, and doing it twice must be
//! harmless.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, Info, pull};
use async_nats::jetstream::message::Acker;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tagtrail_proto::TraceContext;
use tokio::sync::watch;

use crate::consume::{ReadError, trace_of};
use crate::topology::Stream;
use crate::{Bus, Link};

/// Jobs requested at a time by [`Bus::jobs`].
const PREFETCH: usize = 500;
/// Interval of the server's heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// An open consumer of jobs.
pub struct Jobs {
    stream: Stream,
    consumer: Consumer<pull::Config>,
    messages: pull::Stream,
    link: watch::Receiver<Link>,
    generation: u64,
}

/// A message that waits for an ack or a nak.
pub struct Job {
    /// Its body.
    pub payload: Bytes,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// The number of its deliveries, this one included: 1, 2, 3 …
    pub attempt: u32,
    acker: Acker,
}

impl Bus {
    /// Opens the jobs of a stream, shared by all instances that open them under the same name. The
    /// server redelivers a job that got neither an ack nor a nak within `ack_wait`.
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

    /// Opens the jobs that match `filter` (a subject with wildcards; empty: all), of which the
    /// server sends at most `prefetch` in advance. Use few where a job takes long: its wait in this
    /// process counts towards `ack_wait`.
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
            // A limit would drop a job that fails for long.
            max_deliver: -1,
            max_ack_pending: Jobs::AT_ONCE.try_into().unwrap_or(i64::MAX),
            ..pull::Config::default()
        };
        // Creates or updates the consumer; `get_consumer` would keep the settings of an older
        // version.
        let consumer = handle
            .create_consumer(config)
            .await
            .map_err(|err| failed(err.to_string()))?;
        // Creating the consumer again does not end a pause.
        refuse_pause(stream, consumer.cached_info())?;
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
            consumer,
            messages,
            link,
            generation,
        })
    }
}

impl Jobs {
    /// Most jobs of all instances without an ack, those that wait after a nak included.
    pub const AT_ONCE: usize = 20_000;

    /// Interval of [`Jobs::check`].
    pub const CHECK_EVERY: Duration = Duration::from_secs(10);

    /// Checks that nobody has paused the consumer: a paused consumer sends heartbeats as an idle
    /// one does. Returns the number of jobs of all instances without an ack; beyond
    /// [`Jobs::AT_ONCE`] the server delivers none.
    ///
    /// # Errors
    /// [`ReadError`]; open the jobs again then.
    pub async fn check(&self) -> Result<usize, ReadError> {
        let info = self.consumer.get_info().await;
        let info = info.map_err(|err| ReadError::Failed(self.stream.name(), err.to_string()))?;
        refuse_pause(self.stream, &info)?;
        Ok(info.num_ack_pending)
    }

    /// Naks all jobs that were sent in advance, so that other instances get them without waiting
    /// for `ack_wait`.
    pub async fn release(mut self) {
        while let Ok(Ok(job)) = tokio::time::timeout(Duration::ZERO, self.next()).await {
            job.nak(Duration::ZERO).await;
        }
    }

    /// Returns the next job, waiting without a limit. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError`]; open the jobs again then.
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

/// Fails if the consumer is paused.
fn refuse_pause(stream: Stream, info: &Info) -> Result<(), ReadError> {
    if info.paused {
        return Err(ReadError::Paused {
            stream: stream.name(),
            consumer: info.name.clone(),
        });
    }
    Ok(())
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// Acks the job: it is done. If the ack is lost, the server delivers the job again.
    pub async fn ack(self) {
        self.say(AckKind::Ack).await;
    }

    /// Naks the job: the server delivers it again after `pause`.
    pub async fn nak(self, pause: Duration) {
        self.say(AckKind::Nak(Some(pause))).await;
    }

    async fn say(self, what: AckKind) {
        if let Err(err) = self.acker.ack_with(what).await {
            tracing::debug!("the server will deliver a job again: {err}");
        }
    }
}
