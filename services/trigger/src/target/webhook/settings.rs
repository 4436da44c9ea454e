//! The settings below `target.webhook`, and the parts of a request that they name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tagtrail_config::{Fresh, Secret, Secrets, Text};
use tagtrail_daemon::Route;
use tagtrail_proto::Digest;

use super::super::address::{self, Allowed};
use super::super::contract::settings;
use super::super::signature::SigningKey;
use super::template::{Template, check_json};

/// Shortest text that is cut out of answers as a part of a secret: shorter ones are parts of words.
const HIDDEN: usize = 4;
/// Shortest part of a path, and shortest value of a query, that may be a token.
const SEGMENT: usize = 16;
const VALUE: usize = 8;
/// Most headers, and most bytes of one of them or of the URL: receivers refuse more.
const MOST_HEADERS: usize = 32;
const LONGEST: usize = 8 * 1024;

/// Headers of the connection, and those that Tagtrail sets itself.
const RESERVED: [&str; 16] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// The settings as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    url: Text,
    /// The keys of the signatures; two during a change.
    secret: Option<Secrets>,
    #[serde(default)]
    headers: BTreeMap<String, Text>,
    #[serde(default)]
    method: Verb,
    content_type: Option<String>,
    /// A template of the body, in place of the event.
    body: Option<String>,
    /// The certificate authority of the receiver, besides those of the system.
    ca: Option<Secret>,
    /// The proxy to the receiver, or `none`.
    proxy: Option<Text>,
    /// Time limit of the whole exchange.
    #[serde(default = "half_a_minute")]
    timeout_seconds: u64,
    /// The meaning of an answer 2xx.
    #[serde(default)]
    done: Answer,
    /// The receiver, for [`Caller::identity`](super::Caller::identity).
    #[serde(skip)]
    pub(super) identity: String,
}

/// The meaning of an answer 2xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    /// The receiver has the images.
    #[default]
    Accepted,
    /// The receiver has taken the rollout, and reports the result later.
    Reported,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    #[default]
    Post,
    Put,
    Patch,
}

fn half_a_minute() -> u64 {
    30
}

