//! The client of a registry, and the digest of a tag.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, IF_NONE_MATCH, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use secrecy::ExposeSecret as _;
use tagtrail_config::{ConfigError, File, Fresh, RegistryAccess};
use tagtrail_daemon::Route;
use tagtrail_proto::{Digest, Repository, Tag};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::answer::{self, Descriptor, MAX_REDIRECTS};
use crate::auth::{Auth, Challenge};
use crate::breaker::Breaker;
use crate::error::AskError;

/// The state of a tag, compared with an expected digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The tag has the expected digest.
    Same,
    /// The tag has another digest.
    Other(Descriptor),
    /// The registry has no such tag.
    Absent,
}

/// A client of a configured registry. All users share its connections, its tokens, its limit of
/// concurrent requests, and its circuit breaker.
#[derive(Debug)]
pub struct RegistryClient {
    name: String,
    pub(crate) breaker: Mutex<Breaker>,
    pub(crate) base: Url,
    pub(crate) client: Client,
    pub(crate) auth: Auth,
    pub(crate) requests: Semaphore,
    pub(crate) content_requests: Semaphore,
    /// The reason for which no request can be made, until the entry is repaired.
    broken: Option<String>,
}

/// The media types of all manifests that a tag may point to. A registry may convert a manifest
/// whose type is missing here, which changes the digest.
pub(crate) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, application/vnd.docker.distribution.manifest.v1+prettyjws, \
     application/vnd.docker.distribution.manifest.v1+json;q=0.5";

/// Time-out of a request.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Concurrent requests to a registry.
const MAX_REQUESTS: usize = 4;
/// Concurrent requests for content; the rest stays free for questions about tags.
const MAX_CONTENT_REQUESTS: usize = 2;
/// Bytes of a manifest. Registries accept manifests of at most 4 MiB.
pub(crate) const MAX_MANIFEST: usize = 4 * 1024 * 1024;

/// Returns the way to the registry.
fn route(file: &File, access: &RegistryAccess) -> Result<Route, ConfigError> {
    let wrong = |key: &str, message: String| file.error_at(access.name.span().start, key, message);
    let mut route = Route::default();
    if let Some(ca) = &access.ca {
        let pem = ca.read().map_err(|error| error.to_string());
        let trusting = pem.and_then(|pem| route.trusting(pem.expose_secret()));
        route = trusting.map_err(|message| wrong("registry.ca", message))?;
    }
    if let Some(proxy) = &access.proxy {
        let proxy = proxy.read().map_err(|error| error.to_string());
        let via = proxy.and_then(|proxy| route.via(proxy.expose_secret()));
        route = via.map_err(|message| wrong("registry.proxy", message))?;
    }
    Ok(route)
}

/// A request to the registry, apart from its URL.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// The repository that the credentials are for.
    pub(crate) repository: &'a Repository,
    /// The media types of the header `Accept`.
    pub(crate) accept: &'static str,
    /// With a known digest the request is conditional.
    pub(crate) known: Option<&'a Digest>,
}

impl<'a> Request<'a> {
    /// Returns an unconditional GET.
    pub(crate) fn get(repository: &'a Repository, accept: &'static str) -> Request<'a> {
        Request {
            method: Method::GET,
            repository,
            accept,
            known: None,
        }
    }
}

