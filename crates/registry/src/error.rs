//! Why a registry did not answer the question.

use std::time::Duration;

use tagtrail_daemon::chain;

/// Why there is no answer, and what that means for asking again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Something that may pass: no connection, no answer in time, a failure of the registry's own.
    #[error("{0}")]
    Failed(String),
    /// It wants to be left alone for a while (429, 503 with `Retry-After`).
    #[error("the registry asks for a pause{}", .after.map_or(String::new(), |after| format!(" of {} s", after.as_secs())))]
    Busy {
        /// How long.
        after: Option<Duration>,
    },
    /// It failed so often that it is left alone for a while; it was not asked.
    #[error("it failed again and again, and is left alone for {rest:.0?}")]
    Resting {
        /// How long.
        rest: Duration,
    },
    /// It does not let us, or does what is not allowed to it. Somebody must change something.
    #[error("{0}")]
    Refused(String),
}

impl From<reqwest::Error> for AskError {
    fn from(error: reqwest::Error) -> AskError {
        // The address is known to whoever reads this.
        let what = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "can't be reached"
        } else {
            "the exchange failed"
        };
        AskError::Failed(format!("{what}: {}", chain(&error.without_url())))
    }
}
