//! Asks an OCI registry what a tag points to.
//!
//! In scope: one question, "which digest has this tag?", by the OCI distribution specification 1.1, with the authentication
//! that registries really use (none, Basic, bearer tokens), verified (bytes are hashed where the registry does not name the
//! digest, and compared where it does), bounded (time, size, requests at once) and patient (`Retry-After`).
//!
//! Out of scope: when to ask and what follows (the resolver).
//!
//! Everything that a registry says is hostile. Only configured registries are asked, at their configured URL. A redirect is
//! followed only within that origin; a token is fetched, and credentials are shown, only there and at the configured `realm`.

mod answer;
mod auth;
mod error;

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use tagtrail_config::{ConfigError, File, RegistryAccess};
use tagtrail_proto::{Digest, Repository, Tag};
use tokio::sync::Semaphore;

use auth::{Auth, Challenge};
pub use error::AskError;

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

/// A configured registry. All its users share its connections, its tokens and its bound on requests at once.
#[derive(Debug)]
pub struct Registry {
    base: Url,
    client: Client,
    auth: Auth,
    at_once: Semaphore,
}

/// Every media type of a manifest that a tag may point to. What is not named here some registries convert, to another digest.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, application/vnd.docker.distribution.manifest.v1+prettyjws, \
     application/vnd.docker.distribution.manifest.v1+json;q=0.5";

/// Time for one exchange.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Requests at once, per registry.
const AT_ONCE: usize = 4;
/// The largest manifest that registries take is 4 MiB.
const LARGEST: usize = 4 * 1024 * 1024;
/// Redirects followed, within the registry's origin.
const REDIRECTS: usize = 3;

impl Registry {
    /// A registry as it is configured.
    ///
    /// # Errors
    /// What is wrong with its entry, with its line and the cure.
    pub fn new(file: &File, access: &RegistryAccess) -> Result<Registry, ConfigError> {
        let wrong = |at: usize, key: &str, message: String| file.error_at(at, key, message);
        let url = |key: &str, url: &tagtrail_config::Spanned<String>| {
            let parsed = Url::parse(url.get_ref()).ok();
            parsed
                .filter(|url| url.has_host() && url.query().is_none() && url.username().is_empty())
                .ok_or_else(|| {
                    let message = "is not a URL such as https://registry.example.com (user and password go into keys of their own)";
                    wrong(url.span().start, key, message.to_owned())
                })
        };
        let mut base = url("registry.url", &access.url)?;
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let realm = match &access.realm {
            Some(realm) => Some(url("registry.realm", realm)?),
            None => None,
        };
        let password = match &access.password {
            Some(secret) => Some(secret.read().map_err(|error| {
                let message = tagtrail_daemon::chain(&error);
                wrong(access.name.span().start, "registry.password", message)
            })?),
            None => None,
        };
        let credentials = access.username.clone().zip(password);
        let client = Client::builder()
            // Redirects are followed by hand, where they may go.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("tagtrail/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                let message = format!("can't make an HTTP client: {error}");
                wrong(access.name.span().start, "registry.url", message)
            })?;
        Ok(Registry {
            auth: Auth::new(&base, realm.as_ref(), credentials),
            base,
            client,
            at_once: Semaphore::new(AT_ONCE),
        })
    }

    /// Which manifest a tag points to now. `None`: the registry says that there is no such tag.
    ///
    /// # Errors
    /// [`AskError`] says whether asking again may help, and when.
    pub async fn resolve(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Descriptor>, AskError> {
        let _turn = self
            .at_once
            .acquire()
            .await
            .map_err(|_| AskError::Failed("the registry is closed".to_owned()))?;
        let url = self.manifest(repository, tag)?;
        let head = self.ask(Method::HEAD, &url, repository).await?;
        let status = head.status();
        if status == StatusCode::OK {
            if let Some(descriptor) = answer::described(&head)? {
                return Ok(Some(descriptor));
            }
        } else if status == StatusCode::TOO_MANY_REQUESTS
            || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        {
            return Err(answer::refusal(head).await);
        }
        // Some do not name the digest, some can't HEAD; and what a refusal means stands in its body, which a HEAD has not.
        let get = self.ask(Method::GET, &url, repository).await?;
        match get.status() {
            StatusCode::OK => answer::hashed(get, LARGEST).await.map(Some),
            StatusCode::NOT_FOUND => answer::absent(get).await.map(|()| None),
            _ => Err(answer::refusal(get).await),
        }
    }

    fn manifest(&self, repository: &Repository, tag: &Tag) -> Result<Url, AskError> {
        // Both are within their grammar: nothing in them leaves the path.
        let path = format!("v2/{repository}/manifests/{tag}");
        self.base
            .join(&path)
            .map_err(|_| AskError::Refused("its URL can't be joined with a path".to_owned()))
    }

    /// Sends a question, with a token or a password once it is asked for one, and follows redirects within the origin.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        repository: &Repository,
    ) -> Result<Response, AskError> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let mut response = self.send(&method, &url, repository).await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                let challenges = response.headers().get_all(WWW_AUTHENTICATE);
                let challenge =
                    Challenge::choose(challenges.iter().filter_map(|value| value.to_str().ok()));
                self.auth
                    .answer(&self.client, challenge, repository)
                    .await?;
                response = self.send(&method, &url, repository).await?;
                if response.status() == StatusCode::UNAUTHORIZED {
                    self.auth.forget(repository).await;
                    return Err(answer::refusal(response).await);
                }
            }
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION);
            let next = location.and_then(|value| url.join(value.to_str().ok()?).ok());
            let next =
                next.ok_or_else(|| AskError::Refused("it redirects to nowhere".to_owned()))?;
            if next.origin() != self.base.origin() {
                return Err(AskError::Refused(format!(
                    "it redirects to another host, {}, which is not followed: configure the URL that it redirects to",
                    next.host_str().unwrap_or("?")
                )));
            }
            url = next;
        }
        Err(AskError::Refused(format!(
            "it redirects more than {REDIRECTS} times"
        )))
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        repository: &Repository,
    ) -> Result<Response, AskError> {
        let mut request = self
            .client
            .request(method.clone(), url.clone())
            .header(ACCEPT, MANIFESTS);
        if let Some(value) = self.auth.header(repository).await {
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(AskError::from)
    }
}

/// For the fuzz targets in `fuzz/`: what is made of an answer, without a registry.
#[cfg(fuzzing)]
pub mod fuzz {
    use reqwest::Response;

    use super::{AskError, Challenge, Descriptor, answer};

    /// Takes an answer as that to each question that is asked.
    pub async fn answers(
        answer: impl Fn() -> Response,
    ) -> (
        Result<Option<Descriptor>, AskError>,
        Result<Descriptor, AskError>,
    ) {
        let head = answer();
        let values = head.headers().get_all(reqwest::header::WWW_AUTHENTICATE);
        let _ = Challenge::choose(values.iter().filter_map(|value| value.to_str().ok()));
        let _ = answer::absent(answer()).await;
        let refusal = answer::refusal(answer()).await.to_string();
        assert!(refusal.len() < 4096, "{refusal}");
        (
            answer::described(&head),
            answer::hashed(answer(), 64 * 1024).await,
        )
    }
}
