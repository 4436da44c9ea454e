//! Target `webhook`: a request to a URL, signed or with credentials of the receiver.

mod settings;
mod template;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use tagtrail_config::{File, Fresh, Trigger};
use tagtrail_daemon::chain;
use tagtrail_proto::{TRACEPARENT, clean_text};

use super::address;
use super::contract::{
    ConfigureResult, Order, Seen, Target, TargetFuture, TargetKind, TargetProblem, readable_secrets,
};
use super::said::Said;
use super::signature::signatures;
use crate::act::Place;
use crate::store::looks::{Report, ReportState};
use settings::{Access, Answer, Settings};
use tagtrail_policy::retry::Outcome;
use template::Template;

pub(super) const WEBHOOK: TargetKind = TargetKind {
    name: "webhook",
    configure,
    setup: "The receiver checks each request by Standard Webhooks 1.0 with the same secret, or by the token in \
            `url` or `headers`, ignores a webhook-id that it has seen, and answers 2xx within \
            `timeout_seconds` (30 s); after any other answer but 410 the rollout is retried.",
};

/// Most bytes read of an answer.
const READ: usize = 4096;
/// Most bytes of an answer that an error shows.
const SHOWN: usize = 500;
/// Longest time that the text of a success may take after its status.
const LINGER: Duration = Duration::from_secs(1);

/// A receiver of rollouts.
struct WebhookTarget {
    client: Client,
    settings: Arc<Settings>,
    content_type: HeaderValue,
    /// `None`: the body is the event.
    template: Option<Template>,
    access: Fresh<Access>,
}

fn configure(value: &toml::Value, trigger: &Trigger, _file: &File) -> ConfigureResult {
    let settings = Arc::new(Settings::parse(value, trigger)?);
    let content_type = settings.content_type()?;
    let template = settings.template(trigger)?;
    let access = Access::fresh(&settings, trigger)?;
    let client = settings.route()?.build(settings.timeout())?;
    Ok(Box::new(WebhookTarget {
        client,
        settings,
        content_type,
        template,
        access,
    }))
}

impl Target for WebhookTarget {
    fn apply<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Outcome> {
        Box::pin(self.post(order))
    }

    fn observe<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Seen> {
        let seen = match self.settings.done() {
            Answer::Accepted => Seen::Healthy,
            Answer::Reported => reported(order.report.as_ref()),
        };
        Box::pin(std::future::ready(seen))
    }

    fn reports(&self) -> bool {
        self.settings.done() == Answer::Reported
    }

    fn place(&self) -> Place {
        Place {
            kind: WEBHOOK.name,
            part: Some(self.access.get().server()),
        }
    }

    fn identity(&self) -> String {
        self.settings.identity.clone()
    }

    fn judge(&self) -> Vec<TargetProblem> {
        let warning = TargetProblem::warning;
        let access = self.access.get();
        let (mut problems, server, url) = (Vec::new(), access.server(), &access.url);
        if url.scheme() == "http" && !address::is_loopback(url) {
            problems.push(warning(
                format!("{server} receives rollouts over plain http"),
                "use https: others on the way can read and repeat a rollout",
            ));
        }
        if address::is_link_local(url) {
            problems.push(warning(
                format!("{server} is a link-local address, as metadata services have"),
                "use the address of the receiver",
            ));
        }
        if !self.settings.authenticates() {
            problems.push(warning(
                format!("{server} cannot tell rollouts from requests of strangers"),
                "set secret (Standard Webhooks), or write url or a header of the receiver as a secret, { file = \"…\" } or { env = \"…\" }",
            ));
        }
        problems.extend(readable_secrets(self.settings.places()));
        problems
    }

    fn try_out(&self) -> TargetFuture<'_, Vec<TargetProblem>> {
        Box::pin(self.connect())
    }
}

