//! Quay: quay.io and Red Hat Quay.
//!
//! Sources: `notifications/{__init__,notificationevent,notificationmethod}.py` of quay/quay. All
//! notifications share one envelope; only a push has `updated_tags`. An event has no digest, time,
//! identifier or actor. Deletes, expiry, restored tags, and tags changed by the API send nothing;
//! the reconciler finds them.
//!
//! The fields that count, known from the code:
//!
//! | field | meaning |
//! |---|---|
//! | `docker_url` | the host |
//! | `repository`, `updated_tags` | the repository and its pushed tags |

use axum::http::HeaderMap;
use serde::Deserialize;
use tagtrail_proto::Action;

use super::{Context, DecodeError, Kind, Meaning, Parts, Report};

pub(super) const QUAY: Kind = Kind {
    has_digest: false,
    has_time: false,
    ..Kind::new(
        "quay",
        decode,
        r#"In each repository: Settings, Events and Notifications, Create Notification.

  When this event occurs   Push to Repository
  Then issue               Webhook POST
  Webhook URL              {url}/{secret}
  POST JSON body template  leave it empty

Quay sends no header that proves who it is, so the secret is part of the address. After three failed attempts Quay turns a
notification off without a word: its menu (the cog beside it) has "Enable Notification"."#,
    )
};

#[derive(Deserialize)]
struct Hook<'a> {
    repository: Option<String>,
    docker_url: Option<String>,
    #[serde(borrow)]
    updated_tags: Option<Parts<'a>>,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    let hook: Hook<'_> = serde_json::from_slice(body)?;
    let url = hook.docker_url.ok_or_else(|| {
        DecodeError::wrong_form(
            "the body has no `docker_url`: the notification must have no template of its own",
        )
    })?;
    let Some(tags) = hook.updated_tags else {
        return Ok(vec![Meaning::Ignored]);
    };
    let registry = ctx.registry(url.split('/').next().unwrap_or_default())?;
    Ok(tags.decode(body, |tag, body_id| {
        let report = Report {
            action: Action::Push,
            registry: registry.clone(),
            repository: hook.repository.clone(),
            tag: Some(serde_json::from_str(tag.get())?),
            digest: None,
            media_type: None,
            size: None,
            actor: None,
            time: Ok(None),
            id: None,
        };
        report.decode(ctx, body_id)
    }))
}
