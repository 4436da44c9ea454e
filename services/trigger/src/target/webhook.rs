//! Target `webhook`: a signed POST to a URL.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tagtrail_config::{File, Secret};
use tagtrail_daemon::{chain, client};
use tagtrail_proto::{TRACEPARENT, clean_text};

use super::address;
use super::contract::{
    ConfigureResult, Order, Target, TargetFuture, TargetKind, TargetProblem, settings,
};
use super::signature::SigningKey;
use tagtrail_policy::retry::Outcome;

pub(super) const WEBHOOK: TargetKind = TargetKind {
    name: "webhook",
    configure,
    setup: "The receiver checks each POST by Standard Webhooks 1.0 with the same secret, ignores a webhook-id \
            that it has seen, and answers 2xx within 15 s; answers of 5xx, 408, 425 and 429 are retried.",
};

/// Time limit of the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Most bytes of a response body that an error shows.
const SHOWN: usize = 500;

/// The settings below `target.webhook`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookSettings {
    url: String,
    secret: Secret,
}

/// A URL with the key that signs each order.
struct WebhookTarget {
    client: Client,
    url: reqwest::Url,
    key: SigningKey,
    /// The place of the key.
    secret: Secret,
}

fn configure(value: &toml::Value, file: &File) -> ConfigureResult {
    let WebhookSettings { url, secret } = settings(value)?;
    let secret = secret.in_folder(file.folder());
    let url = reqwest::Url::parse(&url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or("url must start with https:// (or http://)")?;
    let text = secret.read().map_err(|error| error.to_string())?;
    let key = SigningKey::parse(text.expose_secret())
        .ok_or("the secret must be whsec_ and 24 to 64 bytes in Base64; make one with: echo \"whsec_$(head -c 32 /dev/urandom | base64)\"")?;
    let client = client(TIMEOUT)
        .build()
        .map_err(|error| format!("can't make an HTTP client: {error}"))?;
    Ok(Box::new(WebhookTarget {
        client,
        url,
        key,
        secret,
    }))
}

impl Target for WebhookTarget {
    fn apply<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Outcome> {
        Box::pin(self.post(order))
    }

    fn judge(&self) -> Vec<TargetProblem> {
        let warning = |found: String, cure: &str| TargetProblem {
            fatal: false,
            found,
            cure: cure.to_owned(),
        };
        let (mut problems, server) = (Vec::new(), self.server());
        if self.url.scheme() == "http" && !address::is_loopback(&self.url) {
            problems.push(warning(
                format!("{server} receives rollouts over plain http"),
                "use https: others on the way can read and repeat a rollout",
            ));
        }
        if address::is_link_local(&self.url) {
            problems.push(warning(
                format!("{server} is a link-local address, as metadata services have"),
                "use the address of the receiver",
            ));
        }
        if let Secret::File(path) = &self.secret
            && std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
        {
            problems.push(warning(
                format!("every user can read the secret in {}", path.display()),
                "chmod 600, with the user of the trigger service as owner",
            ));
        }
        problems
    }

    fn try_out(&self) -> TargetFuture<'_, Vec<TargetProblem>> {
        Box::pin(self.connect())
    }
}

impl WebhookTarget {
    /// The server without the path, which may hold a secret.
    fn server(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Resolves the server's name, connects, and reads any answer. A receiver expects a rollout as
    /// POST at the path of the URL, so this request is a HEAD of the root.
    async fn connect(&self) -> Vec<TargetProblem> {
        let server = self.server();
        match self.client.head(&server).send().await {
            Ok(_) => Vec::new(),
            Err(error) => vec![TargetProblem {
                fatal: true,
                found: format!("no answer from {server}: {}", chain(&error.without_url())),
                cure: "check the url of target.webhook, that its receiver runs, and that this machine can reach it".to_owned(),
            }],
        }
    }

    async fn post(&self, order: &Order) -> Outcome {
        let timestamp = time::OffsetDateTime::now_utc().unix_timestamp();
        let Some(signature) = self.key.sign(&order.rollout.id, timestamp, &order.body) else {
            return Outcome::Refused("the rollout can't be signed".to_owned());
        };
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, tagtrail_proto::CONTENT_TYPE)
            .header("webhook-id", &order.rollout.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .header(TRACEPARENT, order.trace.to_string())
            .body(order.body.clone());
        match request.send().await {
            Ok(response) => outcome_of(response).await,
            // The URL may hold a secret, so the error must not show the URL.
            Err(error) => Outcome::Failed {
                error: format!("no answer from the target: {}", chain(&error.without_url())),
                after: None,
            },
        }
    }
}

/// Maps a response to the outcome of the attempt.
async fn outcome_of(response: Response) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return Outcome::Done;
    }
    let after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let said = body(response).await;
    let said = if said.is_empty() {
        said
    } else {
        format!(": {said}")
    };
    match status {
        StatusCode::GONE => Outcome::Refused(format!("the target is gone for good (410){said}")),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Failed {
                error: format!("the target asked to try later ({status}){said}"),
                after,
            }
        }
        status if status.is_redirection() => Outcome::Refused(format!(
            "the target redirects ({status}), which is not followed; configure the address it redirects to"
        )),
        status if status.is_client_error() => {
            Outcome::Refused(format!("the target refused the rollout ({status}){said}"))
        }
        status => Outcome::Failed {
            error: format!("the target failed ({status}){said}"),
            after,
        },
    }
}

/// Returns the beginning of the response body.
async fn body(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= SHOWN {
            break;
        }
    }
    clean_text(String::from_utf8_lossy(&bytes).trim(), SHOWN)
}
