//! Authentication by secret, signature or token.
//!
//! A sender shows the source's secret as a Bearer token, as the password of Basic authentication,
//! as the whole `Authorization` value, in a header that the source names, or, if the sender can set
//! no header, as the last part of the path. Two secrets may be live at once, so that one can be
//! replaced without a gap.
//!
//! If the kind supports signatures and the request carries one, only the signature is checked; a
//! secret in the request no longer counts. Of several forms of signature the first one of the
//! kind's list counts, so that a request costs at most one MAC for each live secret. A source with
//! an `audience` accepts only tokens.
//!
//! A header that may prove the identity must have one value: proxies differ in the value that
//! they take of several, and each value would cost a check.

use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use secrecy::SecretString;
use subtle::Choice;
use tagtrail_config::{Fresh, Live};
use tagtrail_identity::KeyKeeper;

use crate::error::Error;
use crate::proof::hashing::off_thread;
use crate::proof::id_token::IdTokens;
use crate::proof::signature::{Claim, Signature};

/// The credentials that a source accepts.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    /// `None`: no secret is accepted.
    secrets: Option<Fresh<LiveSecrets>>,
    header: Option<HeaderName>,
    /// The accepted signatures, made with the secrets.
    signatures: &'static [Signature],
    tokens: Option<IdTokens>,
}

/// The secrets that are accepted now, for comparison and for signatures.
pub(crate) struct LiveSecrets {
    live: Live,
    sign: Arc<[SecretString]>,
}

impl From<Vec<SecretString>> for LiveSecrets {
    fn from(secrets: Vec<SecretString>) -> LiveSecrets {
        LiveSecrets {
            live: Live::new(&secrets),
            sign: secrets.into(),
        }
    }
}

/// The result of checking the head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The sender is authentic.
    Granted,
    /// The signature must still be checked against the body: see [`Credentials::signed`].
    BySignature(Claim),
}

impl Credentials {
    /// Returns credentials that accept the secrets, and `signatures` made with them.
    pub(crate) fn new(
        secrets: Fresh<LiveSecrets>,
        header: Option<HeaderName>,
        signatures: &'static [Signature],
    ) -> Credentials {
        Credentials {
            secrets: Some(secrets),
            header,
            signatures,
            tokens: None,
        }
    }

    /// Returns credentials that accept only tokens.
    pub(crate) fn tokens(tokens: IdTokens) -> Credentials {
        Credentials {
            tokens: Some(tokens),
            ..Credentials::default()
        }
    }

    /// Returns the keys that verify tokens, if the source has tokens.
    pub(crate) fn keys(&self) -> Option<&Arc<KeyKeeper>> {
        self.tokens.as_ref().map(IdTokens::keys)
    }

    /// Checks the head of a request.
    ///
    /// # Errors
    /// [`Error::HeaderRepeated`], [`Error::WrongSignature`], [`Error::Unauthenticated`],
    /// [`Error::WrongSecret`], and the errors of [`IdTokens::admit`].
    pub(crate) async fn admit(
        &self,
        headers: &HeaderMap,
        path: Option<&str>,
    ) -> Result<Admission, Error> {
        self.check_single(headers)?;
        if let Some(tokens) = &self.tokens {
            return tokens.admit(headers).await.map(|()| Admission::Granted);
        }
        if let Some((signature, value)) = self.signature(headers) {
            if signature.or_secret && self.live().is(value.as_bytes()).into() {
                return Ok(Admission::Granted);
            }
            let claim = signature.claim(value.as_bytes());
            return claim
                .map(Admission::BySignature)
                .ok_or(Error::WrongSignature);
        }
        self.check_secret(headers, path)
            .map(|()| Admission::Granted)
    }

