//! The state that all tasks of the service share, and the way in which tasks open their database
//! sessions.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_daemon::Health;
use tagtrail_policy::retry::Pace;
use tagtrail_postgres::session::ping_interval;
use tagtrail_postgres::{DbArgs, Lock, within};
use tokio::sync::{Mutex, Notify, OnceCell};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::metrics::Metrics;

/// The interval at which a waiting session tries to acquire its lock.
const LOCK_POLL: Duration = Duration::from_secs(1);

/// The state that planner, workers and ledger share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) db: DbArgs,
    /// The time after which Postgres ends an idle session, and the bound for each piece of database
    /// work.
    pub(crate) session_timeout: Duration,
    /// Held while a session is opened, so that sessions open one at a time.
    pub(crate) opening: Arc<Mutex<()>>,
    pub(crate) pace: Pace,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    /// Filled once the rollouts that had failed before the start of this process are due again.
    pub(crate) started_over: Arc<OnceCell<()>>,
    /// Notified when a rollout may be ready for an attempt.
    pub(crate) work_recorded: Arc<Notify>,
    /// The ids of triggers with a rollout recorded by this instance. Workers take them from here
    /// without a query.
    pub(crate) queued: Arc<std::sync::Mutex<BTreeSet<i32>>>,
    /// Notified when the ledger may have entries to publish.
    pub(crate) entries_recorded: Arc<Notify>,
}

impl Shared {
    /// Hands triggers with a new rollout to the workers of this instance.
    pub(crate) fn queue(&self, triggers: impl Iterator<Item = i32>) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.extend(triggers);
        self.work_recorded.notify_one();
    }

    /// Takes the id of one trigger with a new rollout.
    pub(crate) fn next_queued(&self) -> Option<i32> {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.pop_first()
    }

    /// Opens a session, one at a time. After an outage all lost sessions would otherwise reconnect
    /// together, to a server that is itself just starting, and all would exceed their time-out.
    pub(crate) async fn session(&self) -> Result<PgConnection, Error> {
        let _turn = self.opening.lock().await;
        let opening = self.db.session("trigger", self.session_timeout);
        Ok(within(self.session_timeout, opening).await?)
    }

    /// Opens a session and waits without limit until the session holds `lock`. `None` on shutdown.
    pub(crate) async fn session_with(&self, lock: Lock) -> Result<Option<PgConnection>, Error> {
        let mut db = self.session().await?;
        loop {
            if within(self.session_timeout, lock.try_acquire(&mut db)).await? {
                return Ok(Some(db));
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(None),
                // An instance that stands by counts as ready.
                () = tokio::time::sleep(LOCK_POLL) => self.health.set("postgres", Ok(())),
            }
        }
    }

    /// The interval at which a session must be used to stay below the idle time-out.
    pub(crate) fn ping_every(&self) -> Duration {
        ping_interval(self.session_timeout)
    }
}
