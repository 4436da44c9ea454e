//! `JFrog` Artifactory.
//!
//! Sources: `JFrog`'s pages on events and akuity/kargo (`pkg/webhook/external/artifactory.go`). An
//! event concerns the file of a manifest, so the SHA-256 of the file is the digest. The name of an
//! image depends on how Docker clients reach Artifactory: `artifactory_access`.
//!
//! The fields that count, known from `JFrog`'s pages, and bodies captured in akuity/kargo#4498 and
//! #4899:
//!
//! | field | meaning |
//! |---|---|
//! | `domain`, `event_type` | the sort of event |
//! | `data.repo_key` | the repository of Artifactory |
//! | `data.path` | of the manifest's file: IMAGE/TAG/FILE, where IMAGE may have several parts |
//! | `data.image_name` | not read: the page shows the whole name, real servers send its last part |
//! | `data.{name,sha256,size}` | of the manifest's file |
//! | `data.tag` | the tag; of a push by digest, the digest |
//! | `jpd_origin` | the address of Artifactory; absent without a base URL |

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use tagtrail_config::{SettingError, Settings};
use tagtrail_proto::Action;

use super::{
    Access, Context, DecodeError, Kind, Meaning, Options, Proof, Report, body_id, lenient, present,
};
use crate::proof::signature::Signature;

pub(super) const ARTIFACTORY: Kind = Kind {
    has_time: false,
    proof: Proof::Signature(&[Signature::sha256("x-jfrog-event-auth").or_secret()]),
    ..Kind::with_settings(
        "artifactory",
        &["artifactory_access", "virtual"],
        configure,
        r#"Administration, General, Webhooks, New Webhook:

  URL           {url}
  Events        Docker: Tag was pushed, Tag was deleted, Tag was promoted
  Secret token  {secret}
  Use secret for payload signing  on

and in tagtrail.toml how Docker clients reach it, with the host that they name:

registry = "acme.jfrog.io"
artifactory_access = "repository-path"   # acme.jfrog.io/REPOSITORY/image; or "sub-domain", or "port"

Events name the local repository. If clients pull by a virtual one, name it:

virtual = { "docker-virtual" = ["docker-local"] }"#,
    )
};

#[derive(Deserialize)]
struct Hook {
    domain: Option<String>,
    event_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    jpd_origin: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    repo_key: Option<String>,
    path: Option<String>,
    name: Option<String>,
    sha256: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    size: Option<u64>,
    tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArtifactorySettings {
    artifactory_access: Option<Access>,
    /// By the key of each virtual repository, the keys of repositories behind it.
    #[serde(default)]
    r#virtual: BTreeMap<String, Vec<String>>,
}

/// By the key of a repository, the key under which clients know it.
type VirtualOf = HashMap<String, String>;

fn virtual_of(settings: BTreeMap<String, Vec<String>>) -> Result<VirtualOf, SettingError> {
    let wrong = |message: String| Err(SettingError::new("virtual", message));
    let mut virtual_of = VirtualOf::new();
    for (key, behind) in settings {
        for local in behind {
            if local == key {
                return wrong(format!(
                    "{local:?} is behind itself; name the local repository"
                ));
            }
            if let Some(other) = virtual_of.insert(local.clone(), key.clone()) {
                return wrong(format!(
                    "{local:?} is behind {other:?} and {key:?}; keep the one that triggers name"
                ));
            }
        }
    }
    Ok(virtual_of)
}

fn configure(settings: &Settings) -> Result<Options, SettingError> {
    let settings: ArtifactorySettings = settings.parse()?;
    let access = settings
        .artifactory_access
        .unwrap_or(Access::RepositoryPath);
    if access == Access::Port && !settings.r#virtual.is_empty() {
        let message = "images have no repository key with artifactory_access = \"port\"; set `registry` to the port of the virtual repository, and remove the key";
        return Err(SettingError::new("virtual", message));
    }
    let virtual_of = virtual_of(settings.r#virtual)?;
    Ok(Options::new(move |_, body, ctx| {
        decode(body, ctx, access, &virtual_of)
    }))
}

fn decode(
    body: &[u8],
    ctx: &Context<'_>,
    access: Access,
    virtual_of: &VirtualOf,
) -> Result<Vec<Meaning>, DecodeError> {
    let hook: Hook = serde_json::from_slice(body)?;
    let domain = hook
        .domain
        .ok_or_else(|| DecodeError::wrong_form("the body has no `domain`"))?;
    let action = match (domain.as_str(), hook.event_type.as_deref()) {
        // A promoted image was copied or moved to another repository, which now has the tag.
        ("docker", Some("pushed" | "promoted")) => Action::Push,
        ("docker", Some("deleted")) => Action::Delete,
        // Domain `artifact` repeats the same events.
        _ => return Ok(vec![Meaning::Ignored]),
    };
    let data = hook
        .data
        .ok_or_else(|| DecodeError::new("the event has no `data`"))?;
    if !matches!(
        data.name.as_deref(),
        Some("manifest.json" | "list.manifest.json")
    ) {
        return Ok(vec![Meaning::Ignored]); // The Test button sends a sample.
    }
    let key = present(data.repo_key);
    let key = key.map(|key| virtual_of.get(&key).cloned().unwrap_or(key));
    let image = image(data.path.as_deref().unwrap_or_default())
        .ok_or_else(|| DecodeError::new("`data.path` is not IMAGE/TAG/FILE"))?;
    let origin = hook.jpd_origin.unwrap_or_default();
    let origin = origin
        .split_once("://")
        .map_or(origin.as_str(), |(_, rest)| rest);
    let origin = origin.split('/').next().unwrap_or_default();
    let (host, repository) = match access {
        Access::RepositoryPath => (origin.to_owned(), key.map(|key| format!("{key}/{image}"))),
        Access::SubDomain => (format!("{}.{origin}", key.unwrap_or_default()), Some(image)),
        Access::Port => (String::new(), Some(image)),
    };
    let tag = present(data.tag);
    if tag.is_none() {
        return Err(DecodeError::new("the event names no tag"));
    }
    let report = Report {
        action,
        registry: ctx.registry(&host)?,
        repository,
        tag,
        digest: present(data.sha256).map(|hash| format!("sha256:{hash}")),
        media_type: None,
        size: data.size,
        actor: None,
        time: Ok(None),
        id: None,
    };
    Ok(vec![report.decode(ctx, || body_id(body))?])
}

/// Returns the name of an image: the path of the manifest without its last two parts, the folder of
/// the tag or digest and the file.
fn image(path: &str) -> Option<String> {
    let (image, _folder) = path.rsplit_once('/')?.0.rsplit_once('/')?;
    present(Some(image.trim_start_matches('/').to_owned()))
}
