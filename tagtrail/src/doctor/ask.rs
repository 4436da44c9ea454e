//! The requests of the doctor. A failed request is an answer too, and not an error.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tagtrail_config::{File, Trigger, Watched};
use tagtrail_daemon::{Route, chain};
use tagtrail_gateway::Setup;
use tagtrail_proto::Repository;
use tagtrail_resolver::{CheckError, Ping};

use crate::client::api::{Api, Failure};

/// Time-out of each check.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The answers about a source.
#[derive(Debug)]
pub(super) struct SourceAnswers {
    /// The settings for the registry, or the error in the entry.
    pub(super) setup: Result<Setup, String>,
    /// For each secret, the place in the configuration and the gateway's answer.
    pub(super) secrets: Vec<(String, Result<GatewayAnswer, String>)>,
    /// The gateway's answer to a request without a secret, if no secret can be read.
    pub(super) without_secret: Option<GatewayAnswer>,
}

/// The gateway's answer to an OPTIONS request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum GatewayAnswer {
    /// The sender may post events.
    Accepted,
    /// The source exists, but the sender was not authenticated.
    Refused,
    /// The gateway has no such source.
    UnknownSource,
    /// A status that a gateway does not return.
    Other(u16),
    /// No answer.
    Unreachable(String),
}

pub(super) fn client() -> Result<Client, Failure> {
    Route::default().build(TIMEOUT).map_err(Failure::failed)
}

/// Checks the source at this place in the file: the entry, and the secrets at the gateway.
pub(super) async fn source(
    client: &Client,
    file: &File,
    place: usize,
    gateway: &str,
) -> SourceAnswers {
    let entry = &file.source[place];
    let setup = tagtrail_gateway::setup(file, entry, gateway).map_err(|error| error.to_string());
    let (mut secrets, mut without_secret) = (Vec::new(), None);
    if let Ok(setup) = &setup {
        for kept in entry.secret.iter().flat_map(|secrets| secrets.kept()) {
            let answer = match kept.read() {
                Ok(secret) => Ok(probe(client, &setup.url, Some(&secret)).await),
                Err(error) => Err(chain(&error)),
            };
            secrets.push((kept.to_string(), answer));
        }
        if secrets.iter().all(|(_, answer)| answer.is_err()) {
            without_secret = Some(probe(client, &setup.url, None).await);
        }
    }
    SourceAnswers {
        setup,
        secrets,
        without_secret,
    }
}

/// Sends an OPTIONS request, the handshake of `CloudEvents` webhooks. The gateway stores nothing.
async fn probe(client: &Client, url: &str, secret: Option<&SecretString>) -> GatewayAnswer {
    let mut request = client.request(Method::OPTIONS, url);
    if let Some(secret) = secret {
        request = request.bearer_auth(secret.expose_secret());
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => return GatewayAnswer::Unreachable(chain(&error.without_url())),
    };
    let status = answer.status();
    if status.is_success() && answer.headers().contains_key("webhook-allowed-origin") {
        return GatewayAnswer::Accepted;
    }
    let body = answer.bytes().await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    match problem.get("code").and_then(Value::as_str) {
        Some("unauthenticated") => GatewayAnswer::Refused,
        Some("source_unknown") => GatewayAnswer::UnknownSource,
        _ => GatewayAnswer::Other(status.as_u16()),
    }
}

/// The answers of a registry.
#[derive(Debug)]
pub(super) struct RegistryAnswers {
    pub(super) ping: Result<Ping, CheckError>,
    /// The answer to a request for the tags of a repository that the file names.
    pub(super) list: Option<(Repository, Result<(), CheckError>)>,
}

/// Checks the registry at this place in the file.
pub(super) async fn registry(file: &File, place: usize) -> RegistryAnswers {
    let access = &file.registry[place];
    let mut images = file
        .trigger
        .iter()
        .flat_map(|trigger| trigger.images.values());
    let in_trigger = images.find(|image| image.registry() == access.name.get_ref());
    let repository = access.watch.first();
    let repository = repository.or(in_trigger.map(Watched::repository));
    let list = async {
        let repository = repository?;
        let answer = tagtrail_resolver::check_list(file, access, repository, TIMEOUT).await;
        Some((repository.clone(), answer))
    };
    let (ping, list) = tokio::join!(
        tagtrail_resolver::check_registry(file, access, TIMEOUT),
        list
    );
    RegistryAnswers { ping, list }
}

/// Reads the metrics of an admin page. Returns the reason if that fails.
pub(super) async fn metrics(client: &Client, address: SocketAddr) -> Result<String, String> {
    let url = format!("http://{address}/metrics");
    let answer = match client.get(&url).send().await {
        Ok(answer) => answer.error_for_status(),
        Err(error) => Err(error),
    };
    let why = |error: reqwest::Error| {
        format!("no metrics from {address}: {}", chain(&error.without_url()))
    };
    answer.map_err(why)?.text().await.map_err(why)
}

/// Returns the images of a trigger that have no history. An image about which the API does not
/// answer is left out.
pub(super) async fn unseen(api: &Api, trigger: &Trigger) -> Vec<String> {
    let mut unseen = Vec::new();
    let asking = async {
        for image in trigger.images.values().filter_map(Watched::tag) {
            let image = image.to_string();
            let query = [("image", Some(image.clone()))];
            let answer = api.get(&["resolve"], &query);
            let unknown = |failure: Failure| failure.problem == "tag_unknown";
            if answer.await.is_err_and(unknown) {
                unseen.push(image);
            }
        }
    };
    // The images found until then are named.
    let _ = tokio::time::timeout(TIMEOUT, asking).await;
    unseen
}

/// Reads the triggers from the API, in one request. `None` if that fails: the checks of the API
/// report the reason.
pub(super) async fn triggers(api: &Api) -> Option<Value> {
    let answer = tokio::time::timeout(TIMEOUT, api.get(&["triggers"], &[]));
    answer.await.ok()?.ok()
}

/// Reads the registries in history from the API. `None` if that fails: the checks of the API report
/// the reason.
pub(super) async fn registries(api: &Api) -> Option<Value> {
    let answer = tokio::time::timeout(TIMEOUT, api.get(&["registries"], &[]));
    answer.await.ok()?.ok()
}

/// Reads the coverage report from the API. Returns the message of the error if that fails.
pub(super) async fn coverage(api: &Api) -> Result<Value, String> {
    match tokio::time::timeout(TIMEOUT, api.get(&["coverage"], &[])).await {
        Ok(answer) => answer.map_err(|failure| failure.message),
        Err(_) => Err(format!("the API did not answer within {TIMEOUT:?}")),
    }
}