impl Settings {
    /// Reads the settings, whose relative paths begin in `folder`. Secrets are not read.
    pub(crate) fn parse(value: &toml::Value, folder: &Path) -> Result<Settings, String> {
        let mut written: Settings = settings(value)?;
        if !(1..=600).contains(&written.timeout_seconds) {
            return Err("timeout_seconds must be 1 to 600".to_owned());
        }
        if written.headers.len() > MOST_HEADERS {
            return Err(format!("headers has more than {MOST_HEADERS} entries"));
        }
        written.identity = identity(&written.url);
        written.url = written.url.in_folder(folder);
        written.secret = written.secret.map(|secret| secret.in_folder(folder));
        written.ca = written.ca.map(|ca| ca.in_folder(folder));
        written.proxy = written.proxy.map(|proxy| proxy.in_folder(folder));
        let headers = std::mem::take(&mut written.headers).into_iter();
        written.headers = headers
            .map(|(name, value)| (name, value.in_folder(folder)))
            .collect();
        Ok(written)
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    pub(super) fn done(&self) -> Answer {
        self.done
    }

    pub(super) fn method(&self) -> Method {
        match self.method {
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Patch => Method::PATCH,
        }
    }

    /// Returns the way to the receiver.
    pub(super) fn route(&self) -> Result<Route, String> {
        let mut route = Route::default();
        if let Some(ca) = &self.ca {
            let pem = ca.read().map_err(|error| error.to_string());
            let trusting = pem.and_then(|pem| route.trusting(pem.expose_secret()));
            route = trusting.map_err(|why| format!("ca: {why}"))?;
        }
        if let Some(proxy) = &self.proxy {
            let proxy = proxy.read().map_err(|error| error.to_string());
            let via = proxy.and_then(|proxy| route.via(proxy.expose_secret()));
            route = via.map_err(|why| format!("proxy: {why}"))?;
        }
        Ok(route)
    }

    /// Returns the client of the receiver at `access`, whose requests go to these addresses alone;
    /// `None`: to all.
    pub(super) fn client(
        &self,
        access: &Access,
        allowed: Option<&Allowed>,
    ) -> Result<Client, String> {
        let mut route = self.route()?;
        if let Some(allowed) = allowed {
            allowed.check(&access.url)?;
            if access.url.scheme() == "http" && !address::is_loopback(&access.url) {
                return Err(
                    "url must start with https:// in a trigger of the API, since others on the way can read http://".to_owned(),
                );
            }
            // A proxy would resolve the name itself, and could reach what must not be reached.
            route = route.via("none")?.resolving(allowed.clone());
        }
        route.build(self.timeout())
    }

    /// Returns whether a template makes the body.
    pub(crate) fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// Returns the value of the header `Content-Type`, which is `usual` without the setting.
    pub(super) fn content_type(&self, usual: &str) -> Result<HeaderValue, String> {
        let written = self.content_type.as_deref().unwrap_or(usual);
        let value = HeaderValue::from_str(written).ok();
        value.filter(|_| written.contains('/')).ok_or_else(|| {
            format!(
                "content_type: {written:?} is no media type; write one such as \"application/json\""
            )
        })
    }

    /// Returns the template of the body, tried with sample events.
    pub(crate) fn template(
        &self,
        usual: &str,
        samples: impl FnOnce() -> Result<Vec<Vec<u8>>, String>,
    ) -> Result<Option<Template>, String> {
        let Some(text) = &self.body else {
            return Ok(None);
        };
        let content_type = self.content_type(usual)?;
        let json = content_type.to_str().is_ok_and(is_json);
        let tried = Template::parse(text, json).and_then(|template| {
            for sample in samples()? {
                let body = template.render(&sample)?;
                if json {
                    check_json(&body)?;
                }
            }
            Ok(template)
        });
        tried.map(Some).map_err(|why| format!("body: {why}"))
    }

    /// Returns the places of all secrets.
    pub(super) fn places(&self) -> Vec<&Secret> {
        let keys = self.secret.iter().flat_map(|secrets| secrets.kept());
        keys.chain(self.credentials()).collect()
    }

    /// Returns the places of the secrets that the receiver sees in a request.
    fn credentials(&self) -> impl Iterator<Item = &Secret> {
        let texts = [&self.url].into_iter().chain(self.headers.values());
        texts.filter_map(Text::secret)
    }

    /// Returns whether the receiver can tell a rollout of Tagtrail from one of a stranger.
    pub(super) fn authenticates(&self) -> bool {
        self.secret.is_some() || self.credentials().next().is_some()
    }
}

/// The parts of a request that may be secret. Without `Debug`: nothing may log them.
pub(super) struct Access {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Empty: rollouts are not signed.
    pub(super) keys: Vec<SigningKey>,
    /// The texts that no error shows, the longest first.
    hidden: Vec<String>,
}

impl Access {
    /// Reads all secrets, again when one changes. `of` names their owner in the log.
    pub(super) fn fresh(settings: &Arc<Settings>, of: String) -> Result<Fresh<Access>, String> {
        let places = settings.places().into_iter().cloned().collect();
        let settings = Arc::clone(settings);
        Fresh::new(of, places, move || Access::read(&settings))
    }

