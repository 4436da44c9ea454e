//! Reads the manifest of each digest once from its registry, and publishes it to MANIFESTS.
//!
//! Each revision is a job ([`tagtrail_bus::jobs`]). All instances share the jobs, and a consumer of
//! their own keeps them from delaying questions. Old revisions are jobs too, worked off slowly. A
//! manifest in MANIFESTS needs no second read, so a redelivered revision costs at worst a second
//! read, and the bus stores only the first manifest.

mod absent;
mod metrics;
mod reading;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tagtrail_bus::BusError;
use tagtrail_bus::consume::ReadError;
use tagtrail_bus::jobs::Jobs;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::{Retry, Span, SpanKind};
use tagtrail_postgres::DbArgs;
use tagtrail_proto::{Event, Manifest, Pinned, Registry, Revision, Subject, TraceContext};
use tagtrail_registry::AskError;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::postponed::{Admission, Key, Work};
use crate::shared::Shared;
use crate::task::Task;
use absent::is_new;
pub(crate) use metrics::ManifestMetrics;
use store::MissingManifests;

/// Name of the durable consumer that all instances share.
const NAME: &str = "manifests";
/// The part of readiness.
const HEALTH: &str = "manifests";
/// Concurrent reads, from all registries, where no task can be postponed.
const MAX_READS: usize = 4;
/// Jobs requested ahead from NATS.
const PREFETCH: usize = 16;
/// Pause after each read, before its place is free for the next: a backlog must not burden a
/// registry.
const PAUSE_AFTER_READ: Duration = Duration::from_millis(200);
/// Attempts after which a refused manifest is given up: the registry denies access.
const ATTEMPTS: u32 = 4;

/// Reads manifests until a stop is requested. After an error the consumer is opened again.
pub(crate) async fn run(
    shared: Arc<Shared>,
    db: Option<DbArgs>,
    metrics: ManifestMetrics,
    mut returned: mpsc::UnboundedReceiver<Task>,
) -> anyhow::Result<()> {
    // Without a registry there is no consumer, so that a registry configured later gets all
    // revisions.
    tokio::select! {
        () = shared.shutdown.cancelled() => return Ok(()),
        () = shared.registries.some() => {}
    }
    let reader = Arc::new(ManifestReader {
        shared,
        metrics,
        missing: MissingManifests { db },
        paused: Mutex::default(),
    });
    reader.shared.health.register(HEALTH);
    let mut reads = Reads::default();
    let mut retry = Retry::new("reading REVISIONS for manifests");
    while !reader.shared.shutdown.is_cancelled() {
        if let Err(error) = reader
            .read_jobs(&mut reads, &mut returned, &mut retry)
            .await
        {
            reader.shared.cannot_read(HEALTH, &error);
            let pause = retry.failed(&error);
            reader.shared.sleep(pause).await;
        }
    }
    reads.release().await;
    returned.close();
    while let Some(task) = returned.recv().await {
        task.release().await;
    }
    reader.shared.bus.flush().await;
    Ok(())
}

/// The reads under way, with the revisions that wait for each: a push under three tags is one
/// manifest.
#[derive(Debug, Default)]
struct Reads {
    running: JoinSet<(ReadOutcome, Duration)>,
    waiting: HashMap<Pinned, (Id, Vec<Waiter>)>,
}

