//! The state that all tasks of an instance share, and waiting for one server while the session of
//! the other stays alive.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::Bus;
use tagtrail_daemon::Retry;
use tagtrail_postgres::session::ping_interval;
use tagtrail_postgres::{DbArgs, Lock, ping, within};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::recheck::AskedRegistries;

/// Interval at which an instance without a lock tries to acquire the lock.
const TURN: Duration = Duration::from_secs(1);

/// The state that all tasks of an instance share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) bus: Bus,
    /// Postgres ends a session after this long without a statement.
    pub(crate) silence: Duration,
    /// Permits to apply a batch. More batches at once than cores would only wait for a core.
    pub(crate) appliers: Arc<Semaphore>,
    /// The registries that re-checks ask.
    pub(crate) asked: AskedRegistries,
    pub(crate) shutdown: CancellationToken,
    pub(crate) metrics: Metrics,
    /// The last failure of each partition, for readiness.
    pub(crate) readiness: Readiness,
}

impl Shared {
    /// Runs database work with a bound: a session without an answer counts as lost.
    pub(crate) async fn within<T, E: Into<Error> + From<sqlx::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        within(self.silence, work).await.map_err(Into::into)
    }

    /// Repeats work that ends only by an error, until a stop is requested.
    pub(crate) async fn repeat<F>(&self, name: &str, work: impl Fn() -> F)
    where
        F: Future<Output = Result<Infallible, Error>>,
    {
        let mut retry = Retry::new(name);
        loop {
            let Err(error) = tokio::select! {
                () = self.shutdown.cancelled() => return,
                ended = work() => ended,
            };
            if !retry.wait(&error, &self.shutdown).await {
                return;
            }
        }
    }

    /// Opens a session, and waits until it has the lock: one instance does this work for all.
    pub(crate) async fn session(
        &self,
        db: &DbArgs,
        name: &str,
        lock: Lock,
    ) -> Result<PgConnection, Error> {
        let mut db = db.session(name, self.silence).await?;
        while !self.within(lock.try_acquire(&mut db)).await? {
            tokio::time::sleep(self.turn()).await;
        }
        Ok(db)
    }

    /// Returns the interval of the tries for a lock, and of looks for new work: a second, or less
    /// if the session would end in between.
    pub(crate) fn turn(&self) -> Duration {
        TURN.min(ping_interval(self.silence))
    }

    /// Runs `work` on NATS while pinging Postgres, so that a slow NATS does not let the session
    /// reach `idle_session_timeout`.
    pub(crate) async fn while_pinging<T, E: Into<Error>>(
        &self,
        db: &mut PgConnection,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        let period = ping_interval(self.silence);
        let mut every = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done.map_err(Into::into),
                _ = every.tick() => self.within(ping(db)).await?,
            }
        }
    }
}
