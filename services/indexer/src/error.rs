//! What can go wrong while a partition is held, and what that means for holding it.

use std::collections::BTreeSet;

use tagtrail_bus::BusError;
use tagtrail_bus::consume::ReadError;
use tagtrail_bus::publish::PublishError;
use tagtrail_proto::Image;

/// Why the work on a partition stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The session's word is law: once it fails in any way, nobody knows what was committed, and the partition is given up.
    #[error("the database session failed")]
    Database(#[from] sqlx::Error),
    /// The position is not where this holder left it: it is not the only holder, or the sweeper has set it back.
    #[error("the position of partition {0} is not where it was left")]
    PositionMoved(u16),
    /// Other revisions were published under numbers that the store was about to give: it has forgotten them.
    #[error("the store has forgotten revisions that were published of {}", listed(.0))]
    Forgotten(BTreeSet<Image>),
    /// Facts of a batch are in the store already. Nothing was written.
    #[error("pushes came a second time")]
    Repeated,
    /// The database holds what this program never writes.
    #[error("{0}")]
    Inconsistent(&'static str),
    /// Reading PUSHES ended.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Publishing to REVISIONS failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The bus did not answer a question.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A part of the partition's work ended without saying why.
    #[error("the {0} ended")]
    Ended(&'static str),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Drop the session, and with it the partition: what it says can no longer be relied on.
    GiveUp,
    /// The session is sound; fence, catch up and read again from the position.
    StartOver,
}

impl From<&Error> for Recovery {
    #[deny(
        clippy::wildcard_enum_match_arm,
        reason = "the policy is written out, one error at a time"
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
