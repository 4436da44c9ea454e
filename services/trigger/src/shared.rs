//! The state that all tasks of the service share, and the way in which tasks open their database
//! sessions.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_config::OnFailure;
use tagtrail_daemon::{Health, StopTime};
use tagtrail_policy::retry::Pace;
use tagtrail_policy::watch::LookPace;
use tagtrail_postgres::session::ping_interval;
use tagtrail_postgres::{DbArgs, Lock, within};
use tokio::sync::{Mutex, Notify, OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::act::{InFlight, Instance, Slots};
use crate::config::{Outlive, Replaced, Supervisor};
use crate::connections::Connections;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::target::{Clones, TargetNews, Targets, Verify};

/// The interval at which a waiting session tries to acquire its lock.
const LOCK_POLL: Duration = Duration::from_secs(1);

/// The time until the target of a trigger without settings must be healthy.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The state that all tasks share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) db: DbArgs,
    /// The time after which Postgres ends an idle session, and the bound for each piece of database
    /// work.
    pub(crate) session_timeout: Duration,
    /// Held while a session is opened, so that sessions open one at a time.
    pub(crate) opening: Arc<Mutex<()>>,
    pub(crate) pace: Pace,
    pub(crate) look_pace: LookPace,
    pub(crate) replaced: Replaced,
    pub(crate) outlive: Outlive,
    pub(crate) supervisor: Supervisor,
    /// The clones of git repositories.
    pub(crate) clones: Arc<Clones>,
    /// The triggers of the files, as they are now.
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    /// The time to stop after that.
    pub(crate) stop_time: StopTime,
    /// Filled once the rollouts that had failed before the start of this process are due again.
    pub(crate) started_over: Arc<OnceCell<()>>,
    /// Notified when a rollout may be ready for an attempt.
    pub(crate) work_recorded: Arc<Notify>,
    /// Triggers with a rollout that may begin now, by their ids, with their names. The dispatcher
    /// takes them from here without a query.
    pub(crate) queued: Arc<std::sync::Mutex<BTreeMap<i32, String>>>,
    /// This process as the owner of attempts.
    pub(crate) instance: Arc<Instance>,
    /// True if no second process acts on the same database.
    pub(crate) alone: bool,
    /// The time after which another process may take over a command whose owner has lost its lock.
    pub(crate) takeover: Duration,
    pub(crate) slots: Arc<Slots>,
    /// Notified when a rollout may be ready for a look.
    pub(crate) watching_recorded: Arc<Notify>,
    /// The attempts and looks that run, to look after them.
    pub(crate) in_flight: Arc<InFlight>,
    /// The tasks of the attempts that run.
    pub(crate) attempts: TaskTracker,
    /// Fires after a stop request, once no attempt runs any more.
    pub(crate) attempts_ended: CancellationToken,
    pub(crate) connections: Arc<Connections>,
    /// Notified when the planner has recorded the settings of this process.
    pub(crate) configured: Arc<Notify>,
    /// Notified when the ledger may have entries to publish.
    pub(crate) entries_recorded: Arc<Notify>,
    /// The triggers whose watched targets have changed.
    pub(crate) news: Arc<TargetNews>,
}

impl Shared {
    /// Returns the targets of the triggers that can be rolled out, by the names of the triggers.
    pub(crate) fn targets(&self) -> Arc<Targets> {
        Arc::clone(&self.settings.borrow().targets)
    }

    /// Returns the steps of `verify` of a trigger, if it has some.
    pub(crate) fn verify(&self, trigger: &str) -> Option<Arc<Verify>> {
        self.settings.borrow().verifies.get(trigger).cloned()
    }

    /// Returns the pauses between attempts of a trigger.
    pub(crate) fn pace(&self, trigger: &str) -> Pace {
        let settings = self.settings.borrow();
        let spec = settings.triggers.get(trigger);
        spec.map_or(self.pace, |spec| spec.pace(self.pace))
    }

    /// Returns the effect of a failed rollout of a trigger.
    pub(crate) fn on_failure(&self, trigger: &str) -> OnFailure {
        let settings = self.settings.borrow();
        let spec = settings.triggers.get(trigger);
        spec.map_or_else(OnFailure::default, |spec| spec.on_failure)
    }

    /// Returns the time until the target of a trigger must be healthy.
    pub(crate) fn timeout(&self, trigger: &str) -> Duration {
        let settings = self.settings.borrow();
        let spec = settings.triggers.get(trigger);
        spec.map_or(DEFAULT_TIMEOUT, |spec| spec.timeout)
    }

    /// Hands triggers with a rollout that may begin to the dispatcher.
    pub(crate) fn queue(&self, triggers: impl Iterator<Item = (i32, String)>) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.extend(triggers);
        self.work_recorded.notify_one();
    }

    /// Takes all triggers that were handed over.
    pub(crate) fn take_queued(&self) -> BTreeMap<i32, String> {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *queued)
    }

    /// Pauses. Returns whether to go on: `false` once no attempt runs any more after a stop
    /// request.
    pub(crate) async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.attempts_ended.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
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
