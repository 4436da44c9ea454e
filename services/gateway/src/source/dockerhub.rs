//! Docker Hub.
//!
//! Source: `content/manuals/docker-hub/repos/manage/webhooks.md` of docker/docs. Only pushes are
//! sent, without digest and signature. A push of several platforms sends the same body once for
//! each manifest (docker/hub-feedback#2148), so no body may count as a duplicate: the registry is
//! asked after the last.
//!
//! The fields that count, known from Docker's page:
//!
//! | field | meaning |
//! |---|---|
//! | `push_data.{tag,pusher,pushed_at}` | the pushed tag, its user, and the time of the push |
//! | `repository.repo_name` | the repository |

use axum::http::HeaderMap;
use serde::Deserialize;
use tagtrail_proto::Action;

use super::{Context, DecodeError, Kind, Meaning, Report, Stamp, body_id, lenient, present};

pub(super) const DOCKERHUB: Kind = Kind {
    has_digest: false,
    default_registry: Some(REGISTRY),
    ..Kind::new(
        "dockerhub",
        decode,
        r#"In each repository on hub.docker.com: Webhooks.

  Webhook name  tagtrail
  Webhook URL   {url}/{secret}

Docker Hub sends no digest, so tagtrail.toml must say how it is asked:

[[registry]]
name = "docker.io"
url = "https://registry-1.docker.io"
realm = "https://auth.docker.io/token"
username = "…"                      # without one Docker Hub allows few questions
password = { file = "…" }"#,
    )
};

const REGISTRY: &str = "docker.io";

#[derive(Deserialize)]
struct Hook {
    push_data: Option<PushData>,
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct PushData {
    tag: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pusher: Option<String>,
    #[serde(default)]
    pushed_at: Stamp,
}

#[derive(Deserialize)]
struct Repository {
    repo_name: Option<String>,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    let hook: Hook = serde_json::from_slice(body)?;
    let (Some(push), Some(repository)) = (hook.push_data, hook.repository) else {
        return Err(DecodeError::wrong_form(
            "the body has no `push_data` or no `repository`",
        ));
    };
    let tag = present(push.tag).ok_or_else(|| DecodeError::new("the event names no tag"))?;
    let official = |name: String| match name.contains('/') {
        true => name,
        false => format!("library/{name}"),
    };
    let report = Report {
        action: Action::Push,
        registry: ctx.registry(REGISTRY)?,
        repository: present(repository.repo_name).map(official),
        tag: Some(tag),
        digest: None,
        // Docker Hub sends the media type of the config here, not of the manifest.
        media_type: None,
        size: None,
        actor: push.pusher,
        time: push.pushed_at.read("pushed_at"),
        id: None,
    };
    Ok(vec![report.decode(ctx, || body_id(body))?])
}
