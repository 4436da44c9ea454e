//! Harbor, also under other names (MSR 4).
//!
//! Sources: `src/controller/event/**` and `src/pkg/notifier/formats` of goharbor/harbor, and its
//! page on webhooks. Bodies have three forms: the default, `CloudEvents` (since 2.8), and the form
//! in the page of 1.10.
//!
//! - A push by digest (parts of an index, replication, proxy caches) repeats the digest in place of
//!   the tag.
//! - A delete names one tag, and removes the digest with all its tags.
//! - The creation or removal of a tag alone sends no event; the reconciler finds it.
//!
//! The fields that count, known from the code and Harbor's page:
//!
//! | field | meaning |
//! |---|---|
//! | `type` or `event_type` | the sort of event |
//! | `occur_at`, of `CloudEvents` `time` | the event's own time |
//! | `operator`, `id` | the user, and the identifier |
//! | `….repository.{repo_full_name,namespace,name}` | the repository |
//! | `….resources[].{digest,tag,resource_url}` | of the manifest; the address has the host |
//! | `events[].{full_name,tag,trigger_time}` | the same, in 1.10 |

use std::time::Duration;

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use tagtrail_proto::Action;

use super::{
    Context, DecodeError, EventTime, Kind, Meaning, Parts, Report, Stamp, first_of, lenient,
    present,
};

pub(super) const HARBOR: Kind = Kind {
    // The default of JOBSERVICE_WEBHOOK_JOB_HTTP_CLIENT_TIMEOUT.
    patience: Duration::from_secs(3),
    ..Kind::new(
        "harbor",
        decode,
        r#"In each project: Webhooks, New webhook.

  Notify type     http
  Payload format  Default (or CloudEvents)
  Event type      Artifact deleted, Artifact pushed
  Endpoint URL    {url}
  Auth header     Bearer {secret}

Or for all projects, by the API:

curl -u admin 'https://HARBOR/api/v2.0/projects/PROJECT/webhook/policies' -H 'Content-Type: application/json' -d '{
  "name": "tagtrail", "enabled": true, "event_types": ["PUSH_ARTIFACT", "DELETE_ARTIFACT"],
  "targets": [{"type": "http", "address": "{url}", "auth_header": "Bearer {secret}"}]
}'"#,
    )
};

#[derive(Deserialize)]
struct Hook<'a> {
    #[serde(rename = "type")]
    what: Option<String>,
    #[serde(default)]
    occur_at: Stamp,
    #[serde(default, deserialize_with = "lenient")]
    operator: Option<String>,
    #[serde(borrow)]
    event_data: Option<Data<'a>>,
    // Fields of CloudEvents.
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default)]
    time: Stamp,
    #[serde(borrow)]
    data: Option<Data<'a>>,
    // Fields in the page of 1.10.
    event_type: Option<String>,
    #[serde(borrow)]
    events: Option<Parts<'a>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    resources: Option<Parts<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    name: Option<String>,
    namespace: Option<String>,
    repo_full_name: Option<String>,
}

#[derive(Deserialize)]
struct Resource {
    digest: Option<String>,
    tag: Option<String>,
    resource_url: Option<String>,
}

#[derive(Deserialize)]
struct Old {
    full_name: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    trigger_time: Stamp,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    let hook: Hook<'_> = serde_json::from_slice(body)?;
    let what = hook
        .what
        .or(hook.event_type)
        .ok_or_else(|| DecodeError::wrong_form("the body has no `type`"))?;
    let action = match what.as_str() {
        "PUSH_ARTIFACT" | "harbor.artifact.pushed" | "pushImage" => Action::Push,
        "DELETE_ARTIFACT" | "harbor.artifact.deleted" | "deleteImage" => Action::Delete,
        // Pulls, scans, quotas, replication and retention. Retention deletes artifacts, and each
        // delete has its own event.
        _ => return Ok(vec![Meaning::Ignored]),
    };
    if let Some(events) = hook.events {
        return Ok(events.decode(body, |event, body_id| old(event, action, ctx, body_id)));
    }
    let data = hook.event_data.or(hook.data);
    let Some(Data {
        resources: Some(resources),
        repository,
    }) = data
    else {
        return Err(DecodeError::new("the event names no `resources`"));
    };
    let repository = repository.and_then(|repository| {
        let name = present(repository.name);
        present(repository.repo_full_name)
            .or_else(|| Some(format!("{}/{}", present(repository.namespace)?, name?)))
    });
    let repository =
        repository.ok_or_else(|| DecodeError::new("the event names no `repository`"))?;
    let common = CommonFields {
        action,
        repository,
        actor: hook.operator,
        time: first_of([hook.occur_at.read("occur_at"), hook.time.read("time")]),
        id: hook.id,
    };
    Ok(resources.decode(body, |resource, body_id| {
        decode_resource(resource, &common, ctx, body_id)
    }))
}

/// The fields that all resources of an event share.
struct CommonFields {
    action: Action,
    repository: String,
    actor: Option<String>,
    time: EventTime,
    id: Option<String>,
}

fn decode_resource(
    resource: &RawValue,
    common: &CommonFields,
    ctx: &Context<'_>,
    body_id: &dyn Fn() -> String,
) -> Result<Meaning, DecodeError> {
    let resource: Resource = serde_json::from_str(resource.get())?;
    let registry = ctx.registry(host(
        resource.resource_url.as_deref().unwrap_or_default(),
        &common.repository,
    ))?;
    let digest = present(resource.digest);
    let report = Report {
        action: common.action,
        registry,
        repository: Some(common.repository.clone()),
        // A delete removes the digest, so the named tag is ignored.
        tag: match common.action {
            Action::Delete if digest.is_some() => None,
            _ => resource.tag,
        },
        digest,
        media_type: None,
        size: None,
        actor: common.actor.clone(),
        time: common.time.clone(),
        id: common.id.clone(),
    };
    report.decode(ctx, body_id)
}

/// Returns the host of `host[:port]/repository`, followed by `:tag`, `@digest`, or (2.0 and 2.1)
/// `:digest`. Only the repository marks the end of the host.
fn host<'a>(url: &'a str, repository: &str) -> &'a str {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', '@']);
    let whole = url.match_indices('/').find_map(|(at, _)| {
        let rest = url[at + 1..].strip_prefix(repository)?;
        ends(rest).then_some(&url[..at])
    });
    whole.unwrap_or_default()
}

/// Decodes an event in the form of 1.10, which has no digest (`image_id` is the digest of the
/// config) and no registry.
fn old(
    event: &RawValue,
    action: Action,
    ctx: &Context<'_>,
    body_id: &dyn Fn() -> String,
) -> Result<Meaning, DecodeError> {
    let event: Old = serde_json::from_str(event.get())?;
    let report = Report {
        action,
        registry: ctx.registry("")?,
        repository: event.full_name,
        tag: event.tag,
        digest: None,
        media_type: None,
        size: None,
        actor: None,
        time: event.trigger_time.read("trigger_time"),
        id: None,
    };
    report.decode(ctx, body_id)
}
