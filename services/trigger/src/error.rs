//! Errors of planner, workers and ledger. Each error ends the session; the task starts over with a
//! new session.

use tagtrail_bus::BusError;
use tagtrail_bus::publish::PublishError;

/// The error that ended a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database session is lost, or in an unknown state.
    #[error("the database session failed")]
    Database(#[from] sqlx::Error),
    /// The database did not answer within this time.
    #[error("the database did not answer in {0:?}")]
    Silent(std::time::Duration),
    /// The database holds a value that this program never writes.
    #[error("{0}")]
    Inconsistent(&'static str),
    /// A JSON document in the database has another form.
    #[error("a JSON document in the database can't be read or written")]
    Json(#[from] serde_json::Error),
    /// NATS is unreachable.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Publishing to ROLLOUTS failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Limits the time of database work: a session that does not answer counts as lost.
pub(crate) async fn within<T, E: Into<Error>>(
    bound: std::time::Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    match tokio::time::timeout(bound, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Error::Silent(bound)),
    }
}
