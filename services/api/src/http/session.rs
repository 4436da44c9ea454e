//! Sessions of browsers: a token is exchanged for a cookie, so that pages and the live feed can be
//! opened, which send no `Authorization` header.
//!
//! The cookie holds the name of the token, the time of the exchange, and a signature by the secret
//! of the token. Nothing is stored: any number of api services know each session, and a new secret
//! ends all of them.

use std::sync::Arc;

use axum::http::header::{COOKIE, HOST};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tagtrail_config::Live;
use time::{Duration, OffsetDateTime};

use crate::http::tokens::Holder;

/// The time after which a person signs in again.
pub(crate) const LASTS: Duration = Duration::hours(12);
/// A session may be this much younger than now: clocks of several api services differ.
const AHEAD: Duration = Duration::minutes(1);
/// The cookie by https: browsers take a name with this prefix only from this host, and only if it
/// is secure.
const SECURE: &str = "__Host-tagtrail";
/// The cookie on loopback, which is reached without TLS.
const PLAIN: &str = "tagtrail";
/// Longest value that is read.
const LONGEST: usize = 200;

/// The holder of a token, of whom the pages have made sure before they call an operation of the
/// API. No request from outside can carry this.
#[derive(Debug, Clone)]
pub(crate) struct SignedIn(pub(crate) Option<Arc<Holder>>);

/// Returns the value of the cookie of a session that begins now. `None`: no secret is live.
pub(crate) fn write(name: &str, live: &Live, now: OffsetDateTime) -> Option<String> {
    let begins = now.unix_timestamp();
    let signature = live.sign(&message(name, begins))?;
    let signature = URL_SAFE_NO_PAD.encode(signature);
    Some(format!("{name}.{begins}.{signature}"))
}

/// A value of the cookie that is not checked yet.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    /// The name of the token.
    pub(crate) name: &'a str,
    begins: i64,
    signature: Vec<u8>,
}

impl Shown<'_> {
    /// Returns whether the session lasts now, and was signed with a live secret.
    pub(crate) fn holds(&self, live: &Live, now: OffsetDateTime) -> bool {
        let age = now.unix_timestamp().saturating_sub(self.begins);
        let lasts = (-AHEAD.whole_seconds()..LASTS.whole_seconds()).contains(&age);
        let signed = live.has_signed(&message(self.name, self.begins), &self.signature);
        lasts & bool::from(signed)
    }
}

/// Finds the session in the headers of a request.
pub(crate) fn find(headers: &HeaderMap) -> Option<Shown<'_>> {
    let value = cookie(headers, SECURE).or_else(|| cookie(headers, PLAIN))?;
    if value.len() > LONGEST {
        return None;
    }
    let mut parts = value.splitn(3, '.');
    Some(Shown {
        name: parts.next()?,
        begins: parts.next()?.parse().ok()?,
        signature: URL_SAFE_NO_PAD.decode(parts.next()?).ok()?,
    })
}

/// Returns the value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(this, _)| *this == name)
        .map(|(_, value)| value)
}

/// Returns the header `Set-Cookie` that begins a session, or ends it with an empty value.
pub(crate) fn set_cookie(headers: &HeaderMap, value: &str) -> Option<HeaderValue> {
    let seconds = match value.is_empty() {
        true => 0,
        false => LASTS.whole_seconds(),
    };
    let (name, secure) = match is_loopback(headers) {
        true => (PLAIN, ""),
        false => (SECURE, "; Secure"),
    };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).ok()
}

/// Returns whether the browser reaches this server on its own machine, where no TLS is needed.
pub(crate) fn is_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    bare.eq_ignore_ascii_case("localhost") || bare == "[::1]" || {
        let address = bare.parse::<std::net::Ipv4Addr>();
        address.is_ok_and(|address| address.is_loopback())
    }
}

fn message(name: &str, begins: i64) -> Vec<u8> {
    // The label keeps these signatures apart from others that may once be made with a secret.
    format!("tagtrail session 1\n{name}\n{begins}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(secret: &str) -> Live {
        Live::new(&[secret.to_owned().into()])
    }

    fn holds(value: &str, live: &Live, now: OffsetDateTime) -> bool {
        let mut headers = HeaderMap::new();
        let cookies = format!("theme=dark; {PLAIN}={value}; x=y");
        headers.insert(COOKIE, cookies.parse().unwrap());
        find(&headers).is_some_and(|shown| shown.holds(live, now))
    }

    #[test]
    fn a_session_lasts_twelve_hours_and_ends_with_its_secret() {
        let (now, secret) = (OffsetDateTime::now_utc(), live("operating-secret"));
        let value = write("deployer", &secret, now).unwrap();
        assert!(holds(&value, &secret, now));
        assert!(holds(&value, &secret, now + LASTS - Duration::SECOND));
        assert!(!holds(&value, &secret, now + LASTS));
        assert!(!holds(&value, &secret, now - Duration::HOUR));
        assert!(!holds(&value, &live("another-secret-0"), now));
        let both = Live::new(&[
            "another-secret-0".to_owned().into(),
            "operating-secret".to_owned().into(),
        ]);
        assert!(holds(&value, &both, now), "the old secret is live still");
    }

    #[test]
    fn a_cookie_with_one_bit_changed_is_no_session() {
        let (now, secret) = (OffsetDateTime::now_utc(), live("operating-secret"));
        let value = write("deployer", &secret, now).unwrap();
        for place in 0..value.len() {
            let mut bytes = value.clone().into_bytes();
            bytes[place] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(!holds(&changed, &secret, now), "{place}");
            }
        }
        for wrong in [
            "",
            "a",
            "a.b",
            "a.1.",
            "..",
            "deployer.99999999999999999999.AA",
        ] {
            assert!(!holds(wrong, &secret, now), "{wrong}");
        }
    }

    #[test]
    fn the_cookie_is_plain_on_loopback_alone() {
        for (host, loopback) in [
            ("localhost:8401", true),
            ("127.0.0.1:8401", true),
            ("127.9.9.9", true),
            ("[::1]:8401", true),
            ("tagtrail.example.com", false),
            ("127.0.0.1.example.com", false),
            ("localhost.example.com:80", false),
            ("10.0.0.1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            let set = set_cookie(&headers, "v").unwrap();
            let set = set.to_str().unwrap();
            assert!(set.contains("HttpOnly; SameSite=Lax"), "{set}");
            assert_eq!(set.contains("; Secure"), !loopback, "{set}");
            assert_eq!(set.starts_with("__Host-"), !loopback, "{set}");
        }
    }
}
