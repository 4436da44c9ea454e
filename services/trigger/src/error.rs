//! What can go wrong while planning or working. All of it ends the session in hand; the work starts over with a new one.

use tagtrail_bus::BusError;
use tagtrail_bus::publish::PublishError;

/// Why the work stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The session is gone, or its state is not known.
    #[error("the database session failed")]
    Database(#[from] sqlx::Error),
    /// The database did not answer in time.
    #[error("the database did not answer in {0:?}")]
    Silent(std::time::Duration),
    /// The database holds what this program never writes.
    #[error("{0}")]
    Inconsistent(&'static str),
    /// A document in the database has another form.
    #[error("a document in the database can't be read or written")]
    Json(#[from] serde_json::Error),
    /// There is no way to NATS.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Publishing to ROLLOUTS failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Database work with a bound: a session that does not answer is as good as lost.
pub(crate) async fn within<T, E: Into<Error>>(
    bound: std::time::Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    match tokio::time::timeout(bound, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Error::Silent(bound)),
    }
}
