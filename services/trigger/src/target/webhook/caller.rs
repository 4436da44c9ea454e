//! Requests to a receiver: signed or with credentials, and an outcome for each answer.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use tagtrail_config::Fresh;
use tagtrail_daemon::chain;
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::{TRACEPARENT, TraceContext, clean_text};

use super::settings::{Access, Answer, Settings};
use crate::target::address::{self, Allowed};
use crate::target::contract::{TargetProblem, readable_secrets};
use crate::target::said::Said;
use crate::target::signature::signatures;

/// Most bytes read of an answer.
const READ: usize = 4096;
/// Most bytes of an answer that an error shows.
const SHOWN: usize = 500;
/// Longest time that the text of a success may take after its status.
const LINGER: Duration = Duration::from_secs(1);

/// The words of errors and problems.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    /// The receiver, such as `the target`.
    pub(crate) receiver: &'static str,
    /// One request, such as `the rollout`.
    pub(crate) one: &'static str,
    /// Several of them.
    pub(crate) many: &'static str,
    /// The place of the settings.
    pub(crate) key: &'static str,
}

/// The words of rollouts.
pub(super) const ROLLOUTS: Words = Words {
    receiver: "the target",
    one: "the rollout",
    many: "rollouts",
    key: "target.webhook",
};

/// The way to a receiver, with its credentials.
pub(crate) struct Caller {
    client: Client,
    settings: Arc<Settings>,
    content_type: HeaderValue,
    access: Fresh<Access>,
    allowed: Option<Allowed>,
    words: Words,
}

impl Caller {
    /// Reads all secrets. `usual` is the content type if the settings have none, and `of` names the
    /// owner of the secrets in the log. `allowed` are the addresses to which requests may go; `None`:
    /// to all. An error names the cure, and no secret.
    pub(crate) fn new(
        settings: Settings,
        usual: &str,
        of: String,
        words: Words,
        allowed: Option<Allowed>,
    ) -> Result<Caller, String> {
        let settings = Arc::new(settings);
        let access = Access::fresh(&settings, of)?;
        Ok(Caller {
            content_type: settings.content_type(usual)?,
            client: settings.client(&access.get(), allowed.as_ref())?,
            access,
            allowed,
            settings,
            words,
        })
    }

    /// Returns scheme, host and port of the receiver.
    pub(crate) fn server(&self) -> String {
        self.access.get().server()
    }

    /// Returns the receiver as a text without secrets.
    pub(super) fn identity(&self) -> &str {
        &self.settings.identity
    }

    /// Returns the meaning of an answer 2xx.
    pub(super) fn done(&self) -> Answer {
        self.settings.done()
    }

    /// Judges the settings, without a request.
    pub(crate) fn judge(&self) -> Vec<TargetProblem> {
        let warning = TargetProblem::warning;
        let Words { one, many, .. } = self.words;
        let access = self.access.get();
        let (mut problems, server) = (Vec::new(), access.server());
        problems.extend(plain(&access, many, one));
        problems.extend(link_local(&access));
        if !self.settings.authenticates() {
            problems.push(warning(
                format!("{server} cannot tell {many} from requests of strangers"),
                "set secret (Standard Webhooks), or write url or a header of the receiver as a secret, { file = \"…\" } or { env = \"…\" }",
            ));
        }
        problems.extend(readable_secrets(self.settings.places()));
        problems
    }

    /// Resolves the server's name, connects, and reads any answer. A receiver expects its messages
    /// as POST at the path of the URL, so this request is a HEAD of the root.
    pub(crate) async fn connect(&self) -> Vec<TargetProblem> {
        let access = self.access.get();
        let server = access.server();
        if let Some(Err(why)) = self.allowed.as_ref().map(|one| one.check(&access.url)) {
            return vec![TargetProblem {
                fatal: true,
                found: why,
                cure: "use another address, or list it".to_owned(),
            }];
        }
        match self.client.head(&server).send().await {
            Ok(_) => Vec::new(),
            Err(error) => vec![TargetProblem {
                fatal: true,
                found: format!("no answer from {server}: {}", cause(error, &access)),
                cure: format!(
                    "check the url of {}, that its receiver runs, and that this machine can reach it",
                    self.words.key
                ),
            }],
        }
    }

