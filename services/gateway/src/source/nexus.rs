//! Sonatype Nexus Repository.
//!
//! Sources: Sonatype's page on webhooks and `test/fixtures/nexus_payload` of fluxcd/flux-recv.
//! Components have no digest. Asset events are ignored. The name of the Nexus repository is part of
//! the image name only with `nexus_access = "repository-path"`.
//!
//! The fields that count, known from Sonatype's page and the fixture of flux-recv:
//!
//! | field | meaning |
//! |---|---|
//! | `timestamp` | the event's own time |
//! | `initiator` | `user/address` |
//! | `repositoryName` | the repository of Nexus |
//! | `action`, `component.{format,name,version}` | the sort of event, the image and the tag |
//! | `X-Nexus-Webhook-Id`, `X-Nexus-Webhook-Delivery` | the sort of event, and its identifier |

use axum::http::HeaderMap;
use serde::Deserialize;
use tagtrail_config::{SettingError, Settings};
use tagtrail_proto::Action;

use super::{
    Access, Context, DecodeError, Kind, Meaning, Options, Proof, Report, Stamp, body_id, header,
    lenient, present,
};
use crate::proof::signature::Signature;

pub(super) const NEXUS: Kind = Kind {
    needs_registry: true,
    has_digest: false,
    proof: Proof::Signature(&[Signature::sha1("x-nexus-webhook-signature")]),
    headers: &[EVENT, DELIVERY],
    ..Kind::with_settings(
        "nexus",
        &["nexus_access"],
        configure,
        r#"Administration, System, Capabilities, Create capability, Webhook: Repository.

  Repository   the hosted Docker repository
  Event types  component
  URL          {url}
  Secret key   {secret}

and in tagtrail.toml:

registry = "nexus.example.com:8082"   # as Docker clients name it
nexus_access = "port"                 # or "repository-path": nexus.example.com/REPOSITORY/image

There is no digest in the events, so tagtrail.toml needs a [[registry]] of the same name."#,
    )
};

const EVENT: &str = "x-nexus-webhook-id";
const DELIVERY: &str = "x-nexus-webhook-delivery";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    #[serde(default)]
    timestamp: Stamp,
    #[serde(default, deserialize_with = "lenient")]
    initiator: Option<String>,
    repository_name: Option<String>,
    action: Option<String>,
    component: Option<Component>,
}

#[derive(Deserialize)]
struct Component {
    format: Option<String>,
    name: Option<String>,
    version: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NexusSettings {
    nexus_access: Option<Access>,
}

fn configure(settings: &Settings) -> Result<Options, SettingError> {
    let NexusSettings { nexus_access } = settings.parse()?;
    let access = nexus_access.unwrap_or(Access::Port);
    Ok(Options::new(move |headers, body, ctx| {
        decode(headers, body, ctx, access)
    }))
}

fn decode(
    headers: &HeaderMap,
    body: &[u8],
    ctx: &Context<'_>,
    access: Access,
) -> Result<Vec<Meaning>, DecodeError> {
    if header(headers, EVENT).is_some_and(|event| event != "rm:repository:component") {
        return Ok(vec![Meaning::Ignored]);
    }
    let hook: Hook = serde_json::from_slice(body)?;
    let action = match hook.action.as_deref() {
        Some("CREATED" | "UPDATED") => Action::Push,
        Some("DELETED") => Action::Delete,
        Some(_) => return Ok(vec![Meaning::Ignored]),
        None => {
            return Err(DecodeError::wrong_form("the body has no `action`"));
        }
    };
    let docker = |component: &Component| component.format.as_deref() == Some("docker");
    let Some(component) = hook.component.filter(docker) else {
        return Ok(vec![Meaning::Ignored]);
    };
    let name = present(component.name);
    let repository = match access {
        Access::RepositoryPath => {
            let outer = present(hook.repository_name);
            outer
                .zip(name)
                .map(|(outer, name)| format!("{outer}/{name}"))
        }
        Access::Port | Access::SubDomain => name,
    };
    let tag =
        present(component.version).ok_or_else(|| DecodeError::new("the event names no version"))?;
    let report = Report {
        action,
        registry: ctx.registry("")?,
        repository,
        tag: Some(tag),
        digest: None,
        media_type: None,
        size: None,
        // The initiator is `user/address`.
        actor: hook.initiator.map(|text| match text.rsplit_once('/') {
            Some((user, _)) => user.to_owned(),
            None => text,
        }),
        time: hook.timestamp.read("timestamp"),
        id: header(headers, DELIVERY).map(str::to_owned),
    };
    Ok(vec![report.decode(ctx, || body_id(body))?])
}
