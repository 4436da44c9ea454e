//! Mirantis Secure Registry 2 and 3, and Docker Trusted Registry before it. MSR 4 is a Harbor.
//!
//! Source: Mirantis's page on webhooks. `TAG_PUSH` and `TAG_DELETE` are complete; events of
//! manifests and scans change no tag.
//!
//! The fields that count, known from Mirantis's page; no captured body:
//!
//! | field | meaning |
//! |---|---|
//! | `type` | the sort of event |
//! | `contents.{namespace,repository,tag,digest}` | of the tag |
//! | `contents.imageName` | the host, unless the Test button was used |
//! | `contents.author` | the user |
//! | `contents.pushedAt` | the time of a push. A delete may name it too, and then it is that of the push before |
//! | `contents.deletedAt` | the time of a delete |
//! | `createdAt` | when the event was made, if its own time is absent |

use axum::http::HeaderMap;
use serde::Deserialize;
use tagtrail_proto::Action;

use super::{
    Context, DecodeError, Kind, Meaning, Report, Stamp, body_id, first_of, lenient, present,
};

pub(super) const MSR: Kind = Kind::new(
    "msr",
    decode,
    r#"In each repository: Webhooks, New Webhook; two of them.

  Notification to receive  Tag pushed to repository (and another: Tag deleted from repository)
  Webhook URL              {url}/{secret}

Of MSR 4 use kind "harbor"."#,
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    #[serde(rename = "type")]
    what: Option<String>,
    #[serde(default)]
    created_at: Stamp,
    #[serde(default, deserialize_with = "lenient")]
    contents: Option<Contents>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    namespace: Option<String>,
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
    image_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    author: Option<String>,
    #[serde(default)]
    pushed_at: Stamp,
    #[serde(default)]
    deleted_at: Stamp,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    let hook: Hook = serde_json::from_slice(body)?;
    let what = hook
        .what
        .ok_or_else(|| DecodeError::wrong_form("the body has no `type`"))?;
    let action = match what.as_str() {
        "TAG_PUSH" => Action::Push,
        "TAG_DELETE" => Action::Delete,
        _ => return Ok(vec![Meaning::Ignored]),
    };
    let contents = hook
        .contents
        .ok_or_else(|| DecodeError::new("the event has no `contents`"))?;
    let tag = present(contents.tag).ok_or_else(|| DecodeError::new("the event names no tag"))?;
    let image = contents.image_name.unwrap_or_default();
    // The Test button omits the host.
    let host = image
        .split('/')
        .next()
        .filter(|host| host.contains(['.', ':']) || *host == "localhost");
    let repository = present(contents.namespace).zip(present(contents.repository));
    let own = match action {
        Action::Push => contents.pushed_at.read("pushedAt"),
        Action::Delete => contents.deleted_at.read("deletedAt"),
    };
    let report = Report {
        action,
        registry: ctx.registry(host.unwrap_or_default())?,
        repository: repository.map(|(namespace, name)| format!("{namespace}/{name}")),
        tag: Some(tag),
        digest: contents.digest,
        media_type: None,
        size: None,
        actor: contents.author,
        time: first_of([own, hook.created_at.read("createdAt")]),
        id: None,
    };
    Ok(vec![report.decode(ctx, || body_id(body))?])
}
