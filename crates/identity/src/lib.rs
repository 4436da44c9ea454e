//! Tokens of an identity provider (`OpenID` Connect): authentication without a shared secret, of
//! senders such as Google's Pub/Sub, and of people by a proxy before the pages.
//!
//! A token is `header.claims.signature` (RFC 7519, RFC 7515), each part in Base64. RS256 and ES256
//! are accepted, and the key decides which of the two: no token can choose how it is verified. The
//! signature is verified before the claims are parsed.

mod keys;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

pub use keys::{KeyKeeper, Keys};

/// Largest difference between the clocks, in seconds.
const LEEWAY: i64 = 60;
/// Longest token, in bytes. Google's have 1 KiB, and those with groups of a person a few.
const MAX_TOKEN: usize = 8 << 10;

/// The claims that every token must have, and the place of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The issuer, with or without `https://`.
    pub issuer: String,
    /// The audience.
    pub audience: String,
    /// The place of the keys.
    pub keys: Keys,
}

/// The reason why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token is not one of this issuer for this audience now.
    #[error("{0}")]
    Refused(String),
    /// The keys can't be fetched.
    #[error("the keys of the identity provider can't be read")]
    KeysUnavailable,
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Verifier {
    issuer: String,
    audience: String,
    keys: Arc<KeyKeeper>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims<C> {
    iss: String,
    aud: Audience,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(flatten)]
    more: C,
}

/// One audience, or several (RFC 7519, section 4.1.3).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

impl Verifier {
    /// # Errors
    /// If the HTTP client can't be made.
    pub fn new(rules: Rules) -> Result<Verifier, String> {
        Ok(Verifier {
            issuer: rules.issuer,
            audience: rules.audience,
            keys: Arc::new(KeyKeeper::new(rules.keys)?),
        })
    }

    /// Returns the keys, whose task must run.
    #[must_use]
    pub fn keys(&self) -> &Arc<KeyKeeper> {
        &self.keys
    }

    /// Verifies a token, and returns the claims that the caller reads.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn verify<C: DeserializeOwned>(&self, token: &str) -> Result<C, Error> {
        let refused = |why: &str| Error::Refused(why.to_owned());
        if token.len() > MAX_TOKEN {
            return Err(refused("longer than 8 KiB"));
        }
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or_else(|| refused("not a token"))?;
        let (header, claims) = signed
            .split_once('.')
            .ok_or_else(|| refused("not a token"))?;
        let header: Header = part(header).ok_or_else(|| refused("the header can't be read"))?;
        if !["RS256", "ES256"].contains(&header.alg.as_str()) {
            let why = format!("signed by {:?}, neither RS256 nor ES256", header.alg);
            return Err(Error::Refused(why));
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| refused("the signature can't be read"))?;
        let key = self.keys.key(&header.kid).await?;
        if !key.has_signed(&header.alg, signed.as_bytes(), &signature) {
            return Err(refused("the signature is wrong"));
        }
        let claims: Claims<C> = part(claims).ok_or_else(|| refused("the claims can't be read"))?;
        self.check(&claims, OffsetDateTime::now_utc().unix_timestamp())
            .map_err(Error::Refused)?;
        Ok(claims.more)
    }

    fn check<C>(&self, claims: &Claims<C>, now: i64) -> Result<(), String> {
        // Google writes the issuer with and without a scheme.
        let bare = |issuer: &str| issuer.trim_start_matches("https://").to_owned();
        if bare(&claims.iss) != bare(&self.issuer) {
            return Err(format!("issued by {:?}", claims.iss));
        }
        if !claims.aud.has(&self.audience) {
            return Err(format!("it is for {:?}", claims.aud));
        }
        if claims.exp.saturating_add(LEEWAY) < now {
            return Err("it has expired".to_owned());
        }
        if claims
            .nbf
            .is_some_and(|from| from.saturating_sub(LEEWAY) > now)
        {
            return Err("not valid yet".to_owned());
        }
        Ok(())
    }
}

/// Decodes a part of a token.
fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}
