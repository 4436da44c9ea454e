//! HTTP clients.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::Resolve;
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy, Url, redirect};

use crate::chain;

/// The time-out of opening a TCP and TLS connection.
const CONNECT: Duration = Duration::from_secs(5);
/// This machine, in the form of `NO_PROXY`: a proxy elsewhere cannot reach it.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1,::ffff:7f00:0/104";
/// The time for which a client is given to several callers: longer than it takes to read all
/// settings. After that the authorities of the system are read again.
const SHARED: Duration = Duration::from_secs(60);
/// The clients of the usual way, by their time-outs, each with the time at which it was made.
static USUAL: Mutex<BTreeMap<Duration, (Instant, Client)>> = Mutex::new(BTreeMap::new());
/// The word in place of a proxy for direct connections.
const DIRECT: &str = "none";

/// Returns the builder of an HTTP client for one of Tagtrail's own servers: requests, response body
/// included, take at most `timeout`.
///
/// The client follows no redirect: a request may hold a secret, which only the configured address
/// may receive. It uses no proxy: see [`Route`] for servers of others.
pub fn client(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(timeout)
        .connect_timeout(CONNECT)
        .user_agent(concat!("tagtrail/", env!("CARGO_PKG_VERSION")))
}

/// The way to a server of others: the trusted certificate authorities besides those of the system,
/// and the proxy. The default trusts the system, and uses the proxies of the environment.
#[derive(Clone, Default)]
pub struct Route {
    authorities: Vec<Certificate>,
    /// `None`: the proxies of the environment.
    proxies: Option<Vec<Proxy>>,
    /// `None`: names are resolved by the system.
    resolver: Option<Arc<dyn Resolve>>,
}

impl Route {
    /// Also trusts the certificates in a PEM text.
    ///
    /// # Errors
    /// The text has no certificate.
    pub fn trusting(mut self, pem: &str) -> Result<Route, String> {
        let found = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
        if found.is_empty() {
            let message =
                "the file has no certificate in PEM; the first line of one is BEGIN CERTIFICATE";
            return Err(message.to_owned());
        }
        self.authorities.extend(found);
        Ok(self)
    }

    /// Sends requests by this proxy, also those to this machine; `none`: by no proxy.
    ///
    /// # Errors
    /// The text is no URL of a proxy. The error does not contain the text, which may hold a
    /// password.
    pub fn via(mut self, proxy: &str) -> Result<Route, String> {
        self.proxies = Some(match proxy {
            DIRECT => Vec::new(),
            proxy => vec![of_url(proxy, Proxy::all::<Url>)?],
        });
        Ok(self)
    }

