//! Tokens of an identity provider, as Google's Pub/Sub sends them, and the claim that such a sender
//! must have besides.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use serde::Deserialize;
use tagtrail_identity::{KeyKeeper, Keys, Rules, Verifier};

use crate::error::Error;

/// The error of a source that lacks a key for tokens, or also has a secret.
pub(crate) const TOKENS_NEED: &str = "tokens need `audience` and `email`, and no `secret`: a sender shows a token in place of a secret";

/// The claims that a token must have, and the place of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRules {
    pub(crate) of_issuer: Rules,
    pub(crate) email: String,
}

impl TokenRules {
    /// The file of the keys, if they are in a file.
    pub(crate) fn file(&mut self) -> Option<&mut std::path::PathBuf> {
        match &mut self.of_issuer.keys {
            Keys::File(path) => Some(path),
            Keys::Url(_) => None,
        }
    }
}

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct IdTokens {
    verifier: Verifier,
    email: String,
}

#[derive(Deserialize)]
struct Sender {
    email: String,
    email_verified: bool,
}

impl IdTokens {
    /// # Errors
    /// If the HTTP client can't be made.
    pub(crate) fn new(rules: TokenRules) -> Result<IdTokens, String> {
        Ok(IdTokens {
            verifier: Verifier::new(rules.of_issuer)?,
            email: rules.email,
        })
    }

    /// Returns the keys, whose task must run.
    pub(crate) fn keys(&self) -> &Arc<KeyKeeper> {
        self.verifier.keys()
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
            .ok_or_else(|| refused("the request has no Bearer token"))?;
        let sender: Sender = self.verifier.verify(token).await?;
        match sender.email == self.email && sender.email_verified {
            true => Ok(()),
            false => Err(refused(&format!("it is of {:?}", sender.email))),
        }
    }
}

impl From<tagtrail_identity::Error> for Error {
    fn from(error: tagtrail_identity::Error) -> Error {
        match error {
            tagtrail_identity::Error::Refused(why) => Error::TokenRefused(why),
            tagtrail_identity::Error::KeysUnavailable => Error::KeysUnavailable,
        }
    }
}

#[cfg(test)]
mod tests;
