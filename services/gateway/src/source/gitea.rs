//! Gitea and Forgejo.
//!
//! Sources: `modules/structs/{hook,package}.go` and `services/webhook/deliver.go` of
//! go-gitea/gitea. The push of a tag has no digest. An index sends one event for each of its
//! manifests, with the digest as version. The headers come under GitHub's names too.
//!
//! The fields that count, known from the code, and captured bodies of Gitea 1.26:
//!
//! | field | meaning |
//! |---|---|
//! | `action`, `package.type` | the sort of event |
//! | `package.{owner,name,version}` | repository, and tag or digest |
//! | `package.created_at` | when this version of the package was made: the time of a push, also of a repeated one. Not read of a delete, which has no time |
//! | `package.html_url` | the host |
//! | `sender.{login,username}` | the user |
//! | `X-Gitea-Event`, `X-Gitea-Delivery` | the sort of event, and its identifier |

use std::time::Duration;

use axum::http::HeaderMap;
use serde::Deserialize;
use tagtrail_proto::{Action, Digest};

use super::{
    Context, DecodeError, Kind, Meaning, Proof, Report, Stamp, body_id, header, lenient, lowercase,
    present,
};
use crate::proof::signature::Signature;

pub(super) const GITEA: Kind = Kind {
    // The default of [webhook] DELIVER_TIMEOUT.
    patience: Duration::from_secs(5),
    aliases: &["forgejo"],
    has_digest: false,
    proof: Proof::Signature(&[
        Signature::sha256("x-forgejo-signature"),
        Signature::sha256("x-gitea-signature"),
        Signature::sha256("x-hub-signature-256").prefixed("sha256="),
    ]),
    headers: EVENTS,
    ..Kind::new(
        "gitea",
        decode,
        r#"In the repository, organisation or site administration: Settings, Webhooks, Add Webhook, Gitea (or Forgejo).

  Target URL      {url}
  HTTP Method     POST
  Content Type    application/json (or application/x-www-form-urlencoded)
  Secret          {secret}
  Trigger On      Custom Events: Package

Allow the address in app.ini: [webhook] ALLOWED_HOST_LIST. There is no digest in the events, so tagtrail.toml needs a
[[registry]] of the same name. One attempt is made for each event; the reconciler finds what was lost."#,
    )
};

/// Headers by precedence.
const EVENTS: &[&str] = &[
    "x-forgejo-event",
    "x-gitea-event",
    "x-github-event",
    "x-forgejo-delivery",
    "x-gitea-delivery",
    "x-github-delivery",
];

#[derive(Deserialize)]
struct Hook {
    action: Option<String>,
    package: Option<Package>,
    #[serde(default, deserialize_with = "lenient")]
    sender: Option<Account>,
}

#[derive(Deserialize)]
struct Package {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    version: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    html_url: Option<String>,
    #[serde(default)]
    created_at: Stamp,
    #[serde(default, deserialize_with = "lenient")]
    owner: Option<Account>,
}

#[derive(Deserialize)]
struct Account {
    login: Option<String>,
    username: Option<String>,
}

impl Account {
    fn name(self) -> Option<String> {
        present(self.login).or(present(self.username))
    }
}

fn decode(
    headers: &HeaderMap,
    body: &[u8],
    ctx: &Context<'_>,
) -> Result<Vec<Meaning>, DecodeError> {
    let first = |end: &str| {
        let names = EVENTS.iter().filter(|name| name.ends_with(end));
        names.filter_map(|name| header(headers, name)).next()
    };
    if first("-event").is_some_and(|event| event != "package") {
        return Ok(vec![Meaning::Ignored]);
    }
    let hook: Hook = serde_json::from_slice(body)?;
    let Some(package) = hook.package else {
        return Err(DecodeError::wrong_form("the body has no `package`"));
    };
    let action = match (package.kind.as_deref(), hook.action.as_deref()) {
        (Some("container"), Some("created")) => Action::Push,
        (Some("container"), Some("deleted")) => Action::Delete,
        _ => return Ok(vec![Meaning::Ignored]),
    };
    let version =
        present(package.version).ok_or_else(|| DecodeError::new("the event names no version"))?;
    let owner = package.owner.and_then(Account::name);
    let repository = present(package.name)
        .zip(owner)
        .map(|(name, owner)| lowercase(&format!("{owner}/{name}")));
    let is_digest = version.parse::<Digest>().is_ok();
    let report = Report {
        action,
        registry: ctx.registry(host(package.html_url.as_deref().unwrap_or_default()))?,
        repository,
        digest: is_digest.then(|| version.clone()),
        tag: Some(version),
        media_type: None,
        size: None,
        actor: hook.sender.and_then(Account::name),
        time: match action {
            Action::Push => package.created_at.read("created_at"),
            Action::Delete => Ok(None),
        },
        id: first("-delivery").map(str::to_owned),
    };
    Ok(vec![report.decode(ctx, || body_id(body))?])
}

/// Returns the host of a web page.
fn host(url: &str) -> &str {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let host = rest.split('/').next().unwrap_or_default();
    match scheme {
        "https" => host.strip_suffix(":443").unwrap_or(host),
        _ => host,
    }
}