    /// Checks that the request shows a live secret.
    fn check_secret(&self, headers: &HeaderMap, path: Option<&str>) -> Result<(), Error> {
        let shown = self.shown(headers, path);
        // All are compared with all secrets, so that the time does not depend on a match.
        let live = self.live();
        let matches = shown.iter().map(|shown| live.is(shown));
        let matched = matches.fold(Choice::from(0), |any, this| any | this);
        match (bool::from(matched), shown.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => Err(Error::Unauthenticated),
            (false, false) => Err(Error::WrongSecret),
        }
    }

    /// Returns the secrets to compare with.
    fn live(&self) -> Live {
        let secrets = self.secrets.as_ref();
        secrets.map_or_else(Live::default, |secrets| secrets.get().live.clone())
    }

    /// Refuses a request with several values of a header that may prove the identity.
    fn check_single(&self, headers: &HeaderMap) -> Result<(), Error> {
        let signatures = self.signatures.iter();
        let mut names = [AUTHORIZATION.as_str()]
            .into_iter()
            .chain(self.header.as_ref().map(HeaderName::as_str))
            .chain(signatures.map(|signature| signature.header));
        match names.find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
            Some(_) => Err(Error::HeaderRepeated),
            None => Ok(()),
        }
    }

    /// Returns the signature of a request: the first one in the order of the kind.
    fn signature<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Option<(&'static Signature, &'a HeaderValue)> {
        let by = self.signatures;
        by.iter()
            .find_map(|signature| Some((signature, headers.get(signature.header)?)))
    }

    /// Returns whether the body has the claimed signature with a live secret.
    pub(crate) async fn signed(&self, claim: Claim, body: &Bytes) -> bool {
        let Some(secrets) = &self.secrets else {
            return false;
        };
        let (secrets, hashed) = (Arc::clone(&secrets.get().sign), body.clone());
        let matches = move || {
            // All secrets are tried, so that the time does not depend on the one that matches.
            let matches = secrets.iter().map(|secret| claim.holds(secret, &hashed));
            matches.fold(Choice::from(0), |any, this| any | this).into()
        };
        off_thread(body.len(), matches).await
    }

    /// Returns all texts of a request that may be meant as a secret.
    fn shown(&self, headers: &HeaderMap, path: Option<&str>) -> Vec<Vec<u8>> {
        let mut shown: Vec<Vec<u8>> = path
            .map(|secret| secret.as_bytes().to_vec())
            .into_iter()
            .collect();
        if let Some(name) = &self.header {
            shown.extend(headers.get(name).map(|value| value.as_bytes().to_vec()));
        }
        if let Some(value) = headers.get(AUTHORIZATION) {
            shown.push(value.as_bytes().to_vec());
            shown.extend(scheme(value.as_bytes(), b"bearer ").map(<[u8]>::to_vec));
            shown.extend(scheme(value.as_bytes(), b"basic ").and_then(password));
        }
        shown
    }
}

/// Returns the credentials after the scheme, which is case-insensitive (RFC 9110, section 11.1).
fn scheme<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = value.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| rest.trim_ascii())
}

