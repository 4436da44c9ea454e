//! Reads and verifies the answers of a registry.

use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tagtrail_proto::{Algorithm, Digest, clean_text};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::error::AskError;

/// Redirects followed for a request.
pub(crate) const MAX_REDIRECTS: usize = 3;
const DIGEST: &str = "docker-content-digest";
/// Bytes kept of a media type: more than a real media type has.
const MAX_MEDIA_TYPE: usize = 255;
/// Bytes read of the body of an error.
const MAX_ERROR: usize = 64 * 1024;
/// Bytes of a registry's text that are put into an error message.
const MAX_SHOWN: usize = 300;
/// The longest pause that a registry may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);

/// The manifest that a tag points to (OCI image specification, "descriptor").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The media type, as stated by the registry.
    pub media_type: Option<String>,
    /// The size in bytes.
    pub size: Option<u64>,
}

/// Reads the descriptor from the headers. `None`: no header names the digest.
pub(crate) fn described(response: &Response) -> Result<Option<Descriptor>, AskError> {
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let Some(digest) = header(DIGEST).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let digest: Digest = digest.parse().map_err(|error| {
        AskError::Failed(format!(
            "its Docker-Content-Digest header is not a digest: {error}"
        ))
    })?;
    // A HEAD response states the length of the manifest without sending it.
    let size = header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
    Ok(Some(Descriptor {
        digest,
        media_type: media_type(response),
        size: size.filter(|size| *size > 0),
    }))
}

/// Reads a manifest and hashes it. If the headers name a digest, the hash must match.
pub(crate) async fn hashed(response: Response, largest: usize) -> Result<Descriptor, AskError> {
    let named = described(&response)?;
    let media_type = media_type(&response);
    let body = body(response, largest).await?;
    let size = Some(body.len() as u64);
    if body.len() > largest {
        return Err(AskError::Failed(format!(
            "the manifest is larger than {} MiB",
            largest >> 20
        )));
    }
    let digest = match &named {
        Some(named) if named.digest.algorithm() == Algorithm::Sha512 => Digest::sha512_of(&body),
        _ => Digest::sha256_of(&body),
    };
    if let Some(named) = named.filter(|named| named.digest != digest) {
        return Err(AskError::Failed(format!(
            "the registry says that the manifest is {}, but its bytes are {digest}",
            named.digest
        )));
    }
    Ok(Descriptor {
        digest,
        media_type,
        size,
    })
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The target of a redirect; `response` is the answer from `url`.
pub(crate) fn location(response: &Response, url: &Url) -> Result<Url, AskError> {
    let location = response.headers().get(LOCATION);
    location
        .and_then(|value| url.join(value.to_str().ok()?).ok())
        .ok_or_else(|| AskError::Refused("the registry redirects to nowhere".to_owned()))
}

/// The error for a chain of redirects that is too long.
pub(crate) fn redirects_on() -> AskError {
    AskError::Refused(format!(
        "the registry redirects more than {MAX_REDIRECTS} times"
    ))
}

/// Checks that a 404 means a missing tag or digest. Registries also answer 404 when access is
/// denied, and proxies when no registry is behind them.
pub(crate) async fn absent(response: Response) -> Result<(), AskError> {
    let body = body(response, MAX_ERROR).await?;
    let error = serde_json::from_slice::<ErrorBody>(&body).ok();
    let unknown = |one: &ErrorEntry| {
        matches!(
            one.code.as_str(),
            "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN" | "NOT_FOUND"
        )
    };
    // An empty object names no other cause; simple registries send it.
    let is_empty = body.trim_ascii() == b"{}";
    if is_empty || error.is_some_and(|error| error.errors.iter().any(unknown)) {
        return Ok(());
    }
    Err(AskError::Refused(format!(
        "the registry answers 404 without the error code for an unknown tag or digest: check url, and that username and password may read{}",
        shown(&body)
    )))
}

/// Converts an answer with any other status to an error.
pub(crate) async fn refusal(response: Response) -> AskError {
    let status = response.status();
    let after = pause(&response);
    let body = body(response, MAX_ERROR).await.unwrap_or_default();
    let detail = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(ErrorBody { errors }) if !errors.is_empty() => {
            let each = errors
                .iter()
                .map(|one| format!("{} {}", one.code, one.message));
            format!(
                ": {}",
                clean_text(&each.collect::<Vec<_>>().join("; "), MAX_SHOWN)
            )
        }
        _ => shown(&body),
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS => AskError::Busy { after },
        StatusCode::SERVICE_UNAVAILABLE if after.is_some() => AskError::Busy { after },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => AskError::Refused(format!(
            "the registry denies access ({status}): check username and password{detail}"
        )),
        _ if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
            AskError::Refused(format!("the registry answers {status}{detail}"))
        }
        _ => AskError::Failed(format!("the registry answers {status}{detail}")),
    }
}

/// The pause of a `Retry-After` header: seconds, or a date (RFC 9110, section 10.2.3).
fn pause(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            Duration::try_from(http_date(text)? - OffsetDateTime::now_utc()).unwrap_or_default()
        }
    };
    Some(pause.min(MAX_PAUSE))
}

/// Parses an HTTP date: an RFC 2822 date with the zone GMT.
pub(crate) fn http_date(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok()
}

/// The media type that the headers state, without parameters.
pub(crate) fn media_type(response: &Response) -> Option<String> {
    let text = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    let bare = text.split(';').next()?.trim();
    (!bare.is_empty()).then(|| clean_text(bare, MAX_MEDIA_TYPE))
}

fn shown(body: &[u8]) -> String {
    let text = clean_text(&String::from_utf8_lossy(body), MAX_SHOWN);
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}

/// Reads a body. Stops soon after `most` bytes, so a larger body is longer than `most`.
pub(crate) async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, AskError> {
    let mut body = Vec::new();
    while body.len() <= most {
        match response.chunk().await? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    Ok(body)
}
