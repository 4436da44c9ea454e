//! Authentication by secret, signature or token.
//!
//! A sender shows the source's secret as a Bearer token, as the password of Basic authentication,
//! as the whole `Authorization` value, in a header that the source names, or, if the sender can set
//! no header, as the last part of the path. Two secrets may be live at once, so that one can be
//! replaced without a gap.
//!
//! If the kind supports signatures and the request carries one, only the signature is checked; a
//! secret in the request no longer counts. A source with an `audience` accepts only tokens.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use subtle::Choice;
use tagtrail_config::Live;
use tagtrail_proto::clean_text;

use crate::proof::id_token::IdTokens;
use crate::proof::signature::Signature;

/// The credentials that a source accepts.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    live: Live,
    header: Option<HeaderName>,
    signed: Option<SignatureRules>,
    tokens: Option<IdTokens>,
}

/// Accepted signatures, and the secrets that sign.
struct SignatureRules {
    by: &'static [Signature],
    secrets: Vec<SecretString>,
}

/// The result of checking the head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The sender is authentic.
    Granted,
    /// The signature must still be checked against the body: see [`Credentials::signed`].
    BySignature,
    /// The request proves no identity.
    Refused,
}

impl Credentials {
    /// Returns credentials that accept the secrets, and `signatures` made with them.
    pub(crate) fn new(
        secrets: &[SecretString],
        header: Option<HeaderName>,
        signatures: &'static [Signature],
    ) -> Credentials {
        let signed = (!signatures.is_empty()).then(|| SignatureRules {
            by: signatures,
            secrets: secrets.to_vec(),
        });
        Credentials {
            live: Live::new(secrets),
            header,
            signed,
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

    /// Checks the head of a request.
    pub(crate) async fn admit(&self, headers: &HeaderMap, path: Option<&str>) -> Admission {
        if let Some(tokens) = &self.tokens {
            return match tokens.admit(headers).await {
                Ok(()) => Admission::Granted,
                Err(why) => {
                    tracing::warn!("a token was refused: {}", clean_text(&why, 300));
                    Admission::Refused
                }
            };
        }
        let signs =
            |signed: &SignatureRules| signed.by.iter().any(|by| headers.contains_key(by.header));
        if self.signed.as_ref().is_some_and(signs) {
            return Admission::BySignature;
        }
        match self.has_secret(headers, path) {
            true => Admission::Granted,
            false => Admission::Refused,
        }
    }

    /// Returns whether the request has signatures, and all of them match the body and a live
    /// secret.
    pub(crate) fn signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let Some(SignatureRules { by, secrets }) = &self.signed else {
            return false;
        };
        let shown = by.iter().filter(|by| headers.contains_key(by.header));
        let (mut any, mut all) = (Choice::from(0), Choice::from(1));
        for signature in shown {
            any = Choice::from(1);
            all &= signature.holds(secrets, headers, body);
        }
        (any & all).into()
    }

    /// Returns whether the request shows a live secret. All candidates are compared with all
    /// secrets, so that the time does not depend on a match.
    fn has_secret(&self, headers: &HeaderMap, path: Option<&str>) -> bool {
        let mut shown: Vec<Vec<u8>> = path
            .map(|secret| secret.as_bytes().to_vec())
            .into_iter()
            .collect();
        if let Some(name) = &self.header {
            shown.extend(
                headers
                    .get_all(name)
                    .iter()
                    .map(|value| value.as_bytes().to_vec()),
            );
        }
        for value in headers.get_all(AUTHORIZATION) {
            shown.push(value.as_bytes().to_vec());
            shown.extend(scheme(value.as_bytes(), b"bearer ").map(<[u8]>::to_vec));
            shown.extend(scheme(value.as_bytes(), b"basic ").and_then(password));
        }
        let mut matched = Choice::from(0);
        for shown in shown {
            matched |= self.live.is(&shown);
        }
        matched.into()
    }
}

impl std::fmt::Debug for SignatureRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignatureRules({} secrets)", self.secrets.len())
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

    async fn signed(headers: &[(&'static str, &str)], path: Option<&str>, body: &str) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let secrets = ["another".to_owned().into(), OLD.to_owned().into()];
        let credentials = Credentials::new(&secrets, None, SIGNATURES);
        match credentials.admit(&map, path).await {
            Admission::Granted => true,
            Admission::BySignature => credentials.signed(&map, body.as_bytes()),
            Admission::Refused => false,
        }
    }

    #[tokio::test]
    async fn with_a_signature_no_secret_counts() {
        assert!(signed(&[("x-one", SHA256)], None, "body").await);
        assert!(signed(&[("x-one", &SHA256.to_uppercase())], None, "body").await);
        assert!(signed(&[("x-two", SHA1)], None, "body").await);
        assert!(signed(&[("x-one", SHA256), ("x-two", SHA1)], None, "body").await);
        // A shown secret does not replace a wrong signature.
        assert!(!signed(&[("x-one", SHA256)], Some(OLD), "another body").await);
        let bearer = format!("Bearer {OLD}");
        assert!(!signed(&[("x-one", SHA256), ("authorization", &bearer)], None, "").await);
        assert!(!signed(&[("x-one", "")], Some(OLD), "body").await);
        assert!(!signed(&[("x-one", SHA256), ("x-one", "0")], Some(OLD), "body").await);
        assert!(!signed(&[("x-one", SHA256), ("x-two", SHA256)], Some(OLD), "body").await);
        assert!(!signed(&[("x-one", OLD)], None, "body").await);
        assert!(!signed(&[("x-two", &SHA1[5..])], None, "body").await);
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
        let secrets = [OLD.to_owned().into(), NEW.to_owned().into()];
        let credentials = Credentials::new(&secrets, header, &[]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        credentials.has_secret(&map, path)
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
        assert!(admits(
            &[("authorization", "Bearer wrong"), ("authorization", OLD)],
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
        assert!(!Credentials::new(&[], None, &[]).has_secret(&HeaderMap::new(), Some("")));
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let credentials = Credentials::new(&[OLD.to_owned().into()], None, SIGNATURES);
        assert_eq!(
            format!("{credentials:?}"),
            "Credentials { live: Live(1 secrets), header: None, signed: Some(SignatureRules(1 secrets)), tokens: None }"
        );
    }
}
