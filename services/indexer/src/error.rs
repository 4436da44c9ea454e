//! The errors of the work on a partition, and the recovery from each.

use std::collections::BTreeSet;

use tagtrail_bus::BusError;
use tagtrail_bus::consume::ReadError;
use tagtrail_bus::publish::PublishError;
use tagtrail_proto::Image;

/// Why the work on a partition stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The session failed. Nobody knows which statements were committed, so the partition is given
    /// up.
    #[error("the database session failed")]
    Database(#[from] sqlx::Error),
    /// The position in Postgres is not the one that this holder wrote, because another holder or
    /// the sweeper has changed the row.
    #[error("another instance or the sweeper moved the position of partition {0}")]
    PositionMoved(u16),
    /// REVISIONS has other revisions under numbers that this transaction was about to give:
    /// Postgres has lost revisions.
    #[error("Postgres has lost published revisions of {}", listed(.0))]
    Forgotten(BTreeSet<Image>),
    /// Some pushes of the batch are already recorded. Nothing was written.
    #[error("some pushes of the batch are already recorded")]
    Repeated,
    /// The database holds data that this program never writes.
    #[error("{0}")]
    Inconsistent(&'static str),
    /// A stream could not be read on.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A message could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// NATS did not answer a request.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A part of the work on the partition ended without an error.
    #[error("the {0} ended")]
    Ended(&'static str),
}

/// The recovery from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Drop the session, and so release the partition: the state of the session is unknown.
    GiveUp,
    /// Keep the session: fence, publish missing revisions, and read again from the position.
    StartOver,
}

impl From<&Error> for Recovery {
    #[deny(
        clippy::wildcard_enum_match_arm,
        reason = "the policy names every error"
    )]
    fn from(error: &Error) -> Recovery {
        match error {
            Error::Database(_)
            | Error::PositionMoved(_)
            | Error::Forgotten(_)
            | Error::Repeated
            | Error::Inconsistent(_) => Recovery::GiveUp,
            Error::Read(_) | Error::Publish(_) | Error::Bus(_) | Error::Ended(_) => {
                Recovery::StartOver
            }
        }
    }
}

fn listed(images: &BTreeSet<Image>) -> String {
    let names: Vec<String> = images.iter().map(ToString::to_string).collect();
    names.join(", ")
}
