//! zot: `CloudEvents` over HTTP (binary mode: the body is only the data) or NATS (structured mode:
//! one JSON holds the whole event).
//!
//! Source: `pkg/extensions/events` of project-zot/zot. The prefix of the event types is
//! configurable, so only their end is compared. An event names no registry. The delete of a tag
//! also names the digest, and removes only the tag. Garbage collection and retention send nothing;
//! the reconciler finds their deletes.
//!
//! The fields that count, known from the code, and captured bodies of 2.1:
//!
//! | field | meaning |
//! |---|---|
//! | `Ce-Type` or `type` | the sort of event |
//! | `Ce-Id`, `Ce-Time` or `id`, `time` | identifier and the event's own time |
//! | `name`, `reference`, `digest`, `mediaType` | of the manifest; `reference` is a tag or a digest |
//! | `manifest` | the manifest, of which only the length is read |
//! | `actor.name` | the user, from 2.1.18 on |

use std::time::Duration;

use axum::http::HeaderMap;
use serde::Deserialize;
use tagtrail_config::{SettingError, Settings};
use tagtrail_proto::{Action, Digest};

use super::{
    Context, DecodeError, Kind, Meaning, NatsSubject, Options, Report, Stamp, body_id, header,
    lenient, present,
};

pub(super) const ZOT: Kind = Kind {
    // The `timeout` of the settings below.
    patience: Duration::from_secs(5),
    needs_registry: true,
    headers: &["ce-type", "ce-id", "ce-time"],
    ..Kind::with_settings(
        "zot",
        &["nats"],
        configure,
        r#"In zot's config.json, under "extensions", then restart it:

"events": {
  "enable": true,
  "sinks": [{
    "type": "http",
    "address": "{url}",
    "timeout": "5s",
    "headers": { "Authorization": "Bearer {secret}" }
  }]
}

Or over NATS, where a manifest of more than NATS's max_payload (1 MiB) is lost:

  "sinks": [{ "type": "nats", "address": "nats://…:4222", "channel": "zot.events" }]

and in tagtrail.toml: nats = { url = "nats://…:4222", subject = "zot.events" }"#,
    )
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZotSettings {
    nats: Option<NatsSubject>,
}

fn configure(settings: &Settings) -> Result<Options, SettingError> {
    let ZotSettings { nats } = settings.parse()?;
    Ok(Options {
        nats,
        ..Options::new(decode)
    })
}

#[derive(Deserialize)]
struct StructuredEvent<'a> {
    specversion: Option<String>,
    #[serde(rename = "type")]
    what: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default)]
    time: Stamp,
    #[serde(borrow)]
    data: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    name: Option<String>,
    reference: Option<String>,
    digest: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    media_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    manifest: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    actor: Option<Actor>,
}

#[derive(Deserialize)]
struct Actor {
    name: Option<String>,
}

fn decode(
    headers: &HeaderMap,
    body: &[u8],
    ctx: &Context<'_>,
) -> Result<Vec<Meaning>, DecodeError> {
    let own = |name| header(headers, name).map(str::to_owned);
    let (what, id, time, data) = match own("ce-type") {
        Some(what) => (
            what,
            own("ce-id"),
            Stamp::from(header(headers, "ce-time")),
            body,
        ),
        None => {
            let event: StructuredEvent<'_> = serde_json::from_slice(body)?;
            let (Some(what), Some(_)) = (event.what, event.specversion) else {
                return Err(DecodeError::new(
                    "no CloudEvent: neither the header Ce-Type nor `specversion` and `type` in the body",
                ));
            };
            let data = event.data.map(|data| data.get().as_bytes());
            (what, event.id, event.time, data.unwrap_or(b"{}"))
        }
    };
    let action = match () {
        () if what.ends_with(".image.updated") => Action::Push,
        () if what.ends_with(".image.deleted") => Action::Delete,
        // Scans, lint, new repositories.
        () => return Ok(vec![Meaning::Ignored]),
    };
    let data: Data = serde_json::from_slice(data)?;
    let reference =
        present(data.reference).ok_or_else(|| DecodeError::new("the event names no reference"))?;
    // In a push or delete by digest, the reference is the digest.
    let is_digest = reference.parse::<Digest>().is_ok();
    let report = Report {
        action,
        registry: ctx.registry("")?,
        repository: data.name,
        digest: match is_digest {
            true => Some(reference.clone()),
            false => data.digest,
        },
        tag: Some(reference),
        media_type: data.media_type,
        size: data.manifest.map(|manifest| manifest.len() as u64),
        actor: data.actor.and_then(|actor| actor.name),
        time: time.read("time"),
        id,
    };
    Ok(vec![report.decode(ctx, || body_id(body))?])
}
