//! Tokens of an identity provider (`OpenID` Connect), as Google's Pub/Sub sends them:
//! authentication without a shared secret.
//!
//! A token is `header.claims.signature` (RFC 7519, RFC 7515), each part in Base64. Only RS256 is
//! accepted, the algorithm of Google's signatures, so that no token can choose how it is verified.
//! The signature is verified before the claims are parsed.

mod keys;

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::error::Error;
pub(crate) use keys::{KeyKeeper, Keys};

/// Largest difference between the clocks, in seconds.
const LEEWAY: i64 = 60;
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

impl TokenRules {
    /// The file of the keys, if they are in a file.
    pub(crate) fn file(&mut self) -> Option<&mut std::path::PathBuf> {
        match &mut self.keys {
            Keys::File(path) => Some(path),
            Keys::Url(_) => None,
        }
    }
}

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct IdTokens {
    issuer: String,
    audience: String,
    email: String,
    keys: Arc<KeyKeeper>,
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
    pub(crate) fn new(rules: TokenRules) -> Result<IdTokens, String> {
        let TokenRules {
            issuer,
            audience,
            email,
            keys,
        } = rules;
        Ok(IdTokens {
            issuer,
            audience,
            email,
            keys: Arc::new(KeyKeeper::new(keys)?),
        })
    }

    /// Returns the keys, whose task must run.
    pub(crate) fn keys(&self) -> &Arc<KeyKeeper> {
        &self.keys
    }

    /// Checks the token of a request.
    ///
    /// # Errors
    /// [`Error::TokenRefused`], [`Error::KeysUnavailable`].
    pub(crate) async fn admit(&self, headers: &HeaderMap) -> Result<(), Error> {
        let refused = |why: &str| Error::TokenRefused(why.to_owned());
        let value = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| refused("the request has none"))?;
        let token = value
            .split_at_checked(7)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer "))
            .map(|(_, token)| token.trim())
            .filter(|token| token.len() <= MAX_TOKEN)
            .ok_or_else(|| refused("the request has no Bearer token"))?;
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or_else(|| refused("not a token"))?;
        let (header, claims) = signed
            .split_once('.')
            .ok_or_else(|| refused("not a token"))?;
        let header: Header = part(header).ok_or_else(|| refused("the header can't be read"))?;
        if header.alg != "RS256" {
            let why = format!("signed by {:?}, not RS256", header.alg);
            return Err(Error::TokenRefused(why));
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| refused("the signature can't be read"))?;
        let key = self.keys.key(&header.kid).await?;
        RsaPublicKeyComponents { n: key.n, e: key.e }
            .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
            .map_err(|_| refused("the signature is wrong"))?;
        let claims: Claims = part(claims).ok_or_else(|| refused("the claims can't be read"))?;
        self.check(&claims, OffsetDateTime::now_utc().unix_timestamp())
            .map_err(Error::TokenRefused)
    }

    fn check(&self, claims: &Claims, now: i64) -> Result<(), String> {
        // Google writes the issuer with and without a scheme.
        let bare = |issuer: &str| issuer.trim_start_matches("https://").to_owned();
        if bare(&claims.iss) != bare(&self.issuer) {
            return Err(format!("issued by {:?}", claims.iss));
        }
        if claims.aud != self.audience {
            return Err(format!("it is for {:?}", claims.aud));
        }
        if claims.email != self.email || !claims.email_verified {
            return Err(format!("it is of {:?}", claims.email));
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

#[cfg(test)]
mod tests;
