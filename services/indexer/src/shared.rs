//! The state that all tasks of an instance share, and waiting for one server while the session of
//! the other stays alive.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::Bus;
use tagtrail_postgres::session::ping_interval;
use tagtrail_postgres::{ping, within};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::recheck::AskedRegistries;

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
