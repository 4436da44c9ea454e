//! What a registry's answer says, and whether it can be believed.

use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tagtrail_proto::{Algorithm, Digest, clean_text};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::error::AskError;

/// Redirects followed, within the registry's origin.
pub(crate) const MAX_REDIRECTS: usize = 3;
const DIGEST: &str = "docker-content-digest";
/// Longer than any media type.
const MAX_MEDIA_TYPE: usize = 255;
/// What is read of an error's body.
const MAX_ERROR: usize = 64 * 1024;
/// What is shown of what a registry says.
const MAX_SHOWN: usize = 300;
/// No pause is longer.
const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What a registry holds under a tag (OCI image specification, "descriptor").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Which manifest.
    pub digest: Digest,
    /// Its media type, as the registry says.
    pub media_type: Option<String>,
    /// Its size in bytes.
    pub size: Option<u64>,
}

/// What the headers say. `None`: they do not name the digest.
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
    let digest: Digest = digest
        .parse()
        .map_err(|error| AskError::Failed(format!("it names no digest: {error}")))?;
    // A HEAD has the length of what it does not send.
    let size = header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
    Ok(Some(Descriptor {
        digest,
        media_type: media_type(response),
        size: size.filter(|size| *size > 0),
    }))
}

/// Reads the manifest and hashes it; where the headers name a digest it must be that.
pub(crate) async fn hashed(response: Response, largest: usize) -> Result<Descriptor, AskError> {
    let named = described(&response)?;
    let media_type = media_type(&response);
    let body = body(response, largest).await?;
    let size = Some(body.len() as u64);
    if body.len() > largest {
        return Err(AskError::Failed(format!(
            "the manifest has more than {} MiB",
            largest >> 20
        )));
    }
    let digest = match &named {
        Some(named) if named.digest.algorithm() == Algorithm::Sha512 => Digest::sha512_of(&body),
        _ => Digest::sha256_of(&body),
    };
    if let Some(named) = named.filter(|named| named.digest != digest) {
        return Err(AskError::Failed(format!(
            "it says that the manifest is {}, but its bytes are {digest}",
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

/// Where a redirect of the answer from `url` leads.
pub(crate) fn location(response: &Response, url: &Url) -> Result<Url, AskError> {
    let location = response.headers().get(LOCATION);
    location
        .and_then(|value| url.join(value.to_str().ok()?).ok())
        .ok_or_else(|| AskError::Refused("it redirects to nowhere".to_owned()))
}

/// It redirects without an end.
pub(crate) fn redirects_on() -> AskError {
    AskError::Refused(format!("it redirects more than {MAX_REDIRECTS} times"))
}

/// Whether a 404 really says that there is no such tag or digest: registries answer it too where one may not look, and proxies where
/// there is no registry at all.
pub(crate) async fn absent(response: Response) -> Result<(), AskError> {
    let body = body(response, MAX_ERROR).await?;
    let said = serde_json::from_slice::<ErrorBody>(&body).ok();
    let unknown = |one: &ErrorEntry| {
        matches!(
            one.code.as_str(),
            "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN" | "NOT_FOUND"
        )
    };
    if said.is_some_and(|said| said.errors.iter().any(unknown)) {
        return Ok(());
    }
    Err(AskError::Refused(format!(
        "it answers 404, but not as a registry says that a tag or digest is unknown: check url, and whether username and password may read{}",
        shown(&body)
    )))
}

/// What any other status means.
pub(crate) async fn refusal(response: Response) -> AskError {
    let status = response.status();
    let after = pause(&response);
    let body = body(response, MAX_ERROR).await.unwrap_or_default();
    let said = match serde_json::from_slice::<ErrorBody>(&body) {
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
            "it does not let us read ({status}): check username and password{said}"
        )),
        _ if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
            AskError::Refused(format!("it answers {status}{said}"))
        }
        _ => AskError::Failed(format!("it answers {status}{said}")),
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
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

/// An HTTP date is an RFC 2822 date with the zone GMT.
pub(crate) fn http_date(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok()
}

/// As the headers say, without parameters.
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

/// Reads a body, and a little more than `most` of one that is larger.
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