/// Returns the password of `base64(user:password)` (RFC 7617), which may hold colons. The user is
/// ignored.
fn password(credentials: &[u8]) -> Option<Vec<u8>> {
    let plain = STANDARD.decode(credentials).ok()?;
    let colon = plain.iter().position(|byte| *byte == b':')?;
    Some(plain[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURES: &[Signature] = &[
        Signature::sha256("x-one"),
        Signature::sha1("x-two").prefixed("sha1="),
        Signature::sha256("x-or-secret").or_secret(),
    ];
    // The signatures of the body "body" with the secret "old-secret", computed by openssl.
    const SHA256: &str = "1621661eae453765953d97522f20619e10c14eb84ae5da82e4f3ca38fccb9435";
    const SHA1: &str = "sha1=72dc2d67f60868ed4b7ba3a7905b35b80f2d108e";

    fn credentials(
        secrets: &[&str],
        header: Option<HeaderName>,
        signatures: &'static [Signature],
    ) -> Credentials {
        let secrets = secrets.iter().map(|secret| (*secret).to_owned().into());
        let secrets = LiveSecrets::from(secrets.collect::<Vec<SecretString>>());
        Credentials::new(secrets.into(), header, signatures)
    }

    async fn signed(headers: &[(&'static str, &str)], path: Option<&str>, body: &str) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let credentials = credentials(&["another", OLD], None, SIGNATURES);
        match credentials.admit(&map, path).await {
            Ok(Admission::Granted) => true,
            Ok(Admission::BySignature(claim)) => {
                let body = Bytes::copy_from_slice(body.as_bytes());
                credentials.signed(claim, &body).await
            }
            Err(_) => false,
        }
    }

    #[tokio::test]
    async fn a_wrong_secret_is_told_apart_from_a_missing_one() {
        let credentials = credentials(&[OLD], None, SIGNATURES);
        let none = credentials.admit(&HeaderMap::new(), None).await;
        assert!(matches!(none, Err(Error::Unauthenticated)), "{none:?}");
        let path = credentials.admit(&HeaderMap::new(), Some("wrong")).await;
        assert!(matches!(path, Err(Error::WrongSecret)), "{path:?}");
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer old-secre".parse().unwrap());
        let header = credentials.admit(&headers, None).await;
        assert!(matches!(header, Err(Error::WrongSecret)), "{header:?}");
    }

    #[tokio::test]
    async fn with_a_signature_no_secret_counts() {
        assert!(signed(&[("x-one", SHA256)], None, "body").await);
        assert!(signed(&[("x-one", &SHA256.to_uppercase())], None, "body").await);
        assert!(signed(&[("x-two", SHA1)], None, "body").await);
        // The first form of the list counts.
        assert!(signed(&[("x-two", SHA1), ("x-one", SHA256)], None, "body").await);
        assert!(signed(&[("x-one", SHA256), ("x-two", "sha1=0")], None, "body").await);
        assert!(!signed(&[("x-one", &SHA256[..63]), ("x-two", SHA1)], None, "body").await);
        // A shown secret does not replace a wrong signature.
        assert!(!signed(&[("x-one", SHA256)], Some(OLD), "another body").await);
        let bearer = format!("Bearer {OLD}");
        assert!(!signed(&[("x-one", SHA256), ("authorization", &bearer)], None, "").await);
        assert!(!signed(&[("x-one", "")], Some(OLD), "body").await);
        assert!(!signed(&[("x-one", SHA256), ("x-one", "0")], Some(OLD), "body").await);
        assert!(!signed(&[("x-one", OLD)], None, "body").await);
        assert!(!signed(&[("x-two", &SHA1[5..])], None, "body").await);
        assert!(signed(&[("x-two", &SHA1.to_uppercase())], None, "body").await);
    }

    #[tokio::test]
    async fn a_large_body_is_checked_as_a_small_one() {
        let body = "a".repeat(3 << 20);
        // By openssl, as above.
        let right = "6724994aab288c1a808d85e1b8235e65bcc959b36d2decbec3084fe5af742572";
        assert!(signed(&[("x-one", right)], None, &body).await);
        assert!(!signed(&[("x-one", right)], None, &body[1..]).await);
    }

    #[tokio::test]
    async fn a_value_that_can_be_no_signature_is_refused_without_the_body() {
        let credentials = credentials(&[OLD], None, SIGNATURES);
        let signs = format!("+1{}", &SHA256[2..]);
        for value in [
            "0",
            "",
            "sha256=0",
            &SHA256[1..],
            &signs,
            &format!("{SHA256}0"),
        ] {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("x-one"),
                HeaderValue::from_str(value).unwrap(),
            )]);
            let refused = credentials.admit(&headers, Some(OLD)).await;
            assert!(matches!(refused, Err(Error::WrongSignature)), "{value}");
        }
    }

    #[tokio::test]
    async fn a_header_that_proves_the_identity_has_one_value() {
        let own = HeaderName::from_static("x-own");
        let credentials = credentials(&[OLD], Some(own), SIGNATURES);
        for name in ["authorization", "x-own", "x-one", "x-two", "x-or-secret"] {
            for values in [["0", "1"], [OLD, OLD]] {
                let mut headers = HeaderMap::new();
                for value in values {
                    headers.append(name, value.parse().unwrap());
                }
                let refused = credentials.admit(&headers, Some(OLD)).await;
                assert!(matches!(refused, Err(Error::HeaderRepeated)), "{name}");
            }
        }
        // Other headers may be repeated.
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "a".parse().unwrap());
        headers.append("x-forwarded-for", "b".parse().unwrap());
        let granted = credentials.admit(&headers, Some(OLD)).await;
        assert_eq!(granted.unwrap(), Admission::Granted);
    }

    #[tokio::test]
    async fn without_a_signature_the_secret_is_shown() {
        assert!(signed(&[], Some(OLD), "body").await);
        assert!(!signed(&[], Some("wrong"), "body").await);
        assert!(signed(&[("x-or-secret", OLD)], None, "body").await);
        assert!(signed(&[("x-or-secret", SHA256)], None, "body").await);
        assert!(!signed(&[("x-or-secret", "wrong")], Some(OLD), "body").await);
    }

    const OLD: &str = "old-secret";
    const NEW: &str = "new:secret/with+signs";

    fn admits(headers: &[(&str, &str)], path: Option<&str>) -> bool {
        let header = Some(HeaderName::from_static("x-hook-secret"));
        let credentials = credentials(&[OLD, NEW], header, &[]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        credentials.check_secret(&map, path).is_ok()
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    #[test]
    fn each_form_admits_with_either_secret() {
        for secret in [OLD, NEW] {
            assert!(admits(
                &[("authorization", &format!("Bearer {secret}"))],
                None
            ));
            assert!(admits(
                &[("authorization", &format!("bEARER  {secret}"))],
                None
            ));
            assert!(admits(
                &[("authorization", &basic("registry", secret))],
                None
            ));
            assert!(admits(&[("authorization", &basic("", secret))], None));
            assert!(admits(&[("authorization", secret)], None));
            assert!(admits(&[("x-hook-secret", secret)], None));
            assert!(admits(&[], Some(secret)));
        }
    }

    #[test]
    fn one_right_form_is_enough() {
        assert!(admits(
            &[("authorization", "Bearer wrong"), ("x-hook-secret", OLD)],
            None
        ));
        assert!(admits(&[("authorization", "Bearer wrong")], Some(OLD)));
    }

    #[test]
    fn every_other_form_is_refused() {
        assert!(!admits(&[], None));
        assert!(!admits(&[], Some("")));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer old-secret-and-more",
            "Bearer old-secre",
            "Bearer OLD-SECRET",
            "Basic",
            "Basic !!!",
            "Basic old-secret",
            &STANDARD.encode(format!("user:{OLD}")),
            &format!("Basic {}", STANDARD.encode(OLD)),
            &basic(OLD, ""),
            &basic(OLD, "wrong"),
            &format!("Token {OLD}"),
        ] {
            assert!(!admits(&[("authorization", wrong)], None), "{wrong}");
            assert!(!admits(&[("x-hook-secret", wrong)], None), "{wrong}");
        }
        assert!(!admits(&[("x-other-header", OLD), ("cookie", OLD)], None));
    }

    #[test]
    fn a_source_without_secrets_admits_nobody() {
        let none = credentials(&[], None, &[]);
        assert!(none.check_secret(&HeaderMap::new(), Some("")).is_err());
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let credentials = credentials(&[OLD], None, SIGNATURES);
        let shown = format!("{credentials:?}");
        assert!(
            shown.starts_with("Credentials { secrets: Some(Fresh("),
            "{shown}"
        );
        assert!(!shown.contains(OLD), "{shown}");
    }
}
