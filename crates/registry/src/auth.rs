//! Showing who we are, when a registry asks (RFC 9110 section 11, and the token authentication of distribution).

use std::collections::HashMap;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tagtrail_proto::Repository;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::answer::{body, refusal};
use crate::error::AskError;

/// A token is used no longer than this before it expires.
const MARGIN: Duration = Duration::from_secs(10);
/// As the specification says where a registry does not.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Longer than any token's document.
const MAX_RESPONSE: usize = 256 * 1024;
/// Repositories whose tokens are kept.
const MAX_TOKENS: usize = 1000;

/// What we may show, and what we have to show it for.
#[derive(Debug)]
pub(crate) struct Auth {
    registry: Url,
    realm: Option<Url>,
    credentials: Option<(String, SecretString)>,
    state: Mutex<AuthState>,
}

/// What the registry has asked for so far.
#[derive(Debug, Default)]
struct AuthState {
    /// It wants the password itself.
    basic: bool,
    tokens: HashMap<Repository, Token>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    until: Instant,
}

/// How a registry wants us to show who we are.
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
        credentials: Option<(String, SecretString)>,
    ) -> Auth {
        Auth {
            registry: registry.clone(),
            realm: realm.cloned(),
            credentials,
            state: Mutex::default(),
        }
    }

    /// The `Authorization` of a request, if it is known to need one.
    pub(crate) async fn header(&self, repository: &Repository) -> Option<HeaderValue> {
        let state = self.state.lock().await;
        if state.basic {
            return self.basic();
        }
        let token = state.tokens.get(repository)?;
        (token.until > Instant::now()).then(|| token.header.clone())
    }

    /// Makes ready what the registry asked for.
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
                let scope = scope.unwrap_or_else(|| format!("repository:{repository}:pull"));
                let url = self.token_url(&realm, service, Some(scope))?;
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

    /// What was shown was not good enough.
    pub(crate) async fn forget(&self, repository: &Repository) {
        let mut state = self.state.lock().await;
        state.basic = false;
        state.tokens.remove(repository);
    }

    /// The `Authorization` of a request that is about no repository; nothing of it is kept.
    pub(crate) async fn header_without_repository(
        &self,
        client: &Client,
        challenge: Option<Challenge>,
    ) -> Result<HeaderValue, AskError> {
        match challenge {
            None => Err(unknown_challenge()),
            Some(Challenge::Basic) => self.basic().ok_or_else(no_password),
            // Without the scope, as `docker login` asks: some name there a repository that nobody may read.
            Some(Challenge::Bearer { realm, service, .. }) => {
                let url = self.token_url(&realm, service, None)?;
                Ok(self.fetch(client, url).await?.header)
            }
        }
    }

    fn basic(&self) -> Option<HeaderValue> {
        use base64::Engine as _;
        let (user, password) = self.credentials.as_ref()?;
        let plain = format!("{user}:{}", password.expose_secret());
        let encoded = base64::engine::general_purpose::STANDARD.encode(plain);
        sensitive(&format!("Basic {encoded}"))
    }

    /// Where the token is to be had, if we may go there: a registry chooses the realm, and would get our password by it.
    fn token_url(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<Url, AskError> {
        let mut url = Url::parse(realm)
            .map_err(|_| AskError::Refused("its token realm is no URL".to_owned()))?;
        let allowed = [Some(&self.registry), self.realm.as_ref()];
        if !allowed
            .into_iter()
            .flatten()
            .any(|allowed| allowed.origin() == url.origin())
        {
            let origin = url.origin().ascii_serialization();
            return Err(AskError::Refused(format!(
                "its tokens are issued at {origin}, where nothing is sent unless you say so: if that is right, add realm = \"{origin}\" to its [[registry]]"
            )));
        }
        for (name, value) in [("service", service), ("scope", scope)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        Ok(url)
    }

    async fn fetch(&self, client: &Client, url: Url) -> Result<Token, AskError> {
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
                AskError::Failed(cause) => AskError::Failed(format!("asked for a token, {cause}")),
                AskError::Refused(cause) => {
                    AskError::Refused(format!("asked for a token, {cause}"))
                }
                other @ (AskError::Busy { .. } | AskError::Resting { .. }) => other,
            });
        }
        let body = body(response, MAX_RESPONSE).await?;
        let issued: TokenResponse = serde_json::from_slice(&body)
            .map_err(|_| AskError::Failed("its token is not in JSON".to_owned()))?;
        let token = issued.token.or(issued.access_token).unwrap_or_default();
        let header = sensitive(&format!("Bearer {token}"))
            .filter(|_| !token.is_empty())
            .ok_or_else(|| AskError::Failed("it issued no token".to_owned()))?;
        let life = issued.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        // Even a token that lives too short is good for the question at hand.
        let until = asked
            + life
                .saturating_sub(MARGIN)
                .clamp(Duration::from_secs(5), Duration::from_secs(3600));
        Ok(Token { header, until })
    }
}

fn unknown_challenge() -> AskError {
    AskError::Refused(
        "it asks who we are in no way that is known (neither Basic nor Bearer)".to_owned(),
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
    /// The name of its scheme.
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Challenge::Basic => "Basic",
            Challenge::Bearer { .. } => "Bearer",
        }
    }

    /// The best of the challenges that were made: a token rather than the password itself.
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

/// `name="value", name=value`: values in quotes may hold commas and escaped quotes.
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

/// The value up to the closing quote, and what follows that.
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
        let scope = "repository:shop/web:pull";
        let at = |realm: &str| {
            auth.token_url(realm, Some("a b".to_owned()), Some(scope.to_owned()))
                .map(|url| url.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            at("https://auth.example.com/token?x=1").unwrap(),
            "https://auth.example.com/token?x=1&service=a+b&scope=repository%3Ashop%2Fweb%3Apull"
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
