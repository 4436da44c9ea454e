//! GitHub Container Registry (GitHub Packages).
//!
//! Source: octokit/webhooks (`payload-examples`, `payload-schemas`). Repositories and organisations
//! send `package`, Apps send `registry_package`. With both set up, a push sends both, each with its
//! own delivery id. Each manifest of an index has an event. For several tags with one digest, only
//! one tag is named, and deletes are not sent; the reconciler finds both.
//!
//! The fields that count, known from octokit's examples, and bodies in go-github#2033, keel#646 and
//! disgit#3:
//!
//! | field | meaning |
//! |---|---|
//! | `action`, `package.package_type` | the sort of event |
//! | `package.{namespace,name}` | the repository, if there is no `package_url` |
//! | `package.package_version.package_url` | host, repository and tag |
//! | `package.package_version.version` | the digest |
//! | `….container_metadata.{tag,manifest}` | tag, digest, media type and size |
//! | `sender.login` | the user |
//! | `X-GitHub-Event`, `X-GitHub-Delivery` | the sort of event, and its identifier |
//! | `package.{created_at,updated_at}` | the last change, which is the push; no time if equal |
//! | `package.package_version.updated_at` | not read: year 1 in captured bodies |

use std::time::Duration;

use axum::http::HeaderMap;
use serde::Deserialize;
use tagtrail_proto::{Action, Digest};

use super::clock::{EventTime, Stamp};
use super::{
    Context, DecodeError, Kind, Meaning, Proof, Report, body_id, header, lenient, lowercase,
    present,
};
use crate::proof::signature::Signature;

pub(super) const GHCR: Kind = Kind {
    // GitHub's own limit.
    patience: Duration::from_secs(10),
    proof: Proof::Signature(&[Signature::sha256("x-hub-signature-256").prefixed("sha256=")]),
    headers: &[EVENT, DELIVERY],
    // GitHub's own limit.
    max_body: 25 << 20,
    ..Kind::new(
        "ghcr",
        decode,
        r#"In the repository or organisation: Settings, Webhooks, Add webhook.

  Payload URL   {url}
  Content type  application/json (or application/x-www-form-urlencoded)
  Secret        {secret}
  Events        Let me select individual events: Packages (of an App: Registry packages)

Only packages that are linked to a repository send events. GitHub does not retry a failed delivery by itself: Recent
Deliveries has "Redeliver", and the reconciler finds the rest."#,
    )
};

const EVENT: &str = "x-github-event";
const DELIVERY: &str = "x-github-delivery";

#[derive(Deserialize)]
struct Hook {
    action: Option<String>,
    #[serde(alias = "registry_package")]
    package: Option<Package>,
    #[serde(default, deserialize_with = "lenient")]
    sender: Option<Account>,
}

#[derive(Deserialize)]
struct Package {
    name: Option<String>,
    namespace: Option<String>,
    package_type: Option<String>,
    package_version: Option<Version>,
    #[serde(default)]
    created_at: Stamp,
    #[serde(default)]
    updated_at: Stamp,
}

impl Package {
    /// Returns the time of the last change. In a captured body it was the creation of the package,
    /// three weeks before the push: a package that seems never to have changed tells no time.
    fn changed_at(&self) -> EventTime {
        let changed = self.updated_at.read("package.updated_at")?;
        let created = self.created_at.read("package.created_at").ok().flatten();
        Ok(changed.filter(|changed| created != Some(*changed)))
    }
}

#[derive(Deserialize)]
struct Version {
    version: Option<String>,
    package_url: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    container_metadata: Option<Metadata>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, deserialize_with = "lenient")]
    tag: Option<TagOf>,
    #[serde(default, deserialize_with = "lenient")]
    manifest: Option<Manifest>,
}

#[derive(Default, Deserialize)]
struct TagOf {
    name: Option<String>,
    digest: Option<String>,
}

#[derive(Default, Deserialize)]
struct Manifest {
    digest: Option<String>,
    media_type: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Account {
    login: Option<String>,
}

fn decode(
    headers: &HeaderMap,
    body: &[u8],
    ctx: &Context<'_>,
) -> Result<Vec<Meaning>, DecodeError> {
    let event = header(headers, EVENT);
    if event.is_some_and(|event| !matches!(event, "package" | "registry_package")) {
        return Ok(vec![Meaning::Ignored]); // A ping, or an event that was not selected.
    }
    let hook: Hook = serde_json::from_slice(body)?;
    let Some(package) = hook.package else {
        return Err(DecodeError::wrong_form("the body has no `package`"));
    };
    let kind = package.package_type.as_deref().unwrap_or_default();
    let is_image = ["container", "docker"]
        .iter()
        .any(|image| kind.eq_ignore_ascii_case(image));
    let pushed = matches!(
        hook.action.as_deref(),
        Some("published" | "updated" | "create")
    );
    let changed_at = package.changed_at();
    let Some(version) = package.package_version.filter(|_| is_image && pushed) else {
        return Ok(vec![Meaning::Ignored]);
    };
    let url = Url::of(version.package_url.as_deref().unwrap_or_default());
    let Metadata { tag, manifest } = version.container_metadata.unwrap_or_default();
    let (tag, manifest) = (tag.unwrap_or_default(), manifest.unwrap_or_default());
    let is_digest = |text: &String| text.parse::<Digest>().is_ok();
    // The first valid digest: some examples of GitHub's have truncated digests.
    let digests = [tag.digest, manifest.digest, present(version.version)];
    let named = digests.iter().flatten().find(|text| is_digest(text));
    let digest = named.or(digests.iter().flatten().next()).cloned();
    let tag = present(tag.name).or_else(|| present(url.tag.map(str::to_owned)));
    if tag.is_none() && digest.is_none() {
        return Ok(vec![Meaning::Ignored]); // A new description.
    }
    let repository = url.repository.map(str::to_owned).or_else(|| {
        let namespace = present(package.namespace)?;
        Some(format!("{namespace}/{}", present(package.name)?))
    });
    let report = Report {
        action: Action::Push,
        registry: ctx.registry(url.host.unwrap_or("ghcr.io"))?,
        repository: repository.as_deref().map(lowercase),
        tag,
        digest,
        media_type: manifest.media_type,
        size: manifest.size,
        actor: hook.sender.and_then(|sender| sender.login),
        time: changed_at,
        id: header(headers, DELIVERY).map(str::to_owned),
    };
    Ok(vec![report.decode(ctx, || body_id(body))?])
}

/// `ghcr.io/Owner/name:tag`, or `ghcr.io/Owner/name:` without a tag.
#[derive(Default)]
struct Url<'a> {
    host: Option<&'a str>,
    repository: Option<&'a str>,
    tag: Option<&'a str>,
}

impl Url<'_> {
    fn of(text: &str) -> Url<'_> {
        let Some((host, path)) = text.split_once('/') else {
            return Url::default();
        };
        if host.is_empty() || host.ends_with(':') {
            return Url::default(); // An address with a scheme is a web page.
        }
        let (repository, tag) = match path.split_once([':', '@']) {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        Url {
            host: Some(host),
            repository: Some(repository),
            tag,
        }
    }
}
