//! CNCF Distribution (docker-registry 2.x and 3.x), and GitLab's registry, which is a fork of it.
//!
//! Sources: `notifications/{event,bridge}.go` and `docs/content/about/notifications.md` of
//! distribution/distribution. An envelope holds events about manifests *and* blobs, pushes *and*
//! pulls. Few of them move a tag:
//!
//! - 2.0 has no field for the tag, only the manifest's address; 2.1 to 2.3 have neither, so their
//!   pushes can't be used;
//! - 2.x leaves out unknown values, 3.x writes `""` and `0`;
//! - a delete by digest is one event for the digest and, in 3.x, one for each tag of the digest, in
//!   any order;
//! - the delete of a blob looks like the delete of a manifest, and is harmless: no tag ever had the
//!   digest of a blob.
//!
//! The fields that count, known from the code, and captured bodies of 2.8 and 3.1:
//!
//! | field | meaning |
//! |---|---|
//! | `action`, `id`, `timestamp` | of the event; `timestamp` is the event's own time |
//! | `target.{repository,tag,digest,mediaType,size,length}` | of the manifest |
//! | `target.url` | the address: host, and in 2.0 the tag |
//! | `request.host` | the registry as the client named it |
//! | `request.useragent` | the client: pulls by Tagtrail itself are left out |
//! | `actor.name` | the user who pushed or deleted |
//!
//! A pull by tag, also one by `HEAD`, names the tag and the digest that the registry answered with.

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use tagtrail_proto::{Action, Push, Tag, clean_text};

use super::{Context, DecodeError, Kind, Meaning, Parts, Report, Stamp, lenient, present};

pub(super) const DISTRIBUTION: Kind = Kind {
    aliases: &["gitlab"],
    ..Kind::new(
        "distribution",
        decode,
        r#"In the registry's config.yml, then restart it:

notifications:
  events:
    includereferences: false
  endpoints:
    - name: tagtrail
      url: {url}
      headers:
        Authorization: ["Bearer {secret}"]
      timeout: 1s
      threshold: 5
      backoff: 1s
      ignore:
        mediatypes: [application/octet-stream]
        actions: [pull]

GitLab, in /etc/gitlab/gitlab.rb, then gitlab-ctl reconfigure:

registry['notifications'] = [{
  'name' => 'tagtrail',
  'url' => '{url}',
  'timeout' => '1s',
  'threshold' => 5,
  'backoff' => '1s',
  'headers' => { 'Authorization' => ['Bearer {secret}'] }
}]"#,
    )
};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    events: Option<Parts<'a>>,
}

#[derive(Deserialize)]
struct Event {
    action: String,
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default)]
    timestamp: Stamp,
    target: Option<Target>,
    #[serde(default, deserialize_with = "lenient")]
    request: Option<Request>,
    #[serde(default, deserialize_with = "lenient")]
    actor: Option<Actor>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(default, deserialize_with = "lenient")]
    media_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    size: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    length: Option<u64>,
    digest: Option<String>,
    repository: Option<String>,
    tag: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    url: Option<String>,
}

#[derive(Deserialize)]
struct Request {
    host: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    useragent: Option<String>,
}

#[derive(Deserialize)]
struct Actor {
    name: Option<String>,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    let envelope: Envelope<'_> = serde_json::from_slice(body)?;
    match envelope.events {
        Some(events) => Ok(events.decode(body, |event, body_id| decode_event(event, ctx, body_id))),
        // Go omits an empty list.
        None if body
            .iter()
            .filter(|byte| !byte.is_ascii_whitespace())
            .eq(b"{}") =>
        {
            Ok(Vec::new())
        }
        None => Err(DecodeError::wrong_form("the body has no `events`")),
    }
}

