//! Requests to the API.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::events::EventStream;

/// Time-out of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence in a response: the live feed sends a heartbeat every 15 s.
const READ_TIMEOUT: Duration = Duration::from_secs(45);
/// Most items on a page of the API.
const PAGE: usize = 1000;

/// An error with an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    pub(crate) message: String,
    /// Set if a retry may succeed.
    pub(crate) retryable: bool,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Failure {
        Failure {
            code: 1,
            message: message.into(),
            retryable: false,
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Failure {
        Failure {
            code: 3,
            message: message.into(),
            retryable: false,
        }
    }

    /// Prints the message on standard error, and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        // If standard error is closed, there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "error: {}", self.message);
        ExitCode::from(self.code)
    }
}

/// The fields of an RFC 9457 problem that are printed.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    detail: Option<String>,
}

/// A client of an API.
pub(crate) struct Api {
    client: reqwest::Client,
    base: reqwest::Url,
    token: Option<SecretString>,
}

impl Api {
    pub(crate) fn new(address: &str, token: Option<SecretString>) -> Result<Api, Failure> {
        let base = reqwest::Url::parse(address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && !url.cannot_be_a_base());
        let base = base.ok_or_else(|| Failure {
            code: 2,
            message: format!("--api {address:?} is not an address such as http://127.0.0.1:8401"),
            retryable: false,
        })?;
        // Not `tagtrail_daemon::client`: people may reach the API through a proxy, and a response
        // of the live feed has no end.
        let client = reqwest::Client::builder()
            .read_timeout(READ_TIMEOUT)
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("tagtrail/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::failed(format!("can't make an HTTP client: {error}")))?;
        Ok(Api {
            client,
            base,
            token,
        })
    }

    /// Sends a GET request. Each segment of `path` is percent-encoded, so that no name can
    /// change the path.
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, Option<String>)],
    ) -> Result<Value, Failure> {
        let given: Vec<(&str, &String)> = query
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_ref()?)))
            .collect();
        self.send(self.client.get(self.url(path)).query(&given))
            .await
    }

    /// Sends a POST request without a body.
    pub(crate) async fn post(&self, path: &[&str]) -> Result<Value, Failure> {
        self.send(self.client.post(self.url(path))).await
    }

    /// Reads a list page by page, up to `limit` items. Returns `{"items", "next"}`, as the API
    /// does.
    pub(crate) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, Option<String>)],
        limit: usize,
    ) -> Result<Value, Failure> {
        let mut items: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = (limit - items.len()).min(PAGE);
            let mut query = query.to_vec();
            query.extend([("limit", Some(page.to_string())), ("cursor", cursor)]);
            let mut response = self.get(path, &query).await?;
            let Some(Value::Array(found)) = response.get_mut("items").map(Value::take) else {
                return Err(Failure::failed(
                    "the response is not a list; is --api the address of Tagtrail's API?",
                ));
            };
            items.extend(found);
            cursor = response
                .get("next")
                .and_then(Value::as_str)
                .map(str::to_owned);
            if cursor.is_none() || items.len() >= limit {
                return Ok(json!({ "items": items, "next": cursor }));
            }
        }
    }

    fn url(&self, path: &[&str]) -> reqwest::Url {
        let mut url = self.base.clone();
        // Never fails: `Api::new` checked that the URL can be a base.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url
    }

    /// Opens the live feed, after the event with the id `last`.
    pub(crate) async fn follow(
        &self,
        query: &[(&str, Option<String>)],
        last: Option<&str>,
    ) -> Result<EventStream, Failure> {
        let given: Vec<(&str, &String)> = query
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_ref()?)))
            .collect();
        let mut request = self.client.get(self.url(&["revisions"])).query(&given);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        self.successful(request).await.map(EventStream::new)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let response = self.successful(request.timeout(REQUEST_TIMEOUT)).await?;
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|_| {
            Failure::failed("the response is not JSON; is --api the address of Tagtrail's API?")
        })
    }

    /// Sends a request. A status other than 2xx is a [`Failure`].
    async fn successful(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, Failure> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let message = match serde_json::from_slice::<Problem>(&body) {
            Ok(Problem {
                detail: Some(detail),
                ..
            }) => detail,
            Ok(Problem { title, .. }) if !title.is_empty() => title,
            _ => format!("the API answered {status}; is --api the address of Tagtrail's API?"),
        };
        let (code, cure) = match status.as_u16() {
            400 => (2, ""),
            401 => (1, " (set it with TAGTRAIL_TOKEN)"),
            404 => (3, ""),
            _ => (1, ""),
        };
        Err(Failure {
            code,
            message: format!("{message}{cure}"),
            retryable: status.is_server_error(),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Failure {
            retryable: true,
            ..Failure::failed(format!(
                "can't reach the API at {}: {cause}; start it with `tagtrail up`, or set its address with --api or TAGTRAIL_API",
                self.base
            ))
        }
    }
}
