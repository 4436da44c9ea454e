//! Requests to the API.

use std::process::ExitCode;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::events::EventStream;

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
        (401, _) => (
            1,
            "the API requires a token: set TAGTRAIL_TOKEN to the secret of a [[token]] in tagtrail.toml".to_owned(),
        ),
        (400, _) => (2, detail),
        (404, "repository_unknown") => {
            // The API names its own list as the cure.
            (3, detail.split(';').next().unwrap_or_default().to_owned())
        }
        (404, "tag_unknown" | "tag_deleted" | "revision_unknown" | "manifest_unknown" | "digest_unknown") => (3, detail),
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
            ..Failure::failed(format!(
                "--api {address:?} is not an address such as http://127.0.0.1:8401"
            ))
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

    /// Reads a list page by page, up to `limit` items. Returns the answer of the API to the last
    /// request, with the items of all.
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
        Err(failure.unwrap_or_else(|| Failure {
            retryable: status.is_server_error(),
            ..self.other_server(&format!("the server answered {status}"))
        }))
    }

    /// The failure of an answer that Tagtrail's API does not give.
    fn other_server(&self, answer: &str) -> Failure {
        Failure::failed(format!(
            "{answer}; is {} the address of Tagtrail's API? Set it with --api or TAGTRAIL_API",
            self.base
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
                "can't reach the API at {}: {cause}; start it with `tagtrail up`, or set its address with --api or TAGTRAIL_API",
                self.base
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
