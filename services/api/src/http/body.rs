//! The JSON body of a request, read strictly.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use tagtrail_proto::clean_text;

use crate::http::error::Error;

/// Time in which a body must arrive.
const RECEIVE: Duration = Duration::from_secs(5);

/// The body of a request, of at most the size that the operation's row says. Types of bodies
/// deny unknown fields, so that a misspelt field is refused.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<JsonBody<T>, Error> {
        if !is_json(request.headers()) {
            return Err(Error::BodyNotJson);
        }
        parse(&receive(request, state).await?).map(JsonBody)
    }
}

/// As [`JsonBody`], of an operation that also takes a request without a body.
#[derive(Debug)]
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<OptionalBody<T>, Error> {
        let json = is_json(request.headers());
        let bytes = receive(request, state).await?;
        match (bytes.is_empty(), json) {
            (true, _) => Ok(OptionalBody(T::default())),
            (false, true) => parse(&bytes).map(OptionalBody),
            (false, false) => Err(Error::BodyNotJson),
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // The text of serde_json repeats parts of the body: control characters must go.
    serde_json::from_slice(bytes).map_err(|error| Error::Body(clean_text(&error.to_string(), 200)))
}

/// Browsers send other media types across origins without asking first: refusing them keeps a
/// foreign page from calling the API.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

async fn receive<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Error> {
    tokio::time::timeout(RECEIVE, Bytes::from_request(request, state))
        .await
        .map_err(|_| Error::BodyCut)?
        .map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Error::BodyTooLarge,
            _ => Error::BodyCut,
        })
}
