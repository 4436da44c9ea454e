//! Requests that a foreign web page makes a browser send to this server.
//!
//! A page can send requests to every address that its browser reaches, loopback included, and can
//! read the answers if the name of the page's own host leads to that address (DNS rebinding). The
//! checks are those of Go 1.25 (`http.CrossOriginProtection`), and a check of `Host` before them.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version};
use axum::response::Response;

use crate::problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The hosts of a server, as its clients name them.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    /// Whether other hosts are refused.
    checked: bool,
    names: Vec<String>,
}

/// The reason to refuse a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Forgery {
    #[error("send one Host header, with a host and an optional port")]
    NoHost,
    #[error(
        "this server does not serve the host that the request names: use the address or localhost, or add the host to [pages] hosts in tagtrail.toml"
    )]
    OtherHost,
    #[error(
        "a web page of another origin may not change anything here; send the request from a program, or from a page of this host"
    )]
    OtherOrigin,
}

impl Hosts {
    /// Returns the hosts of a server that listens on `address`. A server on loopback may serve
    /// requests without a proof of identity, so only its own names count: the address, `localhost`
    /// and `names`. Elsewhere every host counts unless there are `names`: there a proof is
    /// required, and containers call one another by names of their own.
    pub(super) fn new(address: SocketAddr, names: Vec<String>) -> Hosts {
        Hosts {
            checked: address.ip().is_loopback() || !names.is_empty(),
            names,
        }
    }

    /// Checks the head of a request.
    pub(super) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<(), Forgery> {
        let Some(host) = host(uri, version, headers)? else {
            return Ok(());
        };
        if self.checked && !self.has(host.host()) {
            return Err(Forgery::OtherHost);
        }
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
        if safe.contains(method) || is_same_origin(&host, headers) {
            return Ok(());
        }
        Err(Forgery::OtherOrigin)
    }

    fn has(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() {
            // Rebinding needs a name.
            return true;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut names = self.names.iter().map(String::as_str);
        host.eq_ignore_ascii_case("localhost") || names.any(|name| host.eq_ignore_ascii_case(name))
    }
}

/// Returns the host that the request is for: of the request line if the line has one, or else of
/// `Host` (RFC 9112, section 3.2). `None`: a request of HTTP/1.0 without a host, which no browser
/// sends.
fn host(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<Option<Authority>, Forgery> {
    let mut values = headers.get_all(HOST).iter();
    let (first, second) = (values.next(), values.next());
    let host = match (first, second) {
        (Some(host), None) => host,
        (None, None) if version < Version::HTTP_11 => return Ok(None),
        _ => return Err(Forgery::NoHost),
    };
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.clone()));
    }
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| Forgery::NoHost)?;
    match authority.as_str().contains('@') {
        true => Err(Forgery::NoHost),
        false => Ok(Some(authority)),
    }
}

/// Returns whether no page of another origin sent the request. Browsers set both headers, and no
/// page can change them.
fn is_same_origin(host: &Authority, headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| site == "same-origin" || site == "none");
    }
    // Older browsers send only `Origin`, and programs send neither.
    headers.get_all(ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
    })
}

