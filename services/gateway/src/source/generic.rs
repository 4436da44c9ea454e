//! Events from any script, in a small JSON format that `docs/generic-source.md` documents.
//!
//! The format includes the fields of the old registry extension (`namespace`, `repository`, `tag`,
//! `image_id`, image metadata). An image id is the digest of the config, not of the manifest, so it
//! never replaces `digest`: the resolver asks the registry.
//!
//! The fields that count, known from `docs/generic-source.md`:
//!
//! | field | meaning |
//! |---|---|
//! | `namespace`, `repository`, `tag`, `digest`, `action`, `actor`, `time`, `id`, `media_type`, `size` | as documented; `time` is the time of the push or delete |

use std::time::Duration;

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use tagtrail_proto::Action;

use super::{Context, DecodeError, Kind, Meaning, Parts, Report, Stamp, lenient, present};

pub(super) const GENERIC: Kind = Kind {
    // As documented for scripts; curl has no time-out.
    patience: Duration::from_secs(30),
    needs_registry: true,
    // `time` is optional.
    has_time: false,
    ..Kind::new(
        "generic",
        decode,
        r#"After each push, in the script or pipeline that pushes:

curl --fail --retry 5 --retry-all-errors {url} \
  -H "Authorization: Bearer {secret}" \
  -H 'Content-Type: application/json' \
  -d '{"repository":"shop/web","tag":"latest","digest":"sha256:…"}'

Leave digest out, and the registry is asked for it."#,
    )
};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    events: Option<Parts<'a>>,
}

#[derive(Deserialize)]
struct Event {
    namespace: Option<String>,
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
    action: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    actor: Option<String>,
    #[serde(default)]
    time: Stamp,
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    media_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    size: Option<u64>,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    let whole: &RawValue = serde_json::from_slice(body)?;
    let events = if whole.get().starts_with('[') {
        serde_json::from_str(whole.get())?
    } else {
        let envelope: Envelope<'_> = serde_json::from_str(whole.get())?;
        envelope.events.unwrap_or(Parts(vec![whole]))
    };
    Ok(events.decode(body, |event, body_id| decode_event(event, ctx, body_id)))
}

fn decode_event(
    event: &RawValue,
    ctx: &Context<'_>,
    body_id: &dyn Fn() -> String,
) -> Result<Meaning, DecodeError> {
    let event: Event = serde_json::from_str(event.get())?;
    let action: Action = match &event.action {
        Some(action) => action.parse()?,
        None => Action::Push,
    };
    let registry = ctx
        .registry
        .cloned()
        .ok_or_else(|| DecodeError::new("the source names no registry"))?;
    // `"tag": "$TAG"` with an empty variable must not delete the whole repository.
    let empty = |text: &Option<String>| text.as_deref() == Some("");
    if action == Action::Delete && (empty(&event.tag) || empty(&event.digest)) {
        return Err(DecodeError::new(
            "a delete with an empty tag or digest: leave the field out to mean the whole repository",
        ));
    }
    let repository = match (present(event.namespace), event.repository) {
        (Some(namespace), Some(repository)) => Some(format!("{namespace}/{repository}")),
        (_, repository) => repository,
    };
    let report = Report {
        action,
        registry,
        repository,
        tag: event.tag,
        digest: event.digest,
        media_type: event.media_type,
        size: event.size,
        actor: event.actor,
        time: event.time.read("time"),
        id: event.id,
    };
    report.decode_any(ctx, body_id)
}
