//! The state that all tasks share, and their sessions: made again after every failure, bounded in time.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_daemon::{Health, backoff, chain};
use tagtrail_policy::retry::Pace;
use tagtrail_postgres::{DbArgs, Lock};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, within};
use crate::metrics::Metrics;

/// How often a session that waits for its turn asks.
const LOCK_POLL: Duration = Duration::from_secs(1);

/// What planner, workers and ledger share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) db: DbArgs,
    /// The server ends a session that is silent for this long.
    pub(crate) session_timeout: Duration,
    /// Whose turn it is to open a session.
    pub(crate) opening: Arc<Mutex<()>>,
    pub(crate) pace: Pace,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    /// There may be a rollout to carry out.
    pub(crate) work_recorded: Arc<Notify>,
    /// Triggers that were just given one: a worker need not look for them.
    pub(crate) queued: Arc<std::sync::Mutex<BTreeSet<i32>>>,
    /// There may be changes to publish.
    pub(crate) entries_recorded: Arc<Notify>,
}

impl Shared {
    /// Tells the workers of triggers that were given a rollout.
    pub(crate) fn queue(&self, triggers: impl Iterator<Item = i32>) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.extend(triggers);
        self.work_recorded.notify_one();
    }

    /// One of those, for the worker that asks.
    pub(crate) fn next_queued(&self) -> Option<i32> {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.pop_first()
    }

    /// A new session. One at a time is opened: all that are lost at once would else come back at once, to a server that has just
    /// come back itself, and all take too long.
    pub(crate) async fn session(&self) -> Result<PgConnection, Error> {
        let _turn = self.opening.lock().await;
        within(
            self.session_timeout,
            self.db.session("trigger", self.session_timeout),
        )
        .await
    }

    /// A new session that has the lock; waits for it as long as it takes. `None` if a stop was asked for.
    pub(crate) async fn session_with(&self, lock: Lock) -> Result<Option<PgConnection>, Error> {
        let mut db = self.session().await?;
        loop {
            if within(self.session_timeout, lock.try_acquire(&mut db)).await? {
                return Ok(Some(db));
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(None),
                // Standing by is being ready.
                () = tokio::time::sleep(LOCK_POLL) => self.health.set("postgres", Ok(())),
            }
        }
    }

    /// How often a session must be used to stay alive.
    pub(crate) fn ping_every(&self) -> Duration {
        self.session_timeout / 5
    }

    /// Says that `what` failed, and waits before it is started over. Gives whether it should be.
    pub(crate) async fn start_over(
        &self,
        what: &str,
        failures: &mut Failures,
        error: &Error,
    ) -> bool {
        let pause = failures.pause();
        tracing::warn!("the {what} starts over in {pause:?}: {}", chain(error));
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

/// Failures in a row: one that comes long after the last is the first again.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    count: u32,
    last: Option<tokio::time::Instant>,
}

impl Failures {
    pub(crate) fn pause(&mut self) -> Duration {
        let recent = self
            .last
            .is_some_and(|last| last.elapsed() < Duration::from_secs(30));
        self.count = if recent {
            self.count.saturating_add(1)
        } else {
            1
        };
        self.last = Some(tokio::time::Instant::now());
        backoff(self.count)
    }
}
