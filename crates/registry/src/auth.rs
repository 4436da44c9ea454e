//! Authentication at a registry (RFC 9110 section 11, and the token authentication of
//! distribution).

use std::collections::HashMap;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tagtrail_config::Fresh;
use tagtrail_proto::Repository;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::answer::{body, refusal};
use crate::error::AskError;

/// A token is discarded this long before it expires.
const MARGIN: Duration = Duration::from_secs(10);
/// Life of a token if the registry does not state it (the specification's default).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Bytes read of a token response: more than a real response has.
const MAX_RESPONSE: usize = 256 * 1024;
/// Tokens kept, each for a repository.
const MAX_TOKENS: usize = 1000;

/// The credentials for a registry, and the tokens that it issued.
#[derive(Debug)]
pub(crate) struct Auth {
    registry: Url,
    realm: Option<Url>,
    credentials: Option<(String, Fresh<SecretString>)>,
    state: Mutex<AuthState>,
}

/// The authentication that the registry has asked for so far.
#[derive(Debug, Default)]
struct AuthState {
    /// The registry asked for Basic authentication.
    basic: bool,
    tokens: HashMap<Repository, BearerToken>,
}

#[derive(Debug)]
struct BearerToken {
    header: HeaderValue,
    until: Instant,
}

/// A `WWW-Authenticate` challenge.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Auth {
    pub(crate) fn new(
        registry: &Url,
        realm: Option<&Url>,
        credentials: Option<(String, Fresh<SecretString>)>,
    ) -> Auth {
        Auth {
            registry: registry.clone(),
            realm: realm.cloned(),
            credentials,
            state: Mutex::default(),
        }
    }

    /// Returns the `Authorization` header of a request, if the registry asked for authentication
    /// before.
    pub(crate) async fn header(&self, repository: &Repository) -> Option<HeaderValue> {
        let state = self.state.lock().await;
        if state.basic {
            return self.basic();
        }
        let token = state.tokens.get(repository)?;
        (token.until > Instant::now()).then(|| token.header.clone())
    }

    /// Prepares the authentication that a challenge asks for.
    pub(crate) async fn answer(
        &self,
        client: &Client,
        challenge: Option<Challenge>,
        repository: &Repository,
    ) -> Result<(), AskError> {
        match challenge {
            None => Err(unknown_challenge()),
            Some(Challenge::Basic) if self.credentials.is_none() => Err(no_password()),
            Some(Challenge::Basic) => {
                self.state.lock().await.basic = true;
                Ok(())
            }
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let url = self.token_url(&realm, service)?;
                // An issuer that serves several registries must not be asked, with our password,
                // for a token that is good at another one or for more than reading.
                let own = format!("repository:{repository}:pull");
                let scope = match scope {
                    Some(scope) if url.origin() == self.registry.origin() => scope,
                    _ => own,
                };
                let url = with(url, "scope", &scope);
                let token = self.fetch(client, url).await?;
                let mut state = self.state.lock().await;
                if state.tokens.len() >= MAX_TOKENS {
                    let now = Instant::now();
                    state.tokens.retain(|_, token| token.until > now);
                }
                if state.tokens.len() >= MAX_TOKENS {
                    state.tokens.clear();
                }
                state.tokens.insert(repository.clone(), token);
                Ok(())
            }
        }
    }

    /// Discards the authentication that the registry rejected.
    pub(crate) async fn forget(&self, repository: &Repository) {
        let mut state = self.state.lock().await;
        state.basic = false;
        state.tokens.remove(repository);
    }

    /// Returns the `Authorization` header of a request that names no repository. Keeps nothing.
    pub(crate) async fn header_without_repository(
        &self,
        client: &Client,
        challenge: Option<Challenge>,
    ) -> Result<HeaderValue, AskError> {
        match challenge {
            None => Err(unknown_challenge()),
            Some(Challenge::Basic) => self.basic().ok_or_else(no_password),
            // Without the scope, like `docker login`: in it some registries name a
            // repository that nobody may read.
            Some(Challenge::Bearer { realm, service, .. }) => {
                let url = self.token_url(&realm, service)?;
                Ok(self.fetch(client, url).await?.header)
            }
        }
    }

    fn basic(&self) -> Option<HeaderValue> {
        use base64::Engine as _;
        let (user, password) = self.credentials.as_ref()?;
        let plain = format!("{user}:{}", password.get().expose_secret());
        let encoded = base64::engine::general_purpose::STANDARD.encode(plain);
        sensitive(&format!("Basic {encoded}"))
    }

    /// Returns the URL of the token, if its origin is allowed. The registry chooses the realm, so
    /// without this check our password could go to any host.
    fn token_url(&self, realm: &str, service: Option<String>) -> Result<Url, AskError> {
        let url = Url::parse(realm).map_err(|_| {
            AskError::Refused("the token realm in its challenge is no URL".to_owned())
        })?;
        let allowed = [Some(&self.registry), self.realm.as_ref()];
        if !allowed
            .into_iter()
            .flatten()
            .any(|allowed| allowed.origin() == url.origin())
        {
            let origin = url.origin().ascii_serialization();
            return Err(AskError::Refused(format!(
                "its tokens are issued at {origin}, and credentials go to another origin only if the file allows it: if the origin is right, add realm = \"{origin}\" to its [[registry]]"
            )));
        }
        Ok(match service {
            Some(service) => with(url, "service", &service),
            None => url,
        })
    }

    async fn fetch(&self, client: &Client, url: Url) -> Result<BearerToken, AskError> {
        #[derive(Deserialize)]
        struct TokenResponse {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let mut request = client.get(url);
        if let Some(basic) = self.basic() {
            request = request.header(reqwest::header::AUTHORIZATION, basic);
        }
        let asked = Instant::now();
        let response = request.send().await?;
        if response.status() != StatusCode::OK {
            return Err(match refusal(response).await {
                AskError::Failed(cause) => {
                    AskError::Failed(format!("while requesting a token: {cause}"))
                }
                AskError::Refused(cause) => {
                    AskError::Refused(format!("while requesting a token: {cause}"))
                }
                other @ (AskError::Busy { .. } | AskError::Resting { .. }) => other,
            });
        }
        let body = body(response, MAX_RESPONSE).await?;
        let issued: TokenResponse = serde_json::from_slice(&body)
            .map_err(|_| AskError::Failed("its token response is not JSON".to_owned()))?;
        let token = issued.token.or(issued.access_token).unwrap_or_default();
        let header = sensitive(&format!("Bearer {token}"))
            .filter(|_| !token.is_empty())
            .ok_or_else(|| AskError::Failed("its token response holds no token".to_owned()))?;
        let life = issued.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        // Even a token with a very short life is good for the request at hand.
        let until = asked
            + life
                .saturating_sub(MARGIN)
                .clamp(Duration::from_secs(5), Duration::from_secs(3600));
        Ok(BearerToken { header, until })
    }
}