impl WebhookTarget {
    /// Resolves the server's name, connects, and reads any answer. A receiver expects a rollout as
    /// POST at the path of the URL, so this request is a HEAD of the root.
    async fn connect(&self) -> Vec<TargetProblem> {
        let access = self.access.get();
        let server = access.server();
        match self.client.head(&server).send().await {
            Ok(_) => Vec::new(),
            Err(error) => vec![TargetProblem {
                fatal: true,
                found: format!("no answer from {server}: {}", cause(error, &access)),
                cure: "check the url of target.webhook, that its receiver runs, and that this machine can reach it".to_owned(),
            }],
        }
    }

    /// Returns the body: the same bytes at each attempt.
    fn body<'a>(&self, order: &'a Order) -> Result<Cow<'a, [u8]>, String> {
        match &self.template {
            Some(template) => template.render(&order.body).map(Cow::Owned),
            None => Ok(Cow::Borrowed(&order.body)),
        }
    }

    async fn post(&self, order: &Order) -> Outcome {
        let access = self.access.get();
        let body = match self.body(order) {
            Ok(body) => body,
            Err(why) => return Outcome::Refused(format!("the body can't be made: {why}")),
        };
        let Some(signed) = signed(&access, &order.rollout.id, &body) else {
            return Outcome::Refused("the rollout can't be signed".to_owned());
        };
        let request = self
            .client
            .request(self.settings.method(), access.url.clone())
            .headers(access.headers.clone())
            .headers(signed)
            .header(header::CONTENT_TYPE, &self.content_type)
            .header(TRACEPARENT, order.trace.to_string())
            .body(body.into_owned());
        order.said.hide(access.hidden());
        match request.send().await {
            Ok(response) => match outcome_of(response, &access, &order.said).await {
                Outcome::Done if self.reports() => Outcome::Applied,
                outcome => outcome,
            },
            Err(error) => Outcome::Failed {
                error: format!("no answer from the target: {}", cause(error, &access)),
                after: None,
            },
        }
    }
}

/// Returns the result that the receiver reported.
fn reported(report: Option<&Report>) -> Seen {
    let Some(Report { state, text, .. }) = report else {
        return Seen::Progressing("the receiver has reported no result yet".to_owned());
    };
    let text = match text {
        Some(text) => format!(": {text}"),
        None => String::new(),
    };
    match state {
        ReportState::Succeeded => Seen::Healthy,
        ReportState::Progressing => {
            Seen::Progressing(format!("the receiver reported progress{text}"))
        }
        ReportState::Failed => Seen::Failed(format!("the receiver reported a failure{text}")),
    }
}

/// Returns the cause of a missing answer. The URL may hold a secret, so the text has no URL.
fn cause(error: reqwest::Error, access: &Access) -> String {
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
async fn outcome_of(response: Response, access: &Access, said: &Said) -> Outcome {
    let status = response.status();
    said.ended(status.as_u16().into());
    if status.is_success() {
        let _ = tokio::time::timeout(LINGER, body(response, access, said)).await;
        return Outcome::Done;
    }
    let after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let elsewhere = redirect_host(&response, access);
    let said = body(response, access, said).await;
    let said = if said.is_empty() {
        said
    } else {
        format!(": {said}")
    };
    match status {
        StatusCode::GONE => Outcome::Gone(format!("the target is gone for good (410){said}")),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Failed {
                error: format!("the target asked to try later ({status}){said}"),
                after,
            }
        }
        status if status.is_redirection() => Outcome::Failed {
            error: format!(
                "the target redirects ({status}{elsewhere}), which is not followed; configure the final URL"
            ),
            after,
        },
        // A receiver that is deployed itself, or whose secret is rotated, answers so for a while.
        status if status.is_client_error() => Outcome::Failed {
            error: format!("the target refused the rollout ({status}){said}"),
            after,
        },
        status => Outcome::Failed {
            error: format!("the target failed ({status}){said}"),
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
async fn body(mut response: Response, access: &Access, said: &Said) -> String {
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

#[cfg(test)]
mod tests;
