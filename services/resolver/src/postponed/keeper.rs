//! The keeper of the table `postponed`: writes changes in batches, and claims rows that are due.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::jobs::Job;
use tagtrail_daemon::Retry;
use tagtrail_postgres::{DbArgs, within};
use tagtrail_proto::Registry;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Access, CHANGES, Change, Entry, Postponed, Row, Shares, Work, store};
use crate::metrics::Metrics;
use crate::shared::Registries;
use crate::task::Task;

/// Changes written by one statement.
const BATCH: usize = 500;
/// Time of silence after which Postgres ends the session. Claims are more frequent.
const SILENCE: Duration = Duration::from_secs(300);
/// Bound of one statement.
const LIMIT: Duration = Duration::from_secs(5);
/// Interval at which rows are counted, and old ones removed.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// The tasks of claimed rows, by kind. No more than there are places.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) questions: mpsc::UnboundedReceiver<Task>,
    pub(crate) manifests: mpsc::UnboundedReceiver<Task>,
}

/// The times of the keeper.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Interval of claims.
    pub(crate) poll: Duration,
    /// The time after which the row of a crashed instance is due again.
    pub(crate) lease: Duration,
}

/// The task that owns the session.
#[derive(Debug)]
pub(crate) struct Keeper {
    db: DbArgs,
    session: Option<PgConnection>,
    registries: Arc<Registries>,
    shares: Shares,
    /// Weak, so that the keeper ends after the last task.
    access: Weak<Access>,
    changes: mpsc::Receiver<Change>,
    tasks: HashMap<Work, mpsc::UnboundedSender<Task>>,
    times: Times,
    metrics: Metrics,
    retry: Retry,
    counted: Option<Instant>,
    shutdown: CancellationToken,
}