    /// Sends a body under this id. The answer goes to `said` without secrets.
    pub(crate) async fn send(
        &self,
        id: &str,
        body: Vec<u8>,
        trace: Option<&TraceContext>,
        said: &Said,
    ) -> Outcome {
        let access = self.access.get();
        let Words { receiver, one, .. } = self.words;
        // A secret may have brought another address.
        if let Some(Err(why)) = self.allowed.as_ref().map(|one| one.check(&access.url)) {
            return Outcome::Refused(why);
        }
        let Some(signed) = signed(&access, id, &body) else {
            return Outcome::Refused(format!("{one} can't be signed"));
        };
        let mut request = self
            .client
            .request(self.settings.method(), access.url.clone())
            .headers(access.headers.clone())
            .headers(signed)
            .header(header::CONTENT_TYPE, &self.content_type)
            .body(body);
        if let Some(trace) = trace {
            request = request.header(TRACEPARENT, trace.to_string());
        }
        said.hide(access.hidden());
        match request.send().await {
            Ok(response) => outcome_of(response, &access, said, self.words).await,
            Err(error) => Outcome::Failed {
                error: format!("no answer from {receiver}: {}", cause(error, &access)),
                after: None,
            },
        }
    }
}

/// Returns the warning about an address where others can read `many`, of which `one` is sent.
pub(super) fn plain(access: &Access, many: &str, one: &str) -> Option<TargetProblem> {
    let (server, url) = (access.server(), &access.url);
    let exposed = url.scheme() == "http" && !address::is_loopback(url);
    exposed.then(|| {
        TargetProblem::warning(
            format!("{server} receives {many} over plain http"),
            &format!("use https: others on the way can read and repeat {one}"),
        )
    })
}

/// Returns the warning about an address that leads to a service of this machine.
pub(super) fn link_local(access: &Access) -> Option<TargetProblem> {
    address::is_link_local(&access.url).then(|| {
        TargetProblem::warning(
            format!(
                "{} is a link-local address, as metadata services have",
                access.server()
            ),
            "use the address of the receiver",
        )
    })
}

/// Returns the cause of a missing answer. The URL may hold a secret, so the text has no URL.
pub(super) fn cause(error: reqwest::Error, access: &Access) -> String {
    let cause = access.hide(&chain(&error.without_url()));
    match cause.contains("UnknownIssuer") {
        true => {
            format!("{cause}; if its certificate authority is private, set ca, or SSL_CERT_FILE")
        }
        false => cause,
    }
}

/// Returns the headers of Standard Webhooks; none without a key.
fn signed(access: &Access, id: &str, body: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    if access.keys.is_empty() {
        return Some(headers);
    }
    let timestamp = time::OffsetDateTime::now_utc().unix_timestamp();
    let signature = signatures(&access.keys, id, timestamp, body)?;
    headers.insert("webhook-id", id.parse().ok()?);
    headers.insert("webhook-timestamp", timestamp.into());
    headers.insert("webhook-signature", signature.parse().ok()?);
    Some(headers)
}

/// Maps a response to the outcome of the attempt.
async fn outcome_of(response: Response, access: &Access, said: &Said, words: Words) -> Outcome {
    let Words { receiver, one, .. } = words;
    let status = response.status();
    said.ended(status.as_u16().into());
    if status.is_success() {
        let _ = tokio::time::timeout(LINGER, body(response, access, said)).await;
        return Outcome::Done;
    }
    let after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let elsewhere = redirect_host(&response, access);
    let said = body(response, access, said).await;
    let said = if said.is_empty() {
        said
    } else {
        format!(": {said}")
    };
    match status {
        StatusCode::GONE => Outcome::Gone(format!("{receiver} is gone for good (410){said}")),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Failed {
                error: format!("{receiver} asked to try later ({status}){said}"),
                after,
            }
        }
        status if status.is_redirection() => Outcome::Failed {
            error: format!(
                "{receiver} redirects ({status}{elsewhere}), which is not followed; configure the final URL"
            ),
            after,
        },
        // A receiver that is deployed itself, or whose secret is rotated, answers so for a while.
        status if status.is_client_error() => Outcome::Failed {
            error: format!("{receiver} refused {one} ({status}){said}"),
            after,
        },
        status => Outcome::Failed {
            error: format!("{receiver} failed ({status}){said}"),
            after,
        },
    }
}

/// Returns ` to HOST` of a redirect. The rest of the address may hold a secret.
fn redirect_host(response: &Response, access: &Access) -> String {
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|value| access.url.join(value.to_str().ok()?).ok());
    let host = location.as_ref().and_then(|url| url.host_str());
    host.map_or_else(String::new, |host| {
        format!(" to {}", clean_text(&access.hide(host), SHOWN))
    })
}

/// Reads the beginning of the response body, and returns it without secrets.
pub(super) async fn body(mut response: Response, access: &Access, said: &Said) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = READ - bytes.len();
        let chunk = &chunk[..chunk.len().min(room)];
        said.push(chunk);
        bytes.extend_from_slice(chunk);
        if bytes.len() >= READ {
            break;
        }
    }
    let text = access.hide(&String::from_utf8_lossy(&bytes));
    clean_text(text.trim(), SHOWN)
}
