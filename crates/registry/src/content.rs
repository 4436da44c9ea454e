//! Reads content by its digest. The digest proves the bytes, so any host may deliver them; the
//! hosts to which we send a request are restricted.

use std::net::IpAddr;

use reqwest::{Response, StatusCode, Url};
use tagtrail_proto::{Algorithm, Digest, Repository};
use tokio::sync::SemaphorePermit;

use crate::answer::{self, MAX_REDIRECTS};
use crate::client::{MANIFESTS, MAX_MANIFEST, RegistryClient, Request};
use crate::error::AskError;

/// Bytes of a blob: the config of an image, never a layer.
const MAX_BLOB: usize = 1024 * 1024;

/// Content that matches its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The media type, as stated by the registry.
    pub media_type: Option<String>,
}

/// A permit to send a request for content.
struct ContentPermit<'a> {
    _reading: SemaphorePermit<'a>,
    _asking: SemaphorePermit<'a>,
}

impl RegistryClient {
    /// Reads a manifest of at most 4 MiB. `None`: the registry does not have the digest.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::Refused`] also for bytes that do not match the digest.
    pub async fn read_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Content>, AskError> {
        let _permit = self.content_permit().await?;
        let url = self.content("manifests", repository, digest)?;
        let response = self.ask(&url, &Request::get(repository, MANIFESTS)).await?;
        checked(response, MAX_MANIFEST, digest).await
    }

    /// Reads a blob of at most 1 MiB: the config of an image. `None`: the registry does not have
    /// the digest.
    ///
    /// Registries keep blobs in object stores, so a redirect to another host is followed: over
    /// HTTPS, and without credentials.
    ///
    /// # Errors
    /// As [`RegistryClient::read_manifest`].
    pub async fn read_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Content>, AskError> {
        let _permit = self.content_permit().await?;
        let mut url = self.content("blobs", repository, digest)?;
        // After a redirect to another host, all further requests go without credentials, even if
        // that host redirects back to the registry.
        let mut elsewhere = false;
        for _ in 0..=MAX_REDIRECTS {
            let response = if elsewhere {
                self.client.get(url.clone()).send().await?
            } else {
                self.exchange(&url, &Request::get(repository, "*/*"))
                    .await?
            };
            if !response.status().is_redirection() {
                return checked(response, MAX_BLOB, digest).await;
            }
            let next = answer::location(&response, &url)?;
            if next.origin() != self.base.origin() {
                if !may_fetch(&self.base, &next) {
                    return Err(AskError::Refused(format!(
                        "the registry redirects to {}, where no blob is fetched: blobs are fetched only over https, and from no IP address or localhost",
                        next.origin().ascii_serialization()
                    )));
                }
                elsewhere = true;
            }
            url = next;
        }
        Err(answer::redirects_on())
    }

    /// Waits for a permit. Fewer permits exist for content than for requests in all, because
    /// answers about tags are more urgent. Results are not recorded in the breaker: a registry that
    /// fails to deliver content may still answer questions about tags.
    async fn content_permit(&self) -> Result<ContentPermit<'_>, AskError> {
        let closed = |_| AskError::Failed("the registry is closed".to_owned());
        let permit = ContentPermit {
            _reading: self.content_requests.acquire().await.map_err(closed)?,
            _asking: self.requests.acquire().await.map_err(closed)?,
        };
        match self.resting() {
            Some(rest) => Err(AskError::Resting { rest }),
            None => Ok(permit),
        }
    }

    fn content(
        &self,
        kind: &str,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Url, AskError> {
        // The grammar of the names allows nothing that leaves the path.
        self.url(&format!("v2/{repository}/{kind}/{digest}"))
    }
}

/// Returns the content of an answer, if the digest matches.
async fn checked(
    response: Response,
    largest: usize,
    digest: &Digest,
) -> Result<Option<Content>, AskError> {
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return answer::absent(response).await.map(|()| None),
        _ => return Err(answer::refusal(response).await),
    }
    let media_type = answer::media_type(&response);
    let bytes = answer::body(response, largest).await?;
    // Neither error can pass: the content of a digest never changes.
    if bytes.len() > largest {
        return Err(AskError::Refused(format!(
            "{digest} is larger than {} MiB",
            largest >> 20
        )));
    }
    let found = match digest.algorithm() {
        Algorithm::Sha256 => Digest::sha256_of(&bytes),
        Algorithm::Sha512 => Digest::sha512_of(&bytes),
    };
    if found != *digest {
        return Err(AskError::Refused(format!(
            "asked for {digest}, the registry answers with bytes that are {found}"
        )));
    }
    Ok(Some(Content { bytes, media_type }))
}

/// Returns true if a blob may be fetched from the target of a redirect. The digest proves the
/// bytes, but the registry chooses the host, which must not make us send requests to this machine
/// or to an internal network, where a request may act as a command.
fn may_fetch(registry: &Url, at: &Url) -> bool {
    let safe = match at.scheme() {
        "https" => true,
        "http" => registry.scheme() == "http" && registry.host_str() == at.host_str(),
        _ => false,
    };
    safe && (!is_local(at) || is_local(registry))
}

/// Returns true if the host of a URL is an IP address or localhost.
fn is_local(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return true;
    };
    let host = host.trim_end_matches('.');
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_fetched_from_public_hosts_over_https_only() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (registry, at, may) in [
            (
                "https://r.example.com",
                "https://cdn.example.net/x?sig=1",
                true,
            ),
            ("https://r.example.com", "http://cdn.example.net/x", false),
            ("https://r.example.com", "http://r.example.com/x", false),
            ("https://r.example.com", "ftp://cdn.example.net/x", false),
            ("https://r.example.com", "file:///etc/passwd", false),
            ("https://r.example.com", "https://169.254.169.254/x", false),
            ("https://r.example.com", "https://0x7f000001/x", false),
            ("https://r.example.com", "https://[::1]/x", false),
            (
                "https://r.example.com",
                "https://[::ffff:10.0.0.1]/x",
                false,
            ),
            ("https://r.example.com", "https://localhost/x", false),
            ("https://r.example.com", "https://localhost./x", false),
            ("https://r.example.com", "https://a.localhost/x", false),
            ("http://registry:5000", "http://registry:9000/x", true),
            ("http://registry:5000", "http://minio:9000/x", false),
            ("http://registry:5000", "https://cdn.example.net/x", true),
            ("http://127.0.0.1:5000", "http://127.0.0.1:9000/x", true),
            ("http://127.0.0.1:5000", "http://127.0.0.2:9000/x", false),
            ("https://10.0.0.5", "https://10.0.0.6/x", true),
        ] {
            assert_eq!(may_fetch(&url(registry), &url(at)), may, "{registry} {at}");
        }
    }
}
