//! Everything of the doctor's that waits for somebody. Whatever goes wrong is an answer too.

use std::time::Duration;

use reqwest::{Client, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tagtrail_config::File;
use tagtrail_daemon::chain;
use tagtrail_gateway::Setup;
use tagtrail_resolver::{CheckError, Ping};

use crate::client::api::{Api, Failure};

/// Time for each check.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of a source.
#[derive(Debug)]
pub(super) struct Asked {
    /// What its registry needs, or what is wrong with its entry.
    pub(super) setup: Result<Setup, String>,
    /// Each of its secrets: where it is kept, and what came of showing it.
    pub(super) secrets: Vec<(String, Result<Knock, String>)>,
    /// Without any secret that could be shown: what came of showing none.
    pub(super) plain: Option<Knock>,
}

/// How the gateway took somebody who asked whether he may post.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Knock {
    /// He may.
    Welcome,
    /// It knows the source, and nothing that was shown proved anything.
    Refused,
    /// It knows no such source.
    UnknownSource,
    /// It is no gateway that answered with this status.
    Other(u16),
    /// Nobody answered.
    Unreachable(String),
}

pub(super) fn client() -> Result<Client, Failure> {
    Client::builder()
        .no_proxy()
        // A secret is shown to the gateway, and to nobody it names.
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .connect_timeout(Duration::from_secs(5))
        .user_agent(concat!("tagtrail/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Failure::failed(format!("can't make an HTTP client: {error}")))
}

/// What is to be known of the source with this place in the file.
pub(super) async fn source(client: &Client, file: &File, place: usize, gateway: &str) -> Asked {
    let entry = &file.source[place];
    let setup = tagtrail_gateway::setup(file, entry, gateway).map_err(|error| error.to_string());
    let (mut secrets, mut plain) = (Vec::new(), None);
    if let Ok(setup) = &setup {
        for kept in entry.secret.iter().flat_map(|secrets| secrets.kept()) {
            let tried = match kept.read() {
                Ok(secret) => Ok(knock(client, &setup.url, Some(&secret)).await),
                Err(error) => Err(chain(&error)),
            };
            secrets.push((kept.to_string(), tried));
        }
        if secrets.iter().all(|(_, tried)| tried.is_err()) {
            plain = Some(knock(client, &setup.url, None).await);
        }
    }
    Asked {
        setup,
        secrets,
        plain,
    }
}

/// Asks by OPTIONS, as senders of `CloudEvents` do; nothing is stored.
async fn knock(client: &Client, url: &str, secret: Option<&SecretString>) -> Knock {
    let mut request = client.request(Method::OPTIONS, url);
    if let Some(secret) = secret {
        request = request.bearer_auth(secret.expose_secret());
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => return Knock::Unreachable(chain(&error.without_url())),
    };
    let status = answer.status();
    if status.is_success() && answer.headers().contains_key("webhook-allowed-origin") {
        return Knock::Welcome;
    }
    let body = answer.bytes().await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    match problem.get("code").and_then(Value::as_str) {
        Some("unauthenticated") => Knock::Refused,
        Some("source_unknown") => Knock::UnknownSource,
        _ => Knock::Other(status.as_u16()),
    }
}

/// How the registry with this place in the file answers.
pub(super) async fn registry(file: &File, place: usize) -> Result<Ping, CheckError> {
    tagtrail_resolver::check_registry(file, &file.registry[place], PATIENCE).await
}

/// When events came, as the API tells it, or why it does not.
pub(super) async fn coverage(api: &Api) -> Result<Value, String> {
    match tokio::time::timeout(PATIENCE, api.get(&["coverage"], &[])).await {
        Ok(answer) => answer.map_err(|failure| failure.message),
        Err(_) => Err(format!("the API gave no answer within {PATIENCE:?}")),
    }
}
