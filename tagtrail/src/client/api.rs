//! Requests to the API.

use std::process::ExitCode;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tagtrail_daemon::Route;

use super::events::EventStream;
use super::origin::Origin;

/// The failure that a problem of the API means. `None`: not a problem of this API. The API names
/// cures for programs that send requests; the client names its own commands.
fn failure(status: StatusCode, problem: Problem) -> Option<Failure> {
    let (code, exit) = (problem.code?, status.as_u16());
    let detail = problem.detail.unwrap_or(problem.title);
    let (exit, message) = match (exit, code.as_str()) {
        (404, "trigger_unknown") => (
            3,
            "there is no such trigger; `tagtrail triggers` lists them".to_owned(),
        ),
        (404, "rollout_unknown") => (
            3,
            "there is no such rollout; `tagtrail rollouts` lists them".to_owned(),
        ),
        (404, "hold_unknown") => (
            3,
            "there is no such hold in force; `tagtrail holds` lists them".to_owned(),
        ),
        (401, _) => (1, detail),
        (400, _) => (2, detail),
        (404, "repository_unknown") => {
            // The API names its own list as the cure.
            (3, detail.split(';').next().unwrap_or_default().to_owned())
        }
        (
            404,
            "tag_unknown" | "tag_deleted" | "revision_unknown" | "manifest_unknown"
            | "digest_unknown" | "quarantine_unknown" | "report_unknown",
        ) => (3, detail),
        // The path of a command exists in every API of this version, and the gateway and other
        // servers have codes of their own.
        (404, _) => return None,
        _ => (1, detail),
    };
    Some(Failure {
        code: exit,
        message,
        retryable: status.is_server_error(),
        problem: code,
    })
}

/// Names the client's own setting in the failure of a request without the right token.
fn unauthenticated(failure: Failure, sent: bool) -> Failure {
    let message = match sent {
        false => {
            "the API requires a token: set TAGTRAIL_TOKEN to the secret of a [[token]] in tagtrail.toml"
        }
        true => {
            "the API refuses the token: set TAGTRAIL_TOKEN to the secret of a [[token]] in tagtrail.toml, which the API reads when it starts"
        }
    };
    Failure {
        message: message.to_owned(),
        ..failure
    }
}

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
    /// The code of the API's problem; empty for other failures.
    pub(crate) problem: String,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Failure {
        Failure {
            code: 1,
            message: message.into(),
            retryable: false,
            problem: String::new(),
        }
    }

    /// A mistake in the arguments.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure {
            code: 2,
            ..Failure::failed(message)
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Failure {
        Failure {
            code: 3,
            ..Failure::failed(message)
        }
    }

    /// Adds a cure or a question to the message.
    pub(crate) fn and(self, more: &str) -> Failure {
        Failure {
            message: format!("{}; {more}", self.message),
            ..self
        }
    }

    /// Prints the message on standard error, and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        super::print::error(&self.message);
        ExitCode::from(self.code)
    }
}

/// The fields of an RFC 9457 problem that are printed.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    detail: Option<String>,
    /// The API always sends a code; other servers do not.
    code: Option<String>,
}

