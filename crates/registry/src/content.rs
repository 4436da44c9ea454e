//! Reading content by its digest. The bytes are checked, so it does not matter who delivers them; whom we ask for them does.

use std::net::IpAddr;
use std::sync::PoisonError;

use reqwest::{Method, Response, StatusCode, Url};
use tagtrail_proto::{Algorithm, Digest, Repository};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use crate::answer::{self, MAX_REDIRECTS};
use crate::client::{MAX_MANIFEST, RegistryClient};
use crate::error::AskError;

/// The largest blob that is read: a config, never a layer.
const MAX_BLOB: usize = 1024 * 1024;

/// Content that is what its digest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its media type, as the registry says.
    pub media_type: Option<String>,
}

/// The right to send a request for content.
struct Turn<'a> {
    _reading: SemaphorePermit<'a>,
    _asking: SemaphorePermit<'a>,
}

impl RegistryClient {
    /// Reads a manifest, of at most 4 MiB. `None`: the registry says that it has none of this digest.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::Refused`] also for bytes that are not what was asked for.
    pub async fn read_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Content>, AskError> {
        let _turn = self.turn_to_read().await?;
        let url = self.content("manifests", repository, digest)?;
        let response = self.ask(Method::GET, &url, repository, None).await?;
        checked(response, MAX_MANIFEST, digest).await
    }

    /// Reads a blob, of at most 1 MiB: the config of an image. `None`: the registry says that it has none of this digest.
    ///
    /// Registries keep blobs elsewhere, so a redirect to another host is followed, without credentials, over HTTPS.
    ///
    /// # Errors
    /// As [`RegistryClient::read_manifest`].
    pub async fn read_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Content>, AskError> {
        let _turn = self.turn_to_read().await?;
        let mut url = self.content("blobs", repository, digest)?;
        // Whoever is elsewhere once is nobody that we show anything to, wherever they send us.
        let mut elsewhere = false;
        for _ in 0..=MAX_REDIRECTS {
            let response = if elsewhere {
                self.client.get(url.clone()).send().await?
            } else {
                self.exchange(&Method::GET, &url, repository, "*/*", None)
                    .await?
            };
            if !response.status().is_redirection() {
                return checked(response, MAX_BLOB, digest).await;
            }
            let next = answer::location(&response, &url)?;
            if next.origin() != self.base.origin() {
                if !may_fetch(&self.base, &next) {
                    return Err(AskError::Refused(format!(
                        "it redirects to {}, where no blob is fetched: only over https, and not to addresses of a network",
                        next.origin().ascii_serialization()
                    )));
                }
                elsewhere = true;
            }
            url = next;
        }
        Err(answer::redirects_on())
    }

    /// Waits for a turn. Reading leaves turns to those who ask what a tag is: they are waited for. It tells them nothing of the
    /// registry's health either: that content can't be had, or only so much of it, is no reason not to ask about tags.
    async fn turn_to_read(&self) -> Result<Turn<'_>, AskError> {
        let closed = |_| AskError::Failed("the registry is closed".to_owned());
        let turn = Turn {
            _reading: self.content_requests.acquire().await.map_err(closed)?,
            _asking: self.requests.acquire().await.map_err(closed)?,
        };
        let breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        match breaker.resting(Instant::now()) {
            Some(rest) => Err(AskError::Resting { rest }),
            None => Ok(turn),
        }
    }

    fn content(
        &self,
        kind: &str,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Url, AskError> {
        // Within their grammar: nothing in them leaves the path.
        self.url(&format!("v2/{repository}/{kind}/{digest}"))
    }
}

/// The content of an answer, if it is that of the digest.
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
    // Neither gets better by asking again: what a digest is never changes.
    if bytes.len() > largest {
        return Err(AskError::Refused(format!(
            "{digest} has more than {} MiB",
            largest >> 20
        )));
    }
    let found = match digest.algorithm() {
        Algorithm::Sha256 => Digest::sha256_of(&bytes),
        Algorithm::Sha512 => Digest::sha512_of(&bytes),
    };
    if found != *digest {
        return Err(AskError::Refused(format!(
            "asked for {digest}, it answers with bytes that are {found}"
        )));
    }
    Ok(Some(Content { bytes, media_type }))
}

/// Whether a blob may be fetched where a registry says that it is. The bytes prove themselves; what matters is whom we ask, since the
/// registry chooses it: nobody on this machine or a network of ours who takes a request as an order.
fn may_fetch(registry: &Url, at: &Url) -> bool {
    let safe = match at.scheme() {
        "https" => true,
        "http" => registry.scheme() == "http" && registry.host_str() == at.host_str(),
        _ => false,
    };
    safe && (!is_local(at) || is_local(registry))
}

/// Whether a URL names a machine by its address, or this one.
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
    fn blobs_are_fetched_where_a_stranger_may_send_us_and_nowhere_else() {
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