/// Decodes an event. Azure sends the same form.
pub(super) fn decode_event(
    event: &RawValue,
    ctx: &Context<'_>,
    body_id: &dyn Fn() -> String,
) -> Result<Meaning, DecodeError> {
    let event: Event = serde_json::from_str(event.get())?;
    match event.action.as_str() {
        "push" => decode_change(event, Action::Push, ctx, body_id),
        "delete" => decode_change(event, Action::Delete, ctx, body_id),
        "pull" => Ok(decode_pull(event, ctx, body_id)),
        // Mounts, and actions of later versions and forks.
        _ => Ok(Meaning::Ignored),
    }
}

/// Decodes a pull. A pull that can't be understood changes nothing, so it is never malformed.
fn decode_pull(event: Event, ctx: &Context<'_>, body_id: &dyn Fn() -> String) -> Meaning {
    let agent = event.request.as_ref();
    let agent = agent.and_then(|request| request.useragent.as_deref());
    // Each question of the resolver is a pull too.
    if agent.is_some_and(|agent| agent.starts_with("tagtrail/")) {
        return Meaning::Ignored;
    }
    let event = Event {
        // A pull names the digest of the tag at its receipt.
        timestamp: Stamp::default(),
        // The client that pulls is not the author of the tag.
        actor: None,
        ..event
    };
    match decode_change(event, Action::Push, ctx, body_id) {
        Ok(Meaning::Push(pull)) => {
            let event_id = format!("{}{}", Push::OBSERVED, pull.event_id);
            Meaning::Observed(Box::new(Push {
                event_id: clean_text(&event_id, 256),
                ..*pull
            }))
        }
        _ => Meaning::Ignored,
    }
}

fn decode_change(
    event: Event,
    action: Action,
    ctx: &Context<'_>,
    body_id: &dyn Fn() -> String,
) -> Result<Meaning, DecodeError> {
    let mut target = event.target.unwrap_or_default();
    let url = Url::of(target.url.as_deref().unwrap_or_default());
    if action == Action::Push {
        if url.what == "blobs" || target.media_type.as_deref() == Some("application/octet-stream") {
            return Ok(Meaning::Ignored);
        }
        if present(target.tag.clone()).is_none() && url.what == "manifests" {
            // The address holds the tag only in 2.0. Later versions have the digest there, which is
            // no tag.
            target.tag = url.reference.parse::<Tag>().ok().map(|tag| tag.to_string());
        }
    }
    let host = event.request.and_then(|request| present(request.host));
    let registry = ctx.registry(host_of(host.as_deref(), &url))?;
    let report = Report {
        action,
        registry,
        repository: target.repository,
        tag: target.tag,
        digest: target.digest,
        media_type: target.media_type,
        size: target.size.or(target.length),
        actor: event.actor.and_then(|actor| actor.name),
        time: event.timestamp.read("timestamp"),
        id: event.id,
    };
    report.decode_any(ctx, body_id)
}

/// Returns the registry as clients name it: the `Host` of the request. Deletes carry no address, so
/// port 443 is taken for HTTPS; otherwise a push and a delete of one image would concern two
/// registries.
fn host_of<'a>(host: Option<&'a str>, url: &Url<'a>) -> &'a str {
    let host = host.unwrap_or(url.host);
    if url.scheme.eq_ignore_ascii_case("http") {
        host
    } else {
        host.strip_suffix(":443").unwrap_or(host)
    }
}

/// `scheme://host/v2/repository/(manifests|blobs)/reference`. Missing parts are empty.
#[derive(Default)]
struct Url<'a> {
    scheme: &'a str,
    host: &'a str,
    what: &'a str,
    reference: &'a str,
}

impl Url<'_> {
    fn of(text: &str) -> Url<'_> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Url::default();
        };
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let mut segments = path.rsplitn(3, '/');
        let reference = segments.next().unwrap_or_default();
        let what = segments.next().unwrap_or_default();
        Url {
            scheme,
            host: rest.split('/').next().unwrap_or_default(),
            what,
            reference,
        }
    }
}
