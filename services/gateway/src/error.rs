//! Refusals of requests, as problem details (RFC 9457) with a stable `code`.

use std::time::Duration;

use axum::http::header::{ALLOW, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tagtrail_bus::publish::PublishError;
use tagtrail_daemon::problem;
use tagtrail_proto::clean_text;

/// The reason to refuse a request. The text is for the sender, so it never quotes the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The path is unknown.
    #[error(
        "unknown path: registries POST their events to /hooks/SOURCE, or to /hooks/SOURCE/SECRET if they can send no header; SOURCE is the `name` of a [[source]] in tagtrail.toml. The api serves history"
    )]
    NoSuchPath,
    /// The source is unknown.
    #[error(
        "no source has this name: registries POST their events to /hooks/SOURCE, or to /hooks/SOURCE/SECRET if they can send no header; SOURCE is the `name` of a [[source]] in tagtrail.toml"
    )]
    UnknownSource,
    /// The source can't be used as configured.
    #[error(
        "the settings or the secret of this source are wrong, and the gateway's log has the cause; send the request again later"
    )]
    SourceBroken,
    /// The method is not POST.
    #[error("send events by POST")]
    NotPost,
    /// The request shows no secret.
    #[error(
        "the request has no secret; send the secret of the source as Bearer token, Basic password, whole Authorization value or last part of the path"
    )]
    Unauthenticated,
    /// The request shows a secret that is not live.
    #[error(
        "the secret in the request does not match; send the secret of the source as Bearer token, Basic password, whole Authorization value or last part of the path"
    )]
    WrongSecret,
    /// The token is refused. The reason quotes the token, so it is for the log alone.
    #[error("the token was refused; the gateway's log has the reason")]
    TokenRefused(String),
    /// The keys that verify tokens can't be had at present.
    #[error("the keys of the identity provider can't be had at present; send the request again")]
    KeysUnavailable,
    /// The address sent too many wrong proofs of identity.
    #[error(
        "too many requests with a wrong secret, signature or token came from this address; correct it, and send one request a second"
    )]
    TooManyRefusals,
    /// A header that may prove the identity has several values.
    #[error("send the Authorization header, and each header of a signature or secret, once")]
    HeaderRepeated,
    /// The request has a signature, which does not match the body.
    #[error("the signature does not match this body and the secret of the source")]
    WrongSignature,
    /// The body is compressed.
    #[error("send the body without a Content-Encoding")]
    Encoded,
    /// The body has too many bytes.
    #[error("the body is larger than {} MiB", .most >> 20)]
    TooLarge {
        /// The limit, in bytes.
        most: usize,
    },
    /// The body took too long.
    #[error("the whole body must arrive within {0:?}")]
    TooSlow(Duration),
    /// A stranger's body arrives too slowly.
    #[error("a signed body must arrive at 16 KiB/s at least")]
    BelowRate,
    /// The connection broke.
    #[error("the connection broke before the end of the body")]
    Incomplete(#[source] axum::Error),
    /// The bodies that are being received use up the memory for bodies.
    #[error("too many bodies are being received at once")]
    Busy,
    /// The bus did not confirm every message. The sender keeps the event and sends it again.
    #[error("the event could not be stored")]
    NotStored(#[from] NotStored),
}

/// The reason why messages of a body may be missing on the bus.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    /// The process has not reached NATS yet.
    #[error("not connected to NATS yet")]
    NotYetConnected,
    /// The connection to NATS was lost.
    #[error("the connection to NATS is down")]
    Disconnected,
    /// The server did not confirm a message.
    #[error(transparent)]
    Refused(#[from] PublishError),
    /// The confirmation took too long.
    #[error("NATS did not acknowledge within {0:?}")]
    TooLate(std::time::Duration),
}

impl Error {
    /// Returns whether the request shows a wrong proof of identity, or none.
    pub(crate) fn is_wrong_proof(&self) -> bool {
        matches!(
            self,
            Error::Unauthenticated
                | Error::WrongSecret
                | Error::WrongSignature
                | Error::TokenRefused(_)
        )
    }

    /// Returns the text for the log.
    pub(crate) fn reason(&self) -> String {
        match self {
            Error::TokenRefused(why) => format!("the token: {}", clean_text(why, 300)),
            other => other.to_string(),
        }
    }

    pub(crate) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Error::NoSuchPath => (StatusCode::NOT_FOUND, "path_unknown"),
            Error::UnknownSource => (StatusCode::NOT_FOUND, "source_unknown"),
            Error::SourceBroken => (StatusCode::SERVICE_UNAVAILABLE, "source_broken"),
            Error::NotPost => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Error::Unauthenticated | Error::WrongSecret | Error::TokenRefused(_) => {
                (StatusCode::UNAUTHORIZED, "unauthenticated")
            }
            Error::KeysUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "keys_unavailable"),
            Error::TooManyRefusals => (StatusCode::TOO_MANY_REQUESTS, "too_many_refusals"),
            Error::HeaderRepeated => (StatusCode::BAD_REQUEST, "header_repeated"),
            Error::WrongSignature => (StatusCode::UNAUTHORIZED, "signature_wrong"),
            Error::Encoded => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoded"),
            Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Error::TooSlow(_) | Error::BelowRate => (StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
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
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
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