    /// Resolves names by this resolver, for each connection.
    #[must_use]
    pub fn resolving(mut self, resolver: impl Resolve + 'static) -> Route {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Returns the builder of a client as [`client`] does, for this way.
    ///
    /// # Errors
    /// A variable of the environment names no proxy.
    pub fn client(&self, timeout: Duration) -> Result<ClientBuilder, String> {
        self.apply(client(timeout))
    }

    /// Makes a client go this way.
    ///
    /// # Errors
    /// As [`Route::client`].
    pub fn apply(&self, builder: ClientBuilder) -> Result<ClientBuilder, String> {
        let proxies = match &self.proxies {
            Some(proxies) => proxies.clone(),
            None => of_environment(variable)?,
        };
        let mut builder = builder.no_proxy();
        for proxy in proxies {
            builder = builder.proxy(proxy);
        }
        if let Some(resolver) = &self.resolver {
            builder = builder.dns_resolver(Arc::clone(resolver));
        }
        if self.authorities.is_empty() {
            return Ok(builder);
        }
        Ok(builder.tls_certs_merge(self.authorities.iter().cloned()))
    }

    /// Builds a client as [`Route::client`] does. Callers of the usual way share clients, so that a
    /// thousand of them do not read and hold the authorities of the system a thousand times.
    ///
    /// # Errors
    /// As [`Route::client`], and a certificate that cannot be an authority.
    pub fn build(&self, timeout: Duration) -> Result<Client, String> {
        let build = || {
            let built = self.client(timeout)?.build();
            built.map_err(|error| format!("can't make an HTTP client: {}", chain(&error)))
        };
        if !self.authorities.is_empty() || self.proxies.is_some() || self.resolver.is_some() {
            return build();
        }
        let mut usual = USUAL.lock().unwrap_or_else(PoisonError::into_inner);
        usual.retain(|_, (made, _)| made.elapsed() < SHARED);
        if let Some((_, client)) = usual.get(&timeout) {
            return Ok(client.clone());
        }
        let client = build()?;
        usual.insert(timeout, (Instant::now(), client.clone()));
        Ok(client)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({} authorities)", self.authorities.len())
    }
}

/// Makes a proxy for the requests of a kind: `https`, `http` or all.
type Kind = fn(Url) -> reqwest::Result<Proxy>;

/// Returns the proxies of the environment, as curl and others read them.
fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Proxy>, String> {
    let either = |name: &str| {
        let name = [name.to_owned(), name.to_ascii_lowercase()];
        name.into_iter()
            .find_map(|name| Some((variable(&name)?, name)))
    };
    let direct = either("NO_PROXY").map_or_else(String::new, |(names, _)| names + ",");
    let direct = NoProxy::from_string(&format!("{direct}{LOOPBACK}"));
    let kinds: [(&str, Kind); 3] = [
        ("HTTPS_PROXY", Proxy::https::<Url>),
        ("HTTP_PROXY", Proxy::http::<Url>),
        ("ALL_PROXY", Proxy::all::<Url>),
    ];
    let mut proxies = Vec::new();
    for (name, kind) in kinds {
        let Some((text, name)) = either(name) else {
            continue;
        };
        let proxy = of_url(&text, kind).map_err(|why| format!("{name}: {why}"))?;
        proxies.push(proxy.no_proxy(direct.clone()));
    }
    Ok(proxies)
}

/// Makes a proxy of a URL, which may lack `http://`.
fn of_url(text: &str, kind: Kind) -> Result<Proxy, String> {
    const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
    let url = match text.contains("://") {
        true => Url::parse(text),
        false => Url::parse(&format!("http://{text}")),
    };
    url.ok()
        .filter(|url| url.has_host() && SCHEMES.contains(&url.scheme()))
        .and_then(|url| kind(url).ok())
        .ok_or_else(|| {
            "is no URL of a proxy; write one such as http://proxy.example.com:3128".to_owned()
        })
}

/// Returns a variable that is set and not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "the variables of proxies are common to all programs, and no settings of Tagtrail"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn a_proxy_is_a_url_or_none_and_an_error_hides_the_text() {
        for proxy in [
            "none",
            "http://proxy.example.com:3128",
            "https://user:password@proxy.example.com",
            "socks5h://proxy.example.com",
            "proxy.example.com:3128",
            "127.0.0.1:3128",
        ] {
            Route::default().via(proxy).unwrap();
        }
        for proxy in [
            "",
            "ftp://proxy.example.com",
            "http://",
            "http://user:hidden@",
        ] {
            let error = Route::default().via(proxy).unwrap_err();
            assert!(error.contains("http://proxy.example.com:3128"), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
        let route = Route::default().via("http://user:hidden@proxy.example.com");
        assert!(!format!("{route:?}").contains("hidden"));
    }

    #[test]
    fn the_environment_names_proxies_in_either_case() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            of_environment(|name| {
                let found = set.iter().find(|(set, _)| set == name)?;
                Some(found.1.clone())
            })
        };
        assert_eq!(of(&[]).unwrap().len(), 0);
        let two = [("https_proxy", "http://a:1"), ("HTTP_PROXY", "b:2")];
        assert_eq!(of(&two).unwrap().len(), 2);
        assert_eq!(of(&[("all_proxy", "socks5://c")]).unwrap().len(), 1);
        let error = of(&[("https_proxy", "ftp://hidden")]).unwrap_err();
        assert!(
            error.starts_with("https_proxy: ") && !error.contains("hidden"),
            "{error}"
        );
    }

    /// Answers every request with this status.
    async fn server(status: u16) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes()).await;
            }
        });
        (address, server)
    }

    #[tokio::test]
    async fn loopback_and_no_proxy_are_reached_directly() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ((proxy, _proxying), (local, _serving)) = (server(218).await, server(204).await);
        let of = |name: &str| match name {
            "http_proxy" => Some(format!("http://{proxy}")),
            "NO_PROXY" => Some("corp.example, 192.0.2.0/24".to_owned()),
            _ => None,
        };
        let mut builder =
            client(Duration::from_secs(5)).connect_timeout(Duration::from_millis(300));
        for proxy in of_environment(of).unwrap() {
            builder = builder.proxy(proxy);
        }
        let client = builder.build().unwrap();
        let port = local.port();
        for (url, expected) in [
            (format!("http://127.0.0.1:{port}"), Some(204)),
            (format!("http://localhost:{port}"), Some(204)),
            ("http://deploy.invalid".to_owned(), Some(218)),
            ("http://notcorp.example".to_owned(), Some(218)),
            ("http://10.255.255.1".to_owned(), Some(218)),
            // Nobody has these addresses and names.
            ("http://192.0.2.7".to_owned(), None),
            ("http://deploy.corp.example".to_owned(), None),
        ] {
            let answer = client.get(&url).send().await.ok();
            let status = answer.map(|answer| answer.status().as_u16());
            assert_eq!(status, expected, "{url}");
        }
    }

    #[tokio::test]
    async fn callers_of_the_usual_way_share_a_client() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // Every connection stays open.
            let mut connections = JoinSet::new();
            for accepted in 0_u16.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let status = 200 + accepted;
                        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                        stream.write_all(head.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        let direct = Route::default().via(DIRECT).unwrap();
        for (route, seconds, connection) in [
            (&Route::default(), 77, 200),
            (&Route::default(), 77, 200),
            (&Route::default(), 78, 201),
            (&direct, 77, 202),
        ] {
            let client = route.build(Duration::from_secs(seconds)).unwrap();
            let answer = client.get(&url).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), connection);
            answer.bytes().await.unwrap();
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        for pem in [
            "",
            "no certificate",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            let error = Route::default().trusting(pem).unwrap_err();
            assert!(error.contains("BEGIN CERTIFICATE"), "{error}");
        }
    }
}