impl RegistryClient {
    /// Builds the client of a configured registry.
    ///
    /// # Errors
    /// A wrong entry: the error names line and cure.
    pub fn new(file: &File, access: &RegistryAccess) -> Result<RegistryClient, ConfigError> {
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
            Some(secret) => {
                let (of, place) = (
                    format!("registry {}", access.name.get_ref()),
                    secret.clone(),
                );
                let make = move || place.read().map_err(|error| tagtrail_daemon::chain(&error));
                let password = Fresh::new(of, vec![secret.clone()], make);
                Some(password.map_err(|message| {
                    wrong(access.name.span().start, "registry.password", message)
                })?)
            }
            None => None,
        };
        let credentials = access.username.clone().zip(password);
        // `ask` follows redirects, within the origin.
        let client = route(file, access)?.build(TIMEOUT).map_err(|message| {
            let key = "registry.url";
            wrong(access.name.span().start, key, message)
        })?;
        Ok(RegistryClient {
            name: access.name.get_ref().to_string(),
            breaker: Mutex::default(),
            auth: Auth::new(&base, realm.as_ref(), credentials),
            base,
            client,
            requests: Semaphore::new(MAX_REQUESTS),
            content_requests: Semaphore::new(MAX_CONTENT_REQUESTS),
            broken: None,
        })
    }

    /// Returns the client of a registry that can't be asked for this reason: each question fails
    /// as if the registry were away. `None` for text that is no name of a registry.
    #[must_use]
    pub fn broken(name: &str, problem: &ConfigError) -> Option<RegistryClient> {
        let base = Url::parse(&format!("https://{name}/")).ok()?;
        Some(RegistryClient {
            name: name.to_owned(),
            breaker: Mutex::default(),
            auth: Auth::new(&base, None, None),
            base,
            client: Client::new(),
            requests: Semaphore::new(MAX_REQUESTS),
            content_requests: Semaphore::new(MAX_CONTENT_REQUESTS),
            broken: Some(problem.to_string()),
        })
    }

    /// Returns the manifest that a tag points to now. `None`: the registry has no such tag.
    ///
    /// # Errors
    /// [`AskError`] says whether to retry, and when.
    pub async fn resolve(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Descriptor>, AskError> {
        Ok(match self.compare(repository, tag, None).await? {
            Found::Other(descriptor) => Some(descriptor),
            Found::Same | Found::Absent => None,
        })
    }

    /// Compares a tag with the digest that history has. The request is conditional
    /// (`If-None-Match`), so registries that support the header have next to no work.
    ///
    /// # Errors
    /// [`AskError`] says whether to retry, and when.
    pub async fn compare(
        &self,
        repository: &Repository,
        tag: &Tag,
        known: Option<&Digest>,
    ) -> Result<Found, AskError> {
        let url = self.manifest(repository, tag)?;
        let found = self.question(self.head_or_get(&url, repository, known));
        Ok(match found.await? {
            Found::Other(found) if Some(&found.digest) == known => Found::Same,
            found => found,
        })
    }

    /// Returns the time for which no request is sent, because earlier ones failed or the registry
    /// asked for a pause.
    #[must_use]
    pub fn resting(&self) -> Option<Duration> {
        let breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        breaker.resting(Instant::now())
    }

    /// Waits for a free place, then asks unless the breaker is open, and records the result in the
    /// breaker.
    pub(crate) async fn question<T>(
        &self,
        question: impl Future<Output = Result<T, AskError>>,
    ) -> Result<T, AskError> {
        let _turn = self
            .requests
            .acquire()
            .await
            .map_err(|_| AskError::Failed("the registry is closed".to_owned()))?;
        let breaker = || self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(rest) = breaker().admit(Instant::now()) {
            return Err(AskError::Resting { rest });
        }
        let answer = question.await;
        let now = Instant::now();
        match &answer {
            Ok(_) | Err(AskError::Refused(_) | AskError::Resting { .. }) => breaker().answered(),
            Err(AskError::Busy { after }) => breaker().rest(now, after.unwrap_or_default()),
            Err(AskError::Failed(why)) => {
                if let Some(pause) = breaker().failed(now) {
                    tracing::warn!(
                        registry = self.name,
                        "pausing requests to {} for {pause:.0?}: {why}",
                        self.name
                    );
                }
            }
        }
        answer
    }

    async fn head_or_get(
        &self,
        url: &Url,
        repository: &Repository,
        known: Option<&Digest>,
    ) -> Result<Found, AskError> {
        let head = Request {
            method: Method::HEAD,
            known,
            ..Request::get(repository, MANIFESTS)
        };
        let head = self.ask(url, &head).await?;
        let status = head.status();
        if status == StatusCode::OK {
            if let Some(descriptor) = answer::described(&head)? {
                return Ok(Found::Other(descriptor));
            }
        } else if status == StatusCode::NOT_MODIFIED && known.is_some() {
            return Ok(Found::Same);
        } else if status == StatusCode::TOO_MANY_REQUESTS
            || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        {
            return Err(answer::refusal(head).await);
        }
        // Some registries do not name the digest and some do not support HEAD. The cause of a
        // refusal is in its body, which the answer to a HEAD lacks.
        let get = self.ask(url, &Request::get(repository, MANIFESTS)).await?;
        match get.status() {
            StatusCode::OK => answer::hashed(get, MAX_MANIFEST).await.map(Found::Other),
            StatusCode::NOT_FOUND => answer::absent(get).await.map(|()| Found::Absent),
            _ => Err(answer::refusal(get).await),
        }
    }

    fn manifest(&self, repository: &Repository, tag: &Tag) -> Result<Url, AskError> {
        // The grammar of both names allows nothing that leaves the path.
        self.url(&format!("v2/{repository}/manifests/{tag}"))
    }

    pub(crate) fn url(&self, path: &str) -> Result<Url, AskError> {
        self.base.join(path).map_err(|_| {
            AskError::Refused("the configured url can't be joined with a path".to_owned())
        })
    }

    /// Sends a request, authenticates if the registry asks for it, and follows redirects within the
    /// origin.
    pub(crate) async fn ask(&self, url: &Url, request: &Request<'_>) -> Result<Response, AskError> {
        if let Some(problem) = &self.broken {
            let why = format!("the registry is not asked until its entry is right: {problem}");
            return Err(AskError::Failed(why));
        }
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.exchange(&url, request).await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED
            {
                return Ok(response);
            }
            let next = answer::location(&response, &url)?;
            if next.origin() != self.base.origin() {
                return Err(AskError::Refused(format!(
                    "the registry redirects to another host, {}, which is not followed: configure the URL that it redirects to",
                    next.host_str().unwrap_or("?")
                )));
            }
            url = next;
        }
        Err(answer::redirects_on())
    }

    /// Sends a request, and authenticates if the registry asks for it. Follows no redirect.
    pub(crate) async fn exchange(
        &self,
        url: &Url,
        request: &Request<'_>,
    ) -> Result<Response, AskError> {
        let response = self.send(url, request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge =
            Challenge::choose(challenges.iter().filter_map(|value| value.to_str().ok()));
        self.auth
            .answer(&self.client, challenge, request.repository)
            .await?;
        let response = self.send(url, request).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.auth.forget(request.repository).await;
            return Err(answer::refusal(response).await);
        }
        Ok(response)
    }

    async fn send(&self, url: &Url, request: &Request<'_>) -> Result<Response, AskError> {
        let mut builder = self
            .client
            .request(request.method.clone(), url.clone())
            .header(ACCEPT, request.accept);
        if let Some(known) = request.known {
            // An ETag is in quotes (RFC 9110, section 8.8.3), and registries use the digest as
            // ETag.
            builder = builder.header(IF_NONE_MATCH, format!("\"{known}\""));
        }
        if let Some(value) = self.auth.header(request.repository).await {
            builder = builder.header(AUTHORIZATION, value);
        }
        builder.send().await.map_err(AskError::from)
    }
}