/// Parses the URL of a server. A host with a port, such as `127.0.0.1:8401`, means HTTP.
pub(crate) fn http_url(address: &str) -> Option<reqwest::Url> {
    let url = match (address.contains("://"), address.contains(':')) {
        (true, _) => reqwest::Url::parse(address),
        (false, true) => reqwest::Url::parse(&format!("http://{address}")),
        (false, false) => return None,
    };
    url.ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// A client of an API.
pub(crate) struct Api {
    client: reqwest::Client,
    base: reqwest::Url,
    origin: Origin,
    token: Option<SecretString>,
}

impl Api {
    pub(crate) fn new(
        address: &str,
        origin: Origin,
        token: Option<SecretString>,
    ) -> Result<Api, Failure> {
        let base = http_url(address).ok_or_else(|| {
            Failure::usage(format!(
                "{} {address:?} is not an address such as http://127.0.0.1:8401",
                origin.name()
            ))
        })?;
        // Without a time-out of the whole: a response of the live feed has no end.
        let client = reqwest::Client::builder()
            .read_timeout(READ_TIMEOUT)
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("tagtrail/", env!("CARGO_PKG_VERSION")));
        let client = Route::default().apply(client).map_err(Failure::usage)?;
        let client = client
            .build()
            .map_err(|error| Failure::failed(format!("can't make an HTTP client: {error}")))?;
        Ok(Api {
            client,
            base,
            origin,
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

    /// Sends a POST request, with a JSON body or without one.
    pub(crate) async fn post(&self, path: &[&str], body: Option<&Value>) -> Result<Value, Failure> {
        self.send(with_body(self.client.post(self.url(path)), body))
            .await
    }

    /// Sends a PUT request with a JSON body, which replaces a generation if there is one.
    pub(crate) async fn put(
        &self,
        path: &[&str],
        body: &Value,
        replaces: Option<u64>,
    ) -> Result<Value, Failure> {
        let mut request = self.client.put(self.url(path)).json(body);
        if let Some(replaces) = replaces {
            request = request.header("If-Match", format!("\"{replaces}\""));
        }
        self.send(request).await
    }

    /// Sends a DELETE request, with a JSON body or without one.
    pub(crate) async fn delete(
        &self,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        self.send(with_body(self.client.delete(self.url(path)), body))
            .await
    }

    /// Reads a list page by page, up to `limit` items, after those of an earlier list if a cursor
    /// is given. Returns the answer of the API to the last request, with the items of all.
    pub(crate) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, Option<String>)],
        limit: usize,
        mut cursor: Option<String>,
    ) -> Result<Value, Failure> {
        let mut items: Vec<Value> = Vec::new();
        loop {
            let page = (limit - items.len()).min(PAGE);
            let mut query = query.to_vec();
            query.extend([("limit", Some(page.to_string())), ("cursor", cursor)]);
            let mut response = self.get(path, &query).await?;
            let Some(Value::Array(found)) = response.get_mut("items").map(Value::take) else {
                return Err(self.other_server("the response is not a list"));
            };
            items.extend(found);
            cursor = response
                .get("next")
                .and_then(Value::as_str)
                .map(str::to_owned);
            if cursor.is_none() || items.len() >= limit {
                response["items"] = items.into();
                return Ok(response);
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

    /// Opens the live feed of this name, after the event with the id `last`.
    pub(crate) async fn follow(
        &self,
        feed: &str,
        query: &[(&str, Option<String>)],
        last: Option<&str>,
    ) -> Result<EventStream, Failure> {
        let given: Vec<(&str, &String)> = query
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_ref()?)))
            .collect();
        let mut request = self.client.get(self.url(&[feed])).query(&given);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = self.successful(request).await?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let streams =
            content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        if !streams {
            return Err(self.other_server("the response is not the live feed"));
        }
        Ok(EventStream::new(response))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let response = self.successful(request.timeout(REQUEST_TIMEOUT)).await?;
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        match serde_json::from_slice(&body) {
            // Every resource has fields.
            Ok(Value::Object(fields)) if !fields.is_empty() => Ok(Value::Object(fields)),
            _ => Err(self.other_server("the response is not the JSON of the API")),
        }
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
        let problem = serde_json::from_slice::<Problem>(&body).ok();
        let failure = problem.and_then(|problem| failure(status, problem));
        let failure = failure.map(|failure| match status {
            StatusCode::UNAUTHORIZED => unauthenticated(failure, self.token.is_some()),
            _ => failure,
        });
        Err(failure.unwrap_or_else(|| Failure {
            retryable: status.is_server_error(),
            ..self.other_server(&format!("the server answered {status}"))
        }))
    }

    /// The failure of an answer that Tagtrail's API does not give.
    fn other_server(&self, answer: &str) -> Failure {
        Failure::failed(format!(
            "{answer}; is {} the address of Tagtrail's API? If not, correct {}",
            self.base,
            match self.origin {
                Origin::Default => "it with --api".to_owned(),
                _ => self.origin.name(),
            }
        ))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Failure {
            retryable: true,
            ..Failure::failed(format!(
                "can't reach the API at {}: {cause}; {}",
                self.base,
                self.origin.cure()
            ))
        }
    }
}

fn with_body(request: reqwest::RequestBuilder, body: Option<&Value>) -> reqwest::RequestBuilder {
    match body {
        Some(body) => request
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string()),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_a_port_is_an_address_of_http() {
        for (address, url) in [
            ("127.0.0.1:8401", Some("http://127.0.0.1:8401/")),
            ("localhost:8401", Some("http://localhost:8401/")),
            ("[::1]:8401/x", Some("http://[::1]:8401/x")),
            ("t.example.com:80", Some("http://t.example.com/")),
            ("nowhere", None),
            ("https://t.example.com", Some("https://t.example.com/")),
            ("ftp://t.example.com", None),
            ("http://", None),
            ("", None),
            ("a b", None),
        ] {
            let found = http_url(address).map(String::from);
            assert_eq!(found.as_deref(), url, "{address}");
        }
    }

    #[test]
    fn a_refused_token_is_told_apart_from_a_missing_one() {
        let message = |sent| unauthenticated(Failure::failed("x"), sent).message;
        assert!(message(false).contains("requires a token"));
        assert!(message(true).contains("refuses the token"));
    }

    fn exit_code(code: &str) -> Option<u8> {
        let problem = Problem {
            title: "Not Found".to_owned(),
            detail: Some("text".to_owned()),
            code: Some(code.to_owned()),
        };
        failure(StatusCode::NOT_FOUND, problem).map(|failure| failure.code)
    }

    #[test]
    fn only_a_404_of_the_api_means_that_it_has_no_such_thing() {
        let document = tagtrail_api::openapi();
        let mut codes = 0;
        for operation in document["paths"].as_object().unwrap().values() {
            for described in operation.as_object().unwrap().values() {
                let text = described["responses"]["404"]["description"].as_str();
                let text = text.unwrap_or_default();
                for code in text.split('`').filter(|word| word.contains('_')) {
                    assert_eq!(exit_code(code), Some(3), "{code}");
                    codes += 1;
                }
            }
        }
        assert!(codes > 5, "{codes} codes found");
        for code in ["not_found", "path_unknown", "NAME_UNKNOWN"] {
            assert_eq!(exit_code(code), None, "{code}");
        }
    }
}
