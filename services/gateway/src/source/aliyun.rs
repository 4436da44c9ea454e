//! Alibaba Cloud Container Registry.
//!
//! Source: `pkg/webhook/aliyun_acr_test.go` of argoproj-labs/argocd-image-updater. The body has the
//! form of Docker Hub's, with a digest. The time has no zone, so the time of receipt counts. An
//! instance of the Enterprise Edition is not named: the source must name the registry.
//!
//! The fields that count, known from the test of the argocd-image-updater, a captured body:
//!
//! | field | meaning |
//! |---|---|
//! | `push_data.{tag,digest}` | the pushed tag and its manifest |
//! | `repository.{repo_full_name,namespace,name,region}` | the repository, and the region that makes the host |
//! | `push_data.pushed_at` | not read: a time without a zone |

use axum::http::HeaderMap;
use serde::Deserialize;
use tagtrail_proto::Action;

use super::{Context, DecodeError, Kind, Meaning, Report, body_id, lowercase, present};

pub(super) const ALIYUN: Kind = Kind {
    has_time: false,
    ..Kind::new(
        "aliyun",
        decode,
        r#"In each repository: Trigger, Create.

  Name            tagtrail
  Trigger URL     {url}/{secret}
  Trigger         All

Of an Enterprise Edition instance set `registry` of the source to its host; without one it is registry.REGION.aliyuncs.com."#,
    )
};

#[derive(Deserialize)]
struct Hook {
    push_data: Option<PushData>,
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct PushData {
    digest: Option<String>,
    tag: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    name: Option<String>,
    namespace: Option<String>,
    region: Option<String>,
    repo_full_name: Option<String>,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    let hook: Hook = serde_json::from_slice(body)?;
    let (Some(push), Some(repository)) = (hook.push_data, hook.repository) else {
        return Err(DecodeError::wrong_form(
            "the body has no `push_data` or no `repository`",
        ));
    };
    let tag = present(push.tag).ok_or_else(|| DecodeError::new("the event names no tag"))?;
    let region = repository.region.unwrap_or_default();
    let name = present(repository.repo_full_name).or_else(|| {
        let namespace = present(repository.namespace)?;
        Some(format!("{namespace}/{}", present(repository.name)?))
    });
    let report = Report {
        action: Action::Push,
        registry: ctx.registry(&format!("registry.{region}.aliyuncs.com"))?,
        repository: name.as_deref().map(lowercase),
        tag: Some(tag),
        digest: push.digest,
        media_type: None,
        size: None,
        actor: None,
        time: Ok(None),
        id: None,
    };
    Ok(vec![report.decode(ctx, || body_id(body))?])
}
