//! The answers of an API server that are no success.

use std::time::Duration;

use tagtrail_proto::clean_text;

/// Most bytes of a message of an API server.
const MOST: usize = 512;

/// Why a request to an API server has failed. No text holds the object of the request: messages of
/// the API server may echo the object with the values of its environment, and are cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The object, or its kind, does not exist (404).
    #[error("{0}")]
    NotFound(String),
    /// The account has no right to do this (403).
    #[error("{0}")]
    Forbidden(String),
    /// The API server does not know the account (401).
    #[error("the API server does not accept the credentials: {0}")]
    Unauthorized(String),
    /// The object is not as the patch supposes, or a policy refuses the change (422).
    #[error("{0}")]
    Invalid(String),
    /// The API server asks to come back later (429, 503, 504).
    #[error("the API server is busy: {message}")]
    Busy {
        /// The message.
        message: String,
        /// The pause that the API server asks for.
        after: Option<Duration>,
    },
    /// The version to watch from is no longer known (410).
    #[error("the API server no longer knows the version to go on from")]
    Expired,
    /// Another answer.
    #[error("the API server answered {code}: {message}")]
    Other {
        /// The HTTP status.
        code: u16,
        /// The message.
        message: String,
    },
    /// No answer.
    #[error("no answer of the API server: {0}")]
    Unreachable(String),
    /// The access to the cluster can't be set up.
    #[error("{0}")]
    Access(String),
}

impl Problem {
    /// Returns whether the same request can't succeed soon: a person has to change something.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Problem::NotFound(_) | Problem::Forbidden(_) | Problem::Invalid(_)
        )
    }
}

impl From<kube::Error> for Problem {
    fn from(error: kube::Error) -> Problem {
        let status = match error {
            kube::Error::Api(status) => status,
            // The API server has no such group or kind.
            kube::Error::Discovery(error) => {
                return Problem::NotFound(clean_text(&error.to_string(), MOST));
            }
            error => return Problem::Unreachable(clean_text(&chain(&error), MOST)),
        };
        let message = cut(&status.message);
        let details = status.details.as_ref();
        let after = details.map_or(0, |details| details.retry_after_seconds);
        let after = (after > 0).then(|| Duration::from_secs(u64::from(after).min(300)));
        match status.code {
            401 => Problem::Unauthorized(message),
            403 => Problem::Forbidden(message),
            404 => Problem::NotFound(message),
            410 => Problem::Expired,
            409 | 422 if status.code == 422 || status.reason == "Invalid" => {
                Problem::Invalid(message)
            }
            429 | 503 | 504 => Problem::Busy { message, after },
            code => Problem::Other { code, message },
        }
    }
}

/// Returns an error with its causes. Errors of kube have the text of their cause, which then is not
/// repeated.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text += ": ";
            text += &more;
        }
        cause = next.source();
    }
    text
}

/// Returns a message without the objects that it echoes, whether as JSON or as a value of Go.
fn cut(message: &str) -> String {
    let text = match (message.find('{'), message.rfind('}')) {
        (Some(start), Some(end)) if start < end => {
            format!("{}…{}", &message[..start], &message[end + 1..])
        }
        (Some(start), _) => format!("{}…", &message[..start]),
        _ => message.to_owned(),
    };
    clean_text(&text, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_object_is_cut_out() {
        for (message, expected) in [
            (
                "deployments.apps \"web\" not found",
                "deployments.apps \"web\" not found",
            ),
            (
                "Job.batch \"x\" is invalid: spec.template: Invalid value: {\"env\":[{\"value\":\"s3cret\"}]}: field is immutable",
                "Job.batch \"x\" is invalid: spec.template: Invalid value: …: field is immutable",
            ),
            (
                "Invalid value: core.PodTemplateSpec{Env: s3cret",
                "Invalid value: core.PodTemplateSpec…",
            ),
        ] {
            assert_eq!(cut(message), expected);
        }
        assert!(cut(&"x".repeat(10_000)).len() <= MOST);
        assert!(!cut("a\u{1b}[31m").contains('\u{1b}'));
    }
}