impl Forgery {
    pub(super) fn response(self) -> Response {
        let (status, code) = match self {
            Forgery::NoHost => (StatusCode::BAD_REQUEST, "host_invalid"),
            Forgery::OtherHost => (StatusCode::MISDIRECTED_REQUEST, "host_unknown"),
            Forgery::OtherOrigin => (StatusCode::FORBIDDEN, "origin_forbidden"),
        };
        problem::response(status, code, &self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1:8401";
    const PUBLIC: &str = "0.0.0.0:8401";

    fn check(
        address: &str,
        names: &[&str],
        method: Method,
        headers: &[(&str, &str)],
    ) -> Result<(), Forgery> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let hosts = Hosts::new(address.parse().unwrap(), names);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        hosts.check(&method, &Uri::from_static("/v1/x"), Version::HTTP_11, &map)
    }

    #[test]
    fn on_loopback_only_the_servers_own_names_are_served() {
        let other = Err(Forgery::OtherHost);
        for (host, here, named, public) in [
            ("127.0.0.1:8401", Ok(()), Ok(()), Ok(())),
            ("127.0.0.1", Ok(()), Ok(()), Ok(())),
            ("[::1]:8401", Ok(()), Ok(()), Ok(())),
            ("192.0.2.7", Ok(()), Ok(()), Ok(())),
            ("localhost:8401", Ok(()), Ok(()), Ok(())),
            ("LocalHost.", Ok(()), Ok(()), Ok(())),
            ("tags.example.com", other, Ok(()), Ok(())),
            ("TAGS.example.com:443", other, Ok(()), Ok(())),
            ("rebind.example.net:8401", other, other, Ok(())),
            ("localhost.example.net", other, other, Ok(())),
            ("127.0.0.1.example.net", other, other, Ok(())),
            ("0x7f.1", other, other, Ok(())),
            ("gateway:8400", other, other, Ok(())),
        ] {
            let names = ["tags.example.com"];
            for method in [Method::GET, Method::POST] {
                let headers = [("host", host)];
                assert_eq!(
                    check(LOOPBACK, &[], method.clone(), &headers),
                    here,
                    "{host}"
                );
                assert_eq!(
                    check("[::1]:1", &names, method.clone(), &headers),
                    named,
                    "{host}"
                );
                assert_eq!(
                    check(PUBLIC, &names, method.clone(), &headers),
                    named,
                    "{host}"
                );
                assert_eq!(
                    check(PUBLIC, &[], method.clone(), &headers),
                    public,
                    "{host}"
                );
            }
        }
    }

    #[test]
    fn a_request_names_one_host() {
        for headers in [
            &[][..],
            &[("host", "")],
            &[("host", "a b")],
            &[("host", "user@localhost")],
            &[("host", "localhost"), ("host", "rebind.example.net")],
        ] {
            let refused = check(LOOPBACK, &[], Method::GET, headers);
            assert_eq!(refused, Err(Forgery::NoHost), "{headers:?}");
        }
        let hosts = Hosts::new(LOOPBACK.parse().unwrap(), Vec::new());
        let check = |uri, version, headers: &HeaderMap| {
            hosts.check(&Method::GET, &Uri::from_static(uri), version, headers)
        };
        let none = HeaderMap::new();
        assert_eq!(check("/", Version::HTTP_10, &none), Ok(()));
        // A host in the request line replaces `Host`.
        let host = HeaderMap::from_iter([(HOST, "localhost".parse().unwrap())]);
        let refused = check("http://rebind.example.net/", Version::HTTP_11, &host);
        assert_eq!(refused, Err(Forgery::OtherHost));
        assert_eq!(check("http://localhost/", Version::HTTP_11, &host), Ok(()));
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let (refused, passed) = (Err(Forgery::OtherOrigin), Ok(()));
        let own = "http://localhost:8401";
        for (site, origin, expected) in [
            (None, None, passed),
            (Some("same-origin"), None, passed),
            (Some("none"), None, passed),
            (Some("same-origin"), Some("https://evil.example"), passed),
            (Some("cross-site"), None, refused),
            (Some("same-site"), Some(own), refused),
            (Some(""), Some(own), refused),
            (None, Some(own), passed),
            (None, Some("HTTP://LOCALHOST:8401"), passed),
            (None, Some("http://localhost:3000"), refused),
            (None, Some("http://localhost"), refused),
            (None, Some("https://evil.example"), refused),
            (None, Some("localhost:8401"), refused),
            (None, Some("null"), refused),
            (None, Some(""), refused),
        ] {
            let mut headers = vec![("host", "localhost:8401")];
            headers.extend(site.map(|site| ("sec-fetch-site", site)));
            headers.extend(origin.map(|origin| ("origin", origin)));
            for address in [LOOPBACK, PUBLIC] {
                for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                    let found = check(address, &[], method, &headers);
                    assert_eq!(found, expected, "{headers:?}");
                }
                let found = check(address, &[], Method::GET, &headers);
                assert_eq!(found, passed, "{headers:?}");
            }
        }
        let twice = [
            ("host", "localhost"),
            ("sec-fetch-site", "none"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_eq!(check(LOOPBACK, &[], Method::POST, &twice), refused);
    }
}
