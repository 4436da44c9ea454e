//! Who may post to a source.
//!
//! A sender shows the source's secret as a Bearer token, as the password of Basic authentication, as the whole `Authorization`
//! value, in a header that the source names, or as the last part of the path, for those that can send no header. Two secrets
//! may be live at once, so that one can be replaced without a gap.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use subtle::Choice;
use tagtrail_config::Live;

/// What a sender has to know.
#[derive(Debug)]
pub(crate) struct Credentials {
    live: Live,
    header: Option<HeaderName>,
}

impl Credentials {
    pub(crate) fn new(secrets: &[SecretString], header: Option<HeaderName>) -> Credentials {
        let live = Live::new(secrets);
        Credentials { live, header }
    }

    /// Whether any of what the sender shows is a live secret. Everything is compared with everything, whatever matched before.
    pub(crate) fn admit(&self, headers: &HeaderMap, path: Option<&str>) -> bool {
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

/// What follows the scheme, in whatever case that is written (RFC 9110, section 11.1).
fn scheme<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = value.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| rest.trim_ascii())
}

/// The password of `base64(user:password)` (RFC 7617); it may hold colons. Any user will do.
fn password(credentials: &[u8]) -> Option<Vec<u8>> {
    let plain = STANDARD.decode(credentials).ok()?;
    let colon = plain.iter().position(|byte| *byte == b':')?;
    Some(plain[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old-secret";
    const NEW: &str = "new:secret/with+signs";

    fn admits(headers: &[(&str, &str)], path: Option<&str>) -> bool {
        let header = Some(HeaderName::from_static("x-hook-secret"));
        let credentials = Credentials::new(&[OLD.to_owned().into(), NEW.to_owned().into()], header);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        credentials.admit(&map, path)
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
    fn nothing_else_admits() {
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
        assert!(!Credentials::new(&[], None).admit(&HeaderMap::new(), Some("")));
    }

    #[test]
    fn what_is_printed_holds_no_secret() {
        let credentials = Credentials::new(&[OLD.to_owned().into()], None);
        assert_eq!(
            format!("{credentials:?}"),
            "Credentials { live: Live(1 secrets), header: None }"
        );
    }
}
