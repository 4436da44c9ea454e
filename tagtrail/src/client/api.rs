//! Talking to the API.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::events::Events;

/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Time without a word of an answer; the live feed's heartbeats come every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// Most items that the API gives at once.
const PAGE: usize = 1000;

/// Why there is no answer, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    pub(crate) message: String,
    /// Whether it may be otherwise when asked again.
    pub(crate) passes: bool,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Failure {
        Failure {
            code: 1,
            message: message.into(),
            passes: false,
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Failure {
        Failure {
            code: 3,
            message: message.into(),
            passes: false,
        }
    }

    /// Says it on standard error.
    pub(crate) fn report(self) -> ExitCode {
        // Nobody reads what can't be written.
        let _ = writeln!(std::io::stderr(), "error: {}", self.message);
        ExitCode::from(self.code)
    }
}

/// RFC 9457, as far as it is shown.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    detail: Option<String>,
}

/// The API at one address.
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
            passes: false,
        })?;
        let client = reqwest::Client::builder()
            .read_timeout(SILENCE)
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

    /// Asks for a resource. `path` is in segments, so that no name can leave its place.
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

    /// Does something to a resource.
    pub(crate) async fn post(&self, path: &[&str]) -> Result<Value, Failure> {
        self.send(self.client.post(self.url(path))).await
    }

    /// Reads a list page by page until there are `limit` items or no more: `{"items", "next"}`, as the API writes it.
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
            let mut answer = self.get(path, &query).await?;
            let Some(Value::Array(found)) = answer.get_mut("items").map(Value::take) else {
                return Err(Failure::failed(
                    "the API's answer is not a list; is --api the address of Tagtrail's API?",
                ));
            };
            items.extend(found);
            cursor = answer
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
        // It can be a base: checked when it was made.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url
    }

    /// Opens the live feed.
    pub(crate) async fn follow(
        &self,
        query: &[(&str, Option<String>)],
        last: Option<&str>,
    ) -> Result<Events, Failure> {
        let given: Vec<(&str, &String)> = query
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_ref()?)))
            .collect();
        let mut request = self.client.get(self.url(&["revisions"])).query(&given);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        self.good(request).await.map(Events::new)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let answer = self.good(request.timeout(ANSWER)).await?;
        let body = answer
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|_| {
            Failure::failed("the API's answer is not JSON; is --api the address of Tagtrail's API?")
        })
    }

    /// Sends a request; whatever is not 2xx is a failure.
    async fn good(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        let answer = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer
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
            401 => (1, " (TAGTRAIL_TOKEN holds it)"),
            404 => (3, ""),
            _ => (1, ""),
        };
        Err(Failure {
            code,
            message: format!("{message}{cure}"),
            passes: status.is_server_error(),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Failure {
            passes: true,
            ..Failure::failed(format!(
                "can't reach the API at {}: {cause}; start it with `tagtrail up`, or say where it is with --api or TAGTRAIL_API",
                self.base
            ))
        }
    }
}
