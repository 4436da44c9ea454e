//! Google Artifact Registry and Container Registry, by Pub/Sub push.
//!
//! Sources: keel-hq/keel (`trigger/pubsub`), fluxcd/notification-controller and Google's page on
//! notifications. References are complete, `host/path@digest` or `host/path:tag`; the host ends at
//! the first slash. A notification with only a digest concerns a manifest without a tag. A
//! notification with only a tag removes the tag, or, from Container Registry, pushes a tag whose
//! digest the resolver must ask for.
//!
//! The fields that count, known from Google's page, keel and the notification-controller:
//!
//! | field | meaning |
//! |---|---|
//! | `message.{data,messageId,publishTime}` | of the notification; it is published at the change, so `publishTime` is the event's own time |
//! | `action`, `tag`, `digest` | INSERT or DELETE, and whole references |

use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use tagtrail_config::{SettingError, Settings};
use tagtrail_identity::{Keys, Rules};
use tagtrail_proto::Action;

use super::{
    Context, DecodeError, Kind, Meaning, Options, Proof, Report, Stamp, body_id, first_of, lenient,
    present,
};

use crate::proof::id_token::{TOKENS_NEED, TokenRules};

pub(super) const GAR: Kind = Kind {
    // The default acknowledgement deadline of Pub/Sub.
    patience: Duration::from_secs(10),
    proof: Proof::IdToken,
    ..Kind::with_settings(
        "gar",
        &["audience", "email", "issuer", "keys"],
        configure,
        r#"In the project of the registry:

gcloud pubsub topics create gcr
gcloud iam service-accounts create tagtrail-push
gcloud pubsub subscriptions create tagtrail --topic gcr --push-endpoint {url} \
  --push-auth-service-account {email} \
  --push-auth-token-audience {audience}

and in tagtrail.toml, in place of `secret`:

audience = "{audience}"
email = "{email}""#,
    )
};

/// The issuer and the keys of Google, the only provider so far.
const ISSUER: &str = "https://accounts.google.com";
const KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GarSettings {
    audience: Option<String>,
    email: Option<String>,
    issuer: Option<String>,
    keys: Option<Keys>,
}

fn configure(settings: &Settings) -> Result<Options, SettingError> {
    let GarSettings {
        audience,
        email,
        issuer,
        keys,
    } = settings.parse()?;
    if settings.keys().next().is_none() {
        return Ok(Options::new(decode));
    }
    let (Some(audience), Some(email)) = (audience, email) else {
        return Err(SettingError::new("audience", TOKENS_NEED));
    };
    let of_issuer = Rules {
        issuer: issuer.unwrap_or_else(|| ISSUER.to_owned()),
        audience,
        keys: keys.unwrap_or_else(|| Keys::Url(KEYS.to_owned())),
    };
    let tokens = TokenRules { of_issuer, email };
    Ok(Options {
        tokens: Some(tokens),
        ..Options::new(decode)
    })
}

#[derive(Deserialize)]
struct Envelope<'a> {
    message: Option<Message>,
    #[serde(borrow)]
    action: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message {
    data: Option<String>,
    #[serde(rename = "messageId", default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(rename = "message_id", default, deserialize_with = "lenient")]
    old_id: Option<String>,
    #[serde(rename = "publishTime", default)]
    time: Stamp,
    #[serde(rename = "publish_time", default)]
    old_time: Stamp,
}

#[derive(Deserialize)]
struct Notification {
    action: Option<String>,
    digest: Option<String>,
    tag: Option<String>,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    let envelope: Envelope<'_> = serde_json::from_slice(body)?;
    let (notification, id, time): (Notification, _, _) = match envelope.message {
        Some(message) => {
            let data = STANDARD
                .decode(message.data.unwrap_or_default())
                .map_err(|_| DecodeError::new("`message.data` is not in Base64"))?;
            let (id, time) = (
                message.id.or(message.old_id),
                first_of([
                    message.time.read("publishTime"),
                    message.old_time.read("publish_time"),
                ]),
            );
            (serde_json::from_slice(&data)?, id, time)
        }
        // The subscription may unwrap the message.
        None if envelope.action.is_some() => (serde_json::from_slice(body)?, None, Ok(None)),
        None => {
            return Err(DecodeError::wrong_form(
                "the body has neither `message` nor `action`",
            ));
        }
    };
    let action = match notification.action.as_deref() {
        Some("INSERT") => Action::Push,
        Some("DELETE") => Action::Delete,
        _ => return Ok(vec![Meaning::Ignored]),
    };
    let (by_tag, by_digest) = (present(notification.tag), present(notification.digest));
    let tagged = by_tag.as_deref().map(|text| split(text, ':')).transpose()?;
    let pinned = by_digest
        .as_deref()
        .map(|text| split(text, '@'))
        .transpose()?;
    let (host, repository) = match (tagged, pinned) {
        (Some((host, name, _)), Some((other, path, _))) if (host, name) != (other, path) => {
            return Err(DecodeError::new("tag and digest belong to two images"));
        }
        (Some((host, name, _)), _) | (None, Some((host, name, _))) => (host, name),
        (None, None) => {
            return Err(DecodeError::new(
                "the event names neither a tag nor a digest",
            ));
        }
    };
    let report = Report {
        action,
        registry: ctx.registry(host)?,
        repository: Some(repository.to_owned()),
        tag: tagged.map(|(_, _, tag)| tag.to_owned()),
        digest: pinned.map(|(_, _, digest)| digest.to_owned()),
        media_type: None,
        size: None,
        actor: None,
        time,
        id,
    };
    Ok(vec![report.decode(ctx, || body_id(body))?])
}

/// Splits a reference into host, path, and the text after the separator.
fn split(reference: &str, mark: char) -> Result<(&str, &str, &str), DecodeError> {
    let wrong = || DecodeError::new(format_args!("not a whole reference with `{mark}`"));
    let (host, rest) = reference.split_once('/').ok_or_else(wrong)?;
    let (path, last) = rest.split_once(mark).ok_or_else(wrong)?;
    Ok((host, path, last))
}
