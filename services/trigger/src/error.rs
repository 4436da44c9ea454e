//! Errors of planner, workers and ledger. Each error ends the session; the task starts over with a
//! new session.

use tagtrail_bus::BusError;
use tagtrail_bus::publish::PublishError;

/// The error that ended a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database session is lost, or did not answer in time.
    #[error("the database session failed")]
    Database(#[from] sqlx::Error),
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
