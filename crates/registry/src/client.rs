//! The client of one registry: which manifest has a tag now?

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, IF_NONE_MATCH, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use tagtrail_config::{ConfigError, File, RegistryAccess};
use tagtrail_proto::{Digest, Repository, Tag};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::answer::{self, Descriptor, MAX_REDIRECTS};
use crate::auth::{Auth, Challenge};
use crate::breaker::Breaker;
use crate::error::AskError;

/// What a tag was found to be, by who knew what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// What was known.
    Same,
    /// Something else.
    Other(Descriptor),
    /// Nothing: there is no such tag.
    Absent,
}

/// A configured registry. All its users share its connections, its tokens, its bound on requests at once, and what is known of
/// its health: one that fails again and again is left alone for a while.
#[derive(Debug)]
pub struct RegistryClient {
    name: String,
    pub(crate) breaker: Mutex<Breaker>,
    pub(crate) base: Url,
    pub(crate) client: Client,
    pub(crate) auth: Auth,
    pub(crate) requests: Semaphore,
    pub(crate) content_requests: Semaphore,
}

/// Every media type of a manifest that a tag may point to. What is not named here some registries convert, to another digest.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, application/vnd.docker.distribution.manifest.v1+prettyjws, \
     application/vnd.docker.distribution.manifest.v1+json;q=0.5";

/// Time for one exchange.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Requests at once, per registry.
const MAX_REQUESTS: usize = 4;
/// Those of them that may be for content.
const MAX_CONTENT_REQUESTS: usize = 2;
/// The largest manifest that registries take is 4 MiB.
pub(crate) const MAX_MANIFEST: usize = 4 * 1024 * 1024;

impl RegistryClient {
    /// A registry as it is configured.
    ///
    /// # Errors
    /// What is wrong with its entry, with its line and the cure.
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
        Ok(RegistryClient {
            name: access.name.get_ref().to_string(),
            breaker: Mutex::default(),
            auth: Auth::new(&base, realm.as_ref(), credentials),
            base,
            client,
            requests: Semaphore::new(MAX_REQUESTS),
            content_requests: Semaphore::new(MAX_CONTENT_REQUESTS),
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
        Ok(match self.compare(repository, tag, None).await? {
            Found::Other(descriptor) => Some(descriptor),
            Found::Same | Found::Absent => None,
        })
    }

    /// Whether a tag still points to what is known of it. Costs a registry that understands conditions (`If-None-Match`) next to
    /// nothing.
    ///
    /// # Errors
    /// [`AskError`] says whether asking again may help, and when.
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

    /// Asks when it is this question's turn, unless the registry is left alone; notes how it ended.
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
                        "leaving {} alone for {pause:.0?}: {why}",
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
        let head = self.ask(Method::HEAD, url, repository, known).await?;
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
        // Some do not name the digest, some can't HEAD; and what a refusal means stands in its body, which a HEAD has not.
        let get = self.ask(Method::GET, url, repository, None).await?;
        match get.status() {
            StatusCode::OK => answer::hashed(get, MAX_MANIFEST).await.map(Found::Other),
            StatusCode::NOT_FOUND => answer::absent(get).await.map(|()| Found::Absent),
            _ => Err(answer::refusal(get).await),
        }
    }

    fn manifest(&self, repository: &Repository, tag: &Tag) -> Result<Url, AskError> {
        // Both are within their grammar: nothing in them leaves the path.
        self.url(&format!("v2/{repository}/manifests/{tag}"))
    }

    pub(crate) fn url(&self, path: &str) -> Result<Url, AskError> {
        self.base
            .join(path)
            .map_err(|_| AskError::Refused("its URL can't be joined with a path".to_owned()))
    }

    /// Sends a question, with a token or a password once it is asked for one, and follows redirects within the origin. With a
    /// known digest it is conditional.
    pub(crate) async fn ask(
        &self,
        method: Method,
        url: &Url,
        repository: &Repository,
        known: Option<&Digest>,
    ) -> Result<Response, AskError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self
                .exchange(&method, &url, repository, MANIFESTS, known)
                .await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED
            {
                return Ok(response);
            }
            let next = answer::location(&response, &url)?;
            if next.origin() != self.base.origin() {
                return Err(AskError::Refused(format!(
                    "it redirects to another host, {}, which is not followed: configure the URL that it redirects to",
                    next.host_str().unwrap_or("?")
                )));
            }
            url = next;
        }
        Err(answer::redirects_on())
    }

    /// One question, with a token or a password once it is asked for one. Follows nothing.
    pub(crate) async fn exchange(
        &self,
        method: &Method,
        url: &Url,
        repository: &Repository,
        accept: &'static str,
        known: Option<&Digest>,
    ) -> Result<Response, AskError> {
        let response = self.send(method, url, repository, accept, known).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge =
            Challenge::choose(challenges.iter().filter_map(|value| value.to_str().ok()));
        self.auth
            .answer(&self.client, challenge, repository)
            .await?;
        let response = self.send(method, url, repository, accept, known).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.auth.forget(repository).await;
            return Err(answer::refusal(response).await);
        }
        Ok(response)
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        repository: &Repository,
        accept: &'static str,
        known: Option<&Digest>,
    ) -> Result<Response, AskError> {
        let mut request = self
            .client
            .request(method.clone(), url.clone())
            .header(ACCEPT, accept);
        if let Some(known) = known {
            // An ETag is in quotes (RFC 9110, section 8.8.3), and the digest is what registries make it of.
            request = request.header(IF_NONE_MATCH, format!("\"{known}\""));
        }
        if let Some(value) = self.auth.header(repository).await {
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(AskError::from)
    }
}