/// Adds a parameter to the query of a URL.
fn with(mut url: Url, name: &str, value: &str) -> Url {
    url.query_pairs_mut().append_pair(name, value);
    url
}

fn unknown_challenge() -> AskError {
    AskError::Refused(
        "it asks for an unknown kind of authentication (neither Basic nor Bearer)".to_owned(),
    )
}

fn no_password() -> AskError {
    AskError::Refused(
        "it asks for a password: add username and password to its [[registry]]".to_owned(),
    )
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Challenge {
    /// The name of the scheme.
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Challenge::Basic => "Basic",
            Challenge::Bearer { .. } => "Bearer",
        }
    }

    /// Returns the best of several challenges: Bearer before Basic, which sends the password
    /// itself.
    pub(crate) fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let mut basic = None;
        for value in values {
            match Challenge::parse(value) {
                Some(Challenge::Basic) => basic = Some(Challenge::Basic),
                bearer @ Some(_) => return bearer,
                None => {}
            }
        }
        basic
    }

    fn parse(value: &str) -> Option<Challenge> {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parameters(rest);
        Some(Challenge::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope"),
        })
    }
}

/// Parses `name="value", name=value`. Quoted values may hold commas and escaped quotes.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted),
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.entry(name).or_insert(value);
        rest = next.trim_start_matches([' ', ',']);
    }
    found
}

/// Returns the value up to the closing quote, and the rest of the text.
fn quoted_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &text[at + 1..]),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (values, expected) in [
            (
                vec![
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
                ],
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/nginx:pull"),
                ),
            ),
            (
                vec![
                    r#"bearer realm="https://a/t", scope="repository:a:pull,push" , service="a\"b""#,
                ],
                bearer("https://a/t", Some("a\"b"), Some("repository:a:pull,push")),
            ),
            (
                vec!["Bearer realm=https://a/t,service=x"],
                bearer("https://a/t", Some("x"), None),
            ),
            (
                vec![r#"Basic realm="x""#, r#"Bearer realm="https://a/t""#],
                bearer("https://a/t", None, None),
            ),
            (vec!["Basic"], Some(Challenge::Basic)),
            (vec!["Negotiate", "Digest realm=x"], None),
            (vec![r#"Bearer service="x""#], None),
            (
                vec![r#"Bearer realm="unfinished"#],
                bearer("unfinished", None, None),
            ),
            (vec![], None),
        ] {
            assert_eq!(
                Challenge::choose(values.clone().into_iter()),
                expected,
                "{values:?}"
            );
        }
    }

    #[test]
    fn tokens_are_fetched_only_where_that_is_allowed() {
        let url = |text: &str| Url::parse(text).unwrap();
        let auth = Auth::new(
            &url("https://registry.example.com/"),
            Some(&url("https://auth.example.com")),
            None,
        );
        let at = |realm: &str| {
            auth.token_url(realm, Some("a b".to_owned()))
                .map(|url| url.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            at("https://auth.example.com/token?x=1").unwrap(),
            "https://auth.example.com/token?x=1&service=a+b"
        );
        assert!(at("https://registry.example.com/token").is_ok());
        for elsewhere in [
            "https://evil.example.com/token",
            "http://auth.example.com/token",
            "https://auth.example.com:444/token",
            "https://auth.example.com.evil.example/",
            "file:///etc/passwd",
        ] {
            assert!(
                at(elsewhere).unwrap_err().contains("realm = "),
                "{elsewhere}"
            );
        }
        assert!(at("/token").unwrap_err().contains("no URL"));
    }
}