/// Prepares the table. Without a database nothing is postponed, and there is no keeper.
pub(crate) fn start(
    db: Option<DbArgs>,
    registries: &Arc<Registries>,
    times: Times,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> (Postponed, Returned, Option<Keeper>) {
    let (questions, returned_questions) = mpsc::unbounded_channel();
    let (manifests, returned_manifests) = mpsc::unbounded_channel();
    let returned = Returned {
        questions: returned_questions,
        manifests: returned_manifests,
    };
    let Some(db) = db else {
        return (Postponed::default(), returned, None);
    };
    let (sender, changes) = mpsc::channel(CHANGES);
    let shares = Shares::default();
    shares.expect(registries.all().keys());
    let access = Arc::new(Access {
        changes: sender,
        shares: shares.clone(),
    });
    let keeper = Keeper {
        db,
        session: None,
        registries: Arc::clone(registries),
        shares,
        access: Arc::downgrade(&access),
        changes,
        tasks: HashMap::from([(Work::Question, questions), (Work::Manifest, manifests)]),
        times,
        metrics: metrics.clone(),
        retry: Retry::new("claiming postponed tasks"),
        counted: None,
        shutdown: shutdown.clone(),
    };
    (Postponed(Some(access)), returned, Some(keeper))
}

impl Keeper {
    /// Keeps the table until the last task has ended.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut next_claim = Instant::now();
        loop {
            let claims = !self.shutdown.is_cancelled();
            // Without `biased`: a flood of changes must not keep rows from being claimed.
            tokio::select! {
                received = self.changes.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return Ok(());
                    }
                    self.write(&mut batch).await;
                }
                () = sleep_until(next_claim), if claims => {
                    next_claim = Instant::now() + self.claim_all().await;
                }
            }
        }
    }

    /// Writes changes. If Postgres does not take them, the tasks come back: their messages by a
    /// nak, their rows when the lease ends.
    async fn write(&mut self, batch: &mut Vec<Change>) {
        let (mut entries, mut jobs) = (Vec::new(), Vec::new());
        let (mut done, mut due) = (Vec::new(), Vec::new());
        for change in batch.drain(..) {
            match change {
                Change::Add(entry, job) => {
                    entries.push(entry);
                    jobs.push(*job);
                }
                Change::Due(row, at) => due.push((row, at)),
                Change::Done(row) => done.push(row),
            }
        }
        if !entries.is_empty() {
            self.add(&entries, jobs).await;
        }
        if !due.is_empty() || !done.is_empty() {
            self.finish(&due, &done).await;
        }
    }

    /// Adds entries, and acks their messages.
    async fn add(&mut self, entries: &[Entry], jobs: Vec<Job>) {
        let added = self
            .with_session(async |db| store::add(db, entries).await)
            .await;
        match added {
            Ok(()) => {
                for entry in entries {
                    let share = self.shares.get(entry.key.work, &entry.key.registry);
                    if let Some(share) = share {
                        share.rows.fetch_add(1, Ordering::Relaxed);
                    }
                }
                for job in jobs {
                    job.ack().await;
                }
            }
            Err(error) => {
                let count = jobs.len();
                tracing::warn!(
                    "{count} tasks could not be postponed in Postgres, so they stay in NATS: {error}"
                );
                for job in jobs {
                    job.nak(self.times.lease / 8).await;
                }
            }
        }
    }

    /// Records that claimed rows are due again, or done.
    async fn finish(&mut self, due: &[(Row, OffsetDateTime)], done: &[Row]) {
        let kept = self
            .with_session(async |db| {
                if !due.is_empty() {
                    store::set_due(db, due).await?;
                }
                if !done.is_empty() {
                    store::remove(db, done).await?;
                }
                Ok(())
            })
            .await;
        if let Err(error) = kept {
            let count = due.len() + done.len();
            tracing::warn!(
                "the end of {count} postponed tasks could not be recorded, so they are repeated: {error}"
            );
        }
    }

    /// Claims due rows of registries that can be asked and have places. Returns the time until the
    /// next claim.
    async fn claim_all(&mut self) -> Duration {
        let mut more = false;
        for work in Work::ALL {
            match self.claim(work).await {
                Ok(all) => more |= all,
                Err(error) => return self.retry.failed(&error),
            }
        }
        if self
            .counted
            .is_none_or(|counted| counted.elapsed() >= COUNT_EVERY)
            && let Err(error) = self.count().await
        {
            return self.retry.failed(&error);
        }
        self.retry.succeeded();
        // Places become free all the time while a registry answers.
        match more {
            true => self.times.poll / 5,
            false => self.times.poll,
        }
    }

    /// Claims rows of one kind. Returns whether more may be due.
    async fn claim(&mut self, work: Work) -> Result<bool, sqlx::Error> {
        let registries = self.registries.all();
        let shares = self.shares.clone();
        let free: Vec<(&Registry, usize)> = registries
            .iter()
            .filter(|(_, client)| client.resting().is_none())
            .filter_map(|(name, _)| {
                let share = shares.get(work, name)?;
                Some((name, share.places.available_permits()))
            })
            .filter(|(_, free)| *free > 0)
            .collect();
        let (Some(tasks), Some(postponed)) =
            (self.tasks.get(&work).cloned(), Postponed::of(&self.access))
        else {
            return Ok(false);
        };
        if free.is_empty() {
            return Ok(false);
        }
        let lease = self.times.lease;
        let claimed = self
            .with_session(async |db| store::claim(db, work, &free, lease).await)
            .await?;
        let mut taken: HashMap<Registry, usize> = HashMap::new();
        for (row, entry) in claimed {
            let share = shares.get(work, &entry.key.registry);
            let place = share.and_then(|share| Arc::clone(&share.places).try_acquire_owned().ok());
            *taken.entry(entry.key.registry.clone()).or_default() += 1;
            let task = Task::of_row(row, entry, postponed.clone()).with_place(place);
            // Fails only after a stop; then the row is due again after the lease.
            let _ = tasks.send(task);
        }
        Ok(free
            .iter()
            .any(|(name, free)| taken.get(name).is_some_and(|taken| taken >= free)))
    }

    /// Counts the rows for the metric and for the bound, and removes old rows.
    async fn count(&mut self) -> Result<(), sqlx::Error> {
        let expired = self.with_session(store::expire).await?;
        if expired > 0 {
            tracing::error!(
                "dropped {expired} questions and manifests that waited for their registry for 14 days; the next comparison of the registry with history finds what they asked for"
            );
        }
        for work in Work::ALL {
            let counts = self
                .with_session(async |db| store::counts(db, work).await)
                .await?;
            for registry in self.registries.all().keys() {
                let rows = counts.get(registry.as_ref()).copied().unwrap_or_default();
                if let Some(share) = self.shares.get(work, registry) {
                    share.rows.store(rows, Ordering::Relaxed);
                }
                self.metrics.postponed(registry.as_ref(), work, rows);
            }
        }
        self.counted = Some(Instant::now());
        Ok(())
    }

    /// Runs a statement in the session, which is opened first if there is none. A session with an
    /// error is not used again.
    async fn with_session<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => within(LIMIT, self.db.session("resolver", SILENCE)).await?,
        };
        let outcome = within(LIMIT, statement(&mut session)).await?;
        self.session = Some(session);
        Ok(outcome)
    }
}
