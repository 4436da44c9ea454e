//! Tokens of an identity provider (`OpenID` Connect), as Google's Pub/Sub sends them:
//! authentication without a shared secret.
//!
//! A token is `header.claims.signature` (RFC 7519, RFC 7515), each part in Base64. Only RS256 is
//! accepted, the algorithm of Google's signatures, so that no token can choose how it is verified.
//! The signature is verified before the claims are parsed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Largest difference between the clocks, in seconds.
const LEEWAY: i64 = 60;
/// Shortest time between two fetches of the keys: tokens with an unknown key must not cause more.
const FETCH_INTERVAL: Duration = Duration::from_secs(60);
/// Longest time to fetch the keys, while the sender waits.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest key set, in bytes. Google's has 2 KiB.
const MAX_KEY_SET: usize = 64 << 10;
/// Longest token, in bytes. Google's have 1 KiB.
const MAX_TOKEN: usize = 8 << 10;

/// The error of a source that lacks a key for tokens, or also has a secret.
pub(crate) const TOKENS_NEED: &str = "tokens need `audience` and `email`, and no `secret`: a sender shows a token in place of a secret";

/// The claims that a token must have, and the place of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRules {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) email: String,
    pub(crate) keys: Keys,
}

/// The place of a JSON Web Key Set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Keys {
    /// An address. The set is fetched again for an unknown key.
    Url(String),
    /// A file. The file is read again for an unknown key.
    File(PathBuf),
}

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct IdTokens {
    issuer: String,
    audience: String,
    email: String,
    source: KeySource,
    keys: Mutex<KeySet>,
}

#[derive(Debug)]
enum KeySource {
    Url(String, reqwest::Client),
    File(PathBuf),
}

#[derive(Debug, Default)]
struct KeySet {
    keys: HashMap<String, Key>,
    fetched: Option<Instant>,
}

/// An RSA key: modulus and exponent, big endian.
#[derive(Debug, Clone)]
struct Key {
    n: Vec<u8>,
    e: Vec<u8>,
}

#[derive(Deserialize)]
struct JsonKeySet {
    keys: Vec<JsonKey>,
}

#[derive(Deserialize)]
struct JsonKey {
    kid: Option<String>,
    kty: String,
    n: Option<String>,
    e: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    email: String,
    email_verified: bool,
}

impl IdTokens {
    /// # Errors
    /// If the HTTP client can't be made.
    pub(crate) fn new(rules: TokenRules) -> reqwest::Result<IdTokens> {
        let TokenRules {
            issuer,
            audience,
            email,
            keys,
        } = rules;
        let source = match keys {
            Keys::File(path) => KeySource::File(path),
            Keys::Url(url) => {
                let client = tagtrail_daemon::client(FETCH_TIMEOUT).build()?;
                KeySource::Url(url, client)
            }
        };
        Ok(IdTokens {
            issuer,
            audience,
            email,
            source,
            keys: Mutex::default(),
        })
    }

    /// Checks the token of a request.
    ///
    /// # Errors
    /// The reason to refuse the token, for the log and not for the sender.
    pub(crate) async fn admit(&self, headers: &HeaderMap) -> Result<(), String> {
        let value = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .ok_or("the request has no token")?;
        let token = value
            .split_at_checked(7)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer "))
            .map(|(_, token)| token.trim())
            .filter(|token| token.len() <= MAX_TOKEN)
            .ok_or("the request has no Bearer token")?;
        let (signed, signature) = token.rsplit_once('.').ok_or("not a token")?;
        let (header, claims) = signed.split_once('.').ok_or("not a token")?;
        let header: Header = part(header).ok_or("the header can't be read")?;
        if header.alg != "RS256" {
            return Err(format!(
                "the token is signed by {:?}, not RS256",
                header.alg
            ));
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| "the signature can't be read")?;
        let key = self.key(&header.kid).await?;
        RsaPublicKeyComponents { n: key.n, e: key.e }
            .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
            .map_err(|_| "the signature is wrong")?;
        let claims: Claims = part(claims).ok_or("the claims can't be read")?;
        self.check(&claims, OffsetDateTime::now_utc().unix_timestamp())
    }

    fn check(&self, claims: &Claims, now: i64) -> Result<(), String> {
        // Google writes the issuer with and without a scheme.
        let bare = |issuer: &str| issuer.trim_start_matches("https://").to_owned();
        if bare(&claims.iss) != bare(&self.issuer) {
            return Err(format!("the token is issued by {:?}", claims.iss));
        }
        if claims.aud != self.audience {
            return Err(format!("the token is for {:?}", claims.aud));
        }
        if claims.email != self.email || !claims.email_verified {
            return Err(format!("the token is of {:?}", claims.email));
        }
        if claims.exp.saturating_add(LEEWAY) < now {
            return Err("the token has expired".to_owned());
        }
        if claims
            .nbf
            .is_some_and(|from| from.saturating_sub(LEEWAY) > now)
        {
            return Err("the token is not valid yet".to_owned());
        }
        Ok(())
    }

    /// Returns the key with this id. An unknown id causes a fetch.
    async fn key(&self, name: &str) -> Result<Key, String> {
        let mut set = self.keys.lock().await;
        if let Some(key) = set.keys.get(name) {
            return Ok(key.clone());
        }
        if set.fetched.is_none_or(|at| at.elapsed() >= FETCH_INTERVAL) {
            set.fetched = Some(Instant::now());
            set.keys = self.fetch().await?;
        }
        let key = set.keys.get(name).cloned();
        key.ok_or_else(|| "the token is signed with a key that is not among the keys".to_owned())
    }

    async fn fetch(&self) -> Result<HashMap<String, Key>, String> {
        let text = match &self.source {
            KeySource::File(path) => tokio::fs::read(path)
                .await
                .map_err(|error| format!("{} can't be read: {error}", path.display()))?,
            KeySource::Url(url, client) => {
                let failed = |error: reqwest::Error| {
                    format!(
                        "the keys can't be fetched from {url}: {}",
                        error.without_url()
                    )
                };
                let answer = client.get(url).send().await.map_err(failed)?;
                let mut answer = answer.error_for_status().map_err(failed)?;
                let mut text = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(failed)? {
                    text.extend_from_slice(&chunk);
                    if text.len() > MAX_KEY_SET {
                        return Err(format!("more than {} KiB of keys", MAX_KEY_SET >> 10));
                    }
                }
                text
            }
        };
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
        let set: JsonKeySet = serde_json::from_slice(text)
            .map_err(|error| format!("the keys are no JSON Web Key Set: {error}"))?;
        let number = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let keys = set.keys.into_iter().filter(|key| key.kty == "RSA");
        Ok(keys
            .filter_map(|key| {
                let (n, e) = (number(key.n)?, number(key.e)?);
                Some((key.kid?, Key { n, e }))
            })
            .collect())
    }
}

/// Decodes a part of a token.
fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests;
