//! Azure Container Registry: its own webhooks, and both schemas of Event Grid.
//!
//! Sources: `container-registry-webhook-reference.md` and `event-schema-container-registry.md` of
//! MicrosoftDocs/azure-docs. An event has the form of Distribution's, without envelope and actor. A
//! delete removes a digest or a repository. The removal of a tag alone sends no event; the
//! reconciler finds it.
//!
//! The fields that count, known from the page of Azure; no captured body:
//!
//! | field | meaning |
//! |---|---|
//! | `action`, `timestamp`, `id` | of the event, as in Distribution |
//! | `target.{repository,tag,digest,mediaType,size}` | of the manifest |
//! | `request.host` | the registry |
//! | `eventType` or `type`, `data` | of Event Grid: the sort of event, and the event itself. `eventTime` is not read: `data.timestamp` is the event's own |

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Context, DecodeError, Kind, Meaning, Parts, distribution};

pub(super) const ACR: Kind = Kind::new(
    "acr",
    decode,
    r#"A webhook of the registry:

az acr webhook create --registry REGISTRY --name tagtrail --actions push delete --uri {url} \
  --headers "Authorization=Bearer {secret}"

Or Event Grid, which tries again for a day:

az eventgrid event-subscription create --name tagtrail --source-resource-id REGISTRY_ID \
  --included-event-types Microsoft.ContainerRegistry.ImagePushed Microsoft.ContainerRegistry.ImageDeleted \
  --endpoint {url}/{secret}

The question with which Event Grid begins is answered."#,
);

/// An event of Event Grid: `eventType` in its own schema, `type` in the schema of CloudEvents.
#[derive(Deserialize)]
struct GridEvent<'a> {
    #[serde(rename = "eventType", alias = "type")]
    what: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    action: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    validation_code: String,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    let whole: &RawValue = serde_json::from_slice(body)?;
    let events = match whole.get().starts_with('[') {
        true => serde_json::from_str(whole.get())?,
        false => Parts(vec![whole]),
    };
    Ok(events.decode(body, |event, body_id| decode_event(event, ctx, body_id)))
}

fn decode_event(
    event: &RawValue,
    ctx: &Context<'_>,
    body_id: &dyn Fn() -> String,
) -> Result<Meaning, DecodeError> {
    let outer: GridEvent<'_> = serde_json::from_str(event.get())?;
    let Some(what) = outer.what else {
        if outer.action.is_none() {
            return Err(DecodeError::wrong_form(
                "the body has neither `action` nor `eventType`",
            ));
        }
        return distribution::decode_event(event, ctx, body_id);
    };
    let data = outer
        .data
        .ok_or_else(|| DecodeError::new("an event without data"));
    match what.as_str() {
        "Microsoft.EventGrid.SubscriptionValidationEvent" => {
            let question: Question = serde_json::from_str(data?.get())?;
            Ok(Meaning::Handshake(
                json!({ "validationResponse": question.validation_code }),
            ))
        }
        "Microsoft.ContainerRegistry.ImagePushed" | "Microsoft.ContainerRegistry.ImageDeleted" => {
            distribution::decode_event(data?, ctx, body_id)
        }
        _ => Ok(Meaning::Ignored),
    }
}
