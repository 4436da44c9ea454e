//! Why a request is refused, and how that is told: problem details (RFC 9457) with a stable `code`.

use std::time::Duration;

use axum::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tagtrail_bus::publish::PublishError;
use tagtrail_daemon::problem;

/// Why a request was not taken. The text is for the sender, so it never quotes what it sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No such page.
    #[error(
        "nothing is here: registries POST their events to /hooks/SOURCE; history is answered by the api"
    )]
    NoSuchPath,
    /// No such route.
    #[error("no source has this name: it must be the `name` of a [[source]] in tagtrail.toml")]
    UnknownSource,
    /// Not a POST.
    #[error("events are sent by POST")]
    NotPost,
    /// Nothing that was shown is a live secret of the source.
    #[error(
        "show the secret of the source as Bearer token, Basic password, whole Authorization value or last part of the path"
    )]
    Unauthenticated,
    /// A signature was shown, and it is not that of the body.
    #[error("the signature is not that of this body with the secret of the source")]
    WrongSignature,
    /// The body is compressed.
    #[error("send the body without a Content-Encoding")]
    Encoded,
    /// The body has too many bytes.
    #[error("a body may have {} MiB", .most >> 20)]
    TooLarge {
        /// Bytes that it may have.
        most: usize,
    },
    /// The body took too long.
    #[error("the whole body has to arrive in {0:?}")]
    TooSlow(Duration),
    /// The connection broke.
    #[error("the body ended early")]
    Incomplete(#[source] axum::Error),
    /// Too much is being received already.
    #[error("too many bodies are being received at once")]
    Busy,
    /// Nothing, or not all, is known to be stored. The sender keeps the event and sends it again.
    #[error("the event could not be stored")]
    NotStored(#[from] NotStored),
}

/// Why it is not known that everything of a body is on the bus.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    /// Since the process started, NATS was not reached.
    #[error("not connected to NATS yet")]
    NotYetConnected,
    /// NATS was reached once.
    #[error("the connection to NATS is down")]
    Disconnected,
    /// It did not say that it stored the message.
    #[error(transparent)]
    Refused(#[from] PublishError),
    /// It did not say so in time.
    #[error("NATS did not acknowledge in {0:?}")]
    TooLate(std::time::Duration),
}

impl Error {
    pub(crate) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Error::NoSuchPath => (StatusCode::NOT_FOUND, "path_unknown"),
            Error::UnknownSource => (StatusCode::NOT_FOUND, "source_unknown"),
            Error::NotPost => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Error::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Error::WrongSignature => (StatusCode::UNAUTHORIZED, "signature_wrong"),
            Error::Encoded => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoded"),
            Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Error::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
            Error::Incomplete(_) => (StatusCode::BAD_REQUEST, "body_incomplete"),
            Error::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Error::NotStored(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_stored"),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        let mut response = problem::response(status, code, &self.to_string());
        let headers = response.headers_mut();
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                for challenge in ["Bearer realm=\"tagtrail\"", "Basic realm=\"tagtrail\""] {
                    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
                }
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            _ => {}
        }
        response
    }
}
