//! The reasons for which a request to a registry has no result.

use std::time::Duration;

use tagtrail_daemon::chain;

/// A failed request to a registry. The variant says whether to retry, and when.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// A failure that may pass: no connection, a time-out, an internal error of the registry.
    #[error("{0}")]
    Failed(String),
    /// The registry asked for a pause (429, or 503 with `Retry-After`).
    #[error("the registry asks for a pause{}", .after.map_or(String::new(), |after| format!(" of {} s", after.as_secs())))]
    Busy {
        /// The length of the pause, if the registry named one.
        after: Option<Duration>,
    },
    /// The circuit breaker is open after repeated failures, so nothing was sent.
    #[error("the registry failed repeatedly, so requests to it are paused for {rest:.0?}")]
    Resting {
        /// The time until the next request may be sent.
        rest: Duration,
    },
    /// The registry denies access, or its answer is not acceptable. A person must change something.
    #[error("{0}")]
    Refused(String),
}

impl From<reqwest::Error> for AskError {
    fn from(error: reqwest::Error) -> AskError {
        // Without the URL: the caller's message names the registry already.
        let problem = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "can't be reached"
        } else {
            "the request failed"
        };
        AskError::Failed(format!("{problem}: {}", chain(&error.without_url())))
    }
}