/// A revision that waits for a read.
#[derive(Debug)]
struct Waiter {
    task: Task,
    revision: Revision,
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadOutcome {
    /// MANIFESTS has the manifest, or nobody can read it: end the tasks.
    Done,
    /// The read failed: put the tasks off, to retry after a pause.
    Again,
    /// The registry does not have the manifest: ask for the tags, then end the tasks.
    Missing,
}

/// The state of all reads.
struct ManifestReader {
    shared: Arc<Shared>,
    metrics: ManifestMetrics,
    missing: MissingManifests,
    /// Registries that asked for a pause or do not answer, with the end of the pause.
    paused: Mutex<HashMap<Registry, Instant>>,
}

impl ManifestReader {
    /// Starts a read for each job until a stop is requested.
    async fn read_jobs(
        self: &Arc<Self>,
        reads: &mut Reads,
        returned: &mut mpsc::UnboundedReceiver<Task>,
        retry: &mut Retry,
    ) -> Result<(), ReadError> {
        // Twice the usual time, because a job waits for earlier reads.
        let ack_wait = self.shared.ack_wait * 2;
        let bus = &self.shared.bus;
        let opening = bus.jobs_of(
            Stream::Revisions,
            NAME,
            Subject::ALL_REVISIONS,
            ack_wait,
            PREFETCH,
        );
        let mut jobs: Jobs = opening.await?;
        self.shared.health.set(HEALTH, Ok(()));
        // Places bound the reads of each registry. Without them the bound is one for all.
        let counted = self.shared.postponed.is_kept();
        let mut checks = interval(Jobs::CHECK_EVERY);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => {
                    jobs.release().await;
                    return Ok(());
                }
                Some(ended) = reads.running.join_next_with_id() => self.ended(reads, ended).await,
                _ = checks.tick() => self.shared.check(&jobs, Work::Manifest, HEALTH).await?,
                Some(task) = returned.recv() => self.start(task, reads, true).await,
                job = jobs.next(), if counted || reads.running.len() < MAX_READS => {
                    let job = job?;
                    retry.succeeded();
                    let task = Task::of_job(job, &self.shared.postponed);
                    self.start(task, reads, false).await;
                }
            }
        }
    }

    /// Starts the read for a revision, unless its registry has no place for it. A postponed task
    /// has its place already.
    async fn start(self: &Arc<Self>, mut task: Task, reads: &mut Reads, has_place: bool) {
        let revision = match serde_json::from_slice::<Event<Revision>>(task.payload()) {
            Ok(event) => event.data,
            Err(error) => {
                tracing::error!("a message in REVISIONS is no revision: {error}");
                return task.done().await;
            }
        };
        // A deletion has no digest.
        let Some(pinned) = revision.pinned.clone() else {
            return task.done().await;
        };
        let (trace, attempt) = (task.trace, task.attempt);
        if !self.shared.registries.contains_key(&pinned.registry) {
            self.metrics.count("not_configured");
            return task.done().await;
        }
        if let Some(pause) = self.pause_of(&pinned.registry) {
            let pause = pause.max(self.shared.pause(attempt));
            return task.later(key(&revision), pause).await;
        }
        if let Some((_, waiters)) = reads.waiting.get_mut(&pinned) {
            return waiters.push(Waiter { task, revision });
        }
        if !has_place {
            match self
                .shared
                .postponed
                .admit(Work::Manifest, &pinned.registry)
            {
                Admission::Go(place) => task = task.with_place(place),
                Admission::Full => return task.wait(key(&revision), Duration::ZERO).await,
            }
        }
        let (reader, wanted, new) = (Arc::clone(self), pinned.clone(), is_new(&revision));
        let reading = async move { reader.read(&wanted, trace, attempt, new).await };
        let id = reads.running.spawn(reading).id();
        let waiter = Waiter { task, revision };
        reads.waiting.insert(pinned, (id, vec![waiter]));
    }

    /// Reads a manifest, unless MANIFESTS has it. Returns the outcome, and the pause before a
    /// retry.
    async fn read(
        &self,
        pinned: &Pinned,
        trace: Option<TraceContext>,
        attempt: u32,
        new: bool,
    ) -> (ReadOutcome, Duration) {
        let pause = self.shared.pause(attempt);
        match self.is_stored(pinned).await {
            Ok(true) => {
                self.metrics.count("known");
                return (ReadOutcome::Done, Duration::ZERO);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(digest = %pinned.digest, "MANIFESTS could not be searched for {pinned}; retrying in {pause:.0?}: {error}");
                return (ReadOutcome::Again, pause);
            }
        }
        let mut span = Span::start("read", SpanKind::Client, trace.as_ref());
        span.set("tagtrail.digest", pinned.digest.to_string());
        let answer = self.ask(pinned, attempt >= ATTEMPTS).await;
        if let Err(error) = &answer {
            span.fail(error);
        }
        match answer {
            Ok(Some(manifest)) => {
                let outcome = self.store(manifest, span.context(), pause).await;
                tokio::time::sleep(PAUSE_AFTER_READ).await;
                outcome
            }
            Ok(None) => {
                self.metrics.count("absent");
                self.absent(pinned, attempt, new).await
            }
            Err(error) => self.failed(pinned, attempt, pause, error),
        }
    }

    /// Decides on the next step after a failed request, and pauses the registry if necessary.
    fn failed(
        &self,
        pinned: &Pinned,
        attempt: u32,
        pause: Duration,
        error: AskError,
    ) -> (ReadOutcome, Duration) {
        match error {
            AskError::Refused(why) => {
                self.metrics.count("refused");
                self.retry_or_give_up(pinned, attempt, pause, &why)
            }
            AskError::Busy { after } => {
                self.metrics.count("busy");
                let pause = after.unwrap_or_default().max(pause);
                self.pause_registry(&pinned.registry, pause);
                tracing::info!(digest = %pinned.digest, "reading {pinned} failed; retrying in {pause:.0?}: {error}");
                (ReadOutcome::Again, pause)
            }
            AskError::Resting { rest } => {
                self.metrics.count("resting");
                self.pause_registry(&pinned.registry, rest);
                (ReadOutcome::Again, rest.max(pause))
            }
            AskError::Failed(_) => {
                self.metrics.count("failed");
                // The registry may hang; other registries use the free place meanwhile.
                self.pause_registry(&pinned.registry, self.shared.pace.first);
                tracing::warn!(digest = %pinned.digest, delivery.attempt = attempt, "reading {pinned} failed; retrying in {pause:.0?}: {error}");
                (ReadOutcome::Again, pause)
            }
        }
    }

    /// Returns the rest of a registry's pause, if any.
    fn pause_of(&self, registry: &Registry) -> Option<Duration> {
        let all = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let left = all.get(registry)?.duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn pause_registry(&self, registry: &Registry, pause: Duration) {
        let mut all = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(registry.clone(), Instant::now() + pause);
    }

    async fn is_stored(&self, pinned: &Pinned) -> Result<bool, BusError> {
        let subject = Subject::Manifest {
            digest: pinned.digest.clone(),
        };
        let bus = &self.shared.bus;
        let found = bus.last_message(Stream::Manifests, &subject).await?;
        Ok(found.is_some())
    }

    async fn ask(&self, pinned: &Pinned, last: bool) -> Result<Option<Manifest>, AskError> {
        let registry = self.shared.registries.get(&pinned.registry);
        let registry = registry
            .ok_or_else(|| AskError::Refused("the registry is not configured".to_owned()))?;
        // Half the time after which NATS redelivers the job.
        let patience = self.shared.ack_wait / 2;
        tokio::time::timeout(patience, reading::read(&registry, pinned, last))
            .await
            .unwrap_or_else(|_| Err(AskError::Failed(format!("no answer in {patience:?}"))))
    }

    async fn store(
        &self,
        manifest: Manifest,
        trace: &TraceContext,
        pause: Duration,
    ) -> (ReadOutcome, Duration) {
        let pinned = manifest.pinned();
        match self.publish(manifest, trace).await {
            Ok(first) => {
                self.metrics.count(if first { "read" } else { "known" });
                (ReadOutcome::Done, Duration::ZERO)
            }
            Err(error) => {
                tracing::warn!(digest = %pinned.digest, "the manifest of {pinned} could not be published; retrying in {pause:.0?}: {error}");
                (ReadOutcome::Again, pause)
            }
        }
    }

    async fn publish(
        &self,
        manifest: Manifest,
        trace: &TraceContext,
    ) -> Result<bool, PublishError> {
        let subject = Subject::Manifest {
            digest: manifest.digest.clone(),
        };
        let message = Message::of(&subject, &manifest.event())?.with_trace(Some(*trace));
        self.shared.bus.publish_first(message).await
    }

    /// Retries a manifest that is refused, because permissions come late, but gives up after
    /// [`ATTEMPTS`].
    fn retry_or_give_up(
        &self,
        pinned: &Pinned,
        attempt: u32,
        pause: Duration,
        why: &str,
    ) -> (ReadOutcome, Duration) {
        if attempt < ATTEMPTS {
            tracing::info!(digest = %pinned.digest, delivery.attempt = attempt, "reading {pinned} failed; retrying in {pause:.0?}: {why}");
            return (ReadOutcome::Again, pause);
        }
        self.metrics.count("given_up");
        tracing::warn!(digest = %pinned.digest, "gave up reading the manifest of {pinned}: {why}; `tagtrail republish` of its image starts new attempts");
        (ReadOutcome::Done, Duration::ZERO)
    }

    /// Ends the tasks of a finished read, or puts them off.
    async fn ended(
        &self,
        reads: &mut Reads,
        ended: Result<(Id, (ReadOutcome, Duration)), JoinError>,
    ) {
        let (id, (outcome, pause)) = ended.unwrap_or_else(|panic| {
            tracing::error!("reading a manifest panicked; its revisions are read again: {panic}");
            (panic.id(), (ReadOutcome::Again, Duration::from_secs(60)))
        });
        let of_read = reads.waiting.extract_if(|_, (of, _)| *of == id);
        let waiters: Vec<Waiter> = of_read.flat_map(|(_, (_, waiters))| waiters).collect();
        for Waiter { task, revision } in waiters {
            let asked = match outcome {
                ReadOutcome::Done => Ok(()),
                ReadOutcome::Missing => self.ask_for_tag(&revision).await,
                ReadOutcome::Again => {
                    task.later(key(&revision), pause).await;
                    continue;
                }
            };
            match asked {
                Ok(()) => task.done().await,
                Err(error) => {
                    tracing::warn!(image = %revision.image(), "could not queue a re-check of {} at its registry: {error}", revision.image());
                    task.later(key(&revision), pause).await;
                }
            }
        }
    }
}

/// Returns the identity of the task of a revision. Each tag has a task of its own: if the manifest
/// is missing, the registry is asked for the tag.
fn key(revision: &Revision) -> Key {
    Key {
        work: Work::Manifest,
        registry: revision.registry.clone(),
        source: revision.source.clone(),
        key: format!("{} {}", revision.image(), revision.revision),
    }
}

impl Reads {
    /// Stops all reads, and returns their tasks for other instances.
    async fn release(mut self) {
        self.running.shutdown().await;
        for (_, (_, waiters)) in self.waiting {
            for Waiter { task, .. } in waiters {
                task.release().await;
            }
        }
    }
}
