//! What the work on every partition shares, and how it waits for one server without losing the other.

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

/// What every partition of an instance shares.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) bus: Bus,
    /// The server ends a session that is silent for this long.
    pub(crate) silence: Duration,
    /// As many batches are applied at once as are of use: more only wait for the same cores.
    pub(crate) appliers: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) metrics: Metrics,
    /// What readiness has to tell of partitions.
    pub(crate) readiness: Readiness,
}

impl Shared {
    /// Database work with a bound: a session that does not answer is as good as lost.
    pub(crate) async fn within<T, E: Into<Error> + From<sqlx::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        within(self.silence, work).await.map_err(Into::into)
    }

    /// Waits for NATS and keeps the session alive meanwhile: it must not die of the slowness of another server.
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