    /// Reads all secrets. An error names the key and the cure, and no secret.
    fn read(settings: &Settings) -> Result<Access, String> {
        let mut hidden = Vec::new();
        let url = read("url", &settings.url, &mut hidden)?;
        let url = Url::parse(url.expose_secret())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.as_str().len() <= LONGEST)
            .ok_or("url must start with https:// (or http://)")?;
        hidden.extend(parts(&url));
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let key = format!("headers.{name}");
            let text = read(&key, value, &mut hidden)?;
            let name = header_name(name).map_err(|why| format!("{key}: {why}"))?;
            let value = header_value(&text, value.secret().is_some()).ok_or_else(|| {
                format!("{key}: the value may have printable ASCII characters only, 8 KiB at most")
            })?;
            if headers.insert(name, value).is_some() {
                return Err(format!("{key}: the header is set twice; keep one"));
            }
        }
        let mut keys = Vec::new();
        for secret in settings.secret.iter().flat_map(|secrets| secrets.kept()) {
            let text = secret.read().map_err(|error| error.to_string())?;
            let text = text.expose_secret();
            let key = SigningKey::parse(text).ok_or("the secret must be whsec_ and 24 to 64 bytes in Base64; make one with: echo \"whsec_$(head -c 32 /dev/urandom | base64)\"")?;
            hidden.push(text.trim_start_matches("whsec_").to_owned());
            keys.push(key);
        }
        hidden.retain(|text| text.len() >= HIDDEN);
        hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Ok(Access {
            url,
            headers,
            keys,
            hidden,
        })
    }

    /// Returns the server without the path, which may hold a secret.
    pub(super) fn server(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Returns the texts that nothing shows.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &str> {
        self.hidden.iter().map(String::as_str)
    }

    /// Replaces the URL, its path and query, and all secrets in a text.
    pub(super) fn hide(&self, text: &str) -> String {
        let hidden = self.hidden.iter();
        hidden.fold(text.to_owned(), |text, hidden| text.replace(hidden, "…"))
    }
}

/// Returns the identity of a receiver: of its URL as a hash, because a token may stand in the path,
/// or of the name of the secret that holds the URL, so that a new token is no other receiver. Paths
/// count as written: the folder of the file may be named in several ways.
fn identity(url: &Text) -> String {
    let text = match url {
        Text::Plain(url) => {
            let parsed = Url::parse(url);
            parsed.map_or_else(|_| url.clone(), |url| url.as_str().to_owned())
        }
        Text::Secret { prefix, secret } => format!("{prefix}{secret}"),
    };
    format!("webhook {}", Digest::sha256_of(text.as_bytes()))
}

/// Reads a text, and notes a secret among the texts to hide.
fn read(key: &str, text: &Text, hidden: &mut Vec<String>) -> Result<SecretString, String> {
    let whole = text.read().map_err(|error| format!("{key}: {error}"))?;
    if let Text::Secret { prefix, .. } = text {
        let secret = whole.expose_secret().strip_prefix(prefix.as_str());
        hidden.extend(secret.map(str::to_owned));
    }
    Ok(whole)
}

/// Returns the texts of a URL that an error must not show. Receivers repeat the path in their
/// answers, as a whole or in parts, and tokens stand in the path as well as in the query.
fn parts(url: &Url) -> Vec<String> {
    let (path, query) = (url.path(), url.query().unwrap_or_default());
    let mut parts = vec![
        url.as_str().to_owned(),
        format!("{path}?{query}"),
        path.to_owned(),
        query.to_owned(),
        url.password().unwrap_or_default().to_owned(),
    ];
    let segments = path.split('/').filter(|segment| segment.len() >= SEGMENT);
    parts.extend(segments.map(str::to_owned));
    let written = query.split('&').filter_map(|pair| pair.split_once('='));
    let written = written.map(|(_, value)| value.to_owned());
    let values = written.chain(url.query_pairs().map(|(_, value)| value.into_owned()));
    parts.extend(values.filter(|value| value.len() >= VALUE));
    parts
}

/// Returns whether a body of this media type is JSON (RFC 6839).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| "is no name of a header; write one such as X-Token".to_owned())?;
    match parsed.as_str() {
        "content-type" => Err("is set by content_type".to_owned()),
        reserved if RESERVED.contains(&reserved) => {
            Err("is set by Tagtrail or by the connection; remove it".to_owned())
        }
        _ => Ok(parsed),
    }
}

fn header_value(text: &SecretString, secret: bool) -> Option<HeaderValue> {
    let text = text.expose_secret();
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(secret);
    (text.len() <= LONGEST).then_some(value)
}
