//! Amazon ECR, through `EventBridge`: directly (API destination), by SNS, by SQS, or rewritten as a
//! `CloudEvent`.
//!
//! Sources: `doc_source/ecr-eventbridge.md` of awsdocs/amazon-ecr-user-guide and its present page.
//! The registry's name is made of account and region. The page promises events on a best-effort
//! basis only; the reconciler finds the rest.
//!
//! The fields that count, known from Amazon's pages; no captured body:
//!
//! | field | meaning |
//! |---|---|
//! | `id`, `time` | of the event; `time` is the event's own |
//! | `account`, `region`, `source` | make the host of the registry |
//! | `detail-type`, `detail.{action-type,result,sync-status}` | the sort of event |
//! | `detail.{repository-name,image-tag,image-digest,manifest-media-type}` | of the manifest |
//! | `specversion`, `type`, `data` | of a `CloudEvent`: the same |
//! | `Type`, `Message`, `SubscribeURL`, `Records`, `body` | of the envelopes of SNS and SQS |

use std::time::Duration;

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use tagtrail_proto::Action;

use super::{Context, DecodeError, Kind, Meaning, Parts, Report, Stamp, body_id, lenient};

pub(super) const ECR: Kind = Kind {
    // The limit of an API destination of EventBridge.
    patience: Duration::from_secs(5),
    ..Kind::new(
        "ecr",
        decode,
        r#"An EventBridge rule with an API destination, for each region:

aws events create-connection --name tagtrail --authorization-type API_KEY \
  --auth-parameters "ApiKeyAuthParameters={ApiKeyName=Authorization,ApiKeyValue=Bearer {secret}}"
aws events create-api-destination --name tagtrail --connection-arn CONNECTION --http-method POST \
  --invocation-endpoint {url}
aws events put-rule --name tagtrail --event-pattern '{"source":["aws.ecr"],"detail-type":
  ["ECR Image Action","ECR Replication Action","ECR Pull Through Cache Action"]}'
aws events put-targets --rule tagtrail --targets 'Id=tagtrail,Arn=DESTINATION,RoleArn=ROLE'

By SNS instead: subscribe {url}/{secret} to the topic; the address that confirms the subscription is then in
`tagtrail quarantine list`. What Lambda makes of an SQS queue ({"Records":[…]}) is taken as well."#,
    )
};

/// Deepest nesting of envelopes: a queue that is subscribed to a topic has two.
const DEEPEST: usize = 4;

/// The fields of all envelopes and events; the fields that are present identify the form.
#[derive(Deserialize)]
struct Envelope<'a> {
    // SNS.
    #[serde(rename = "Type")]
    sns: Option<String>,
    #[serde(rename = "Message")]
    message: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    // SQS.
    #[serde(borrow, rename = "Records")]
    records: Option<Parts<'a>>,
    #[serde(alias = "Body")]
    body: Option<String>,
    // EventBridge.
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    account: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    region: Option<String>,
    detail: Option<Detail>,
    // CloudEvents, too.
    specversion: Option<String>,
    #[serde(rename = "type")]
    what: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    source: Option<String>,
    data: Option<Data>,
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default)]
    time: Stamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Detail {
    action_type: Option<String>,
    result: Option<String>,
    sync_status: Option<String>,
    repository_name: Option<String>,
    image_digest: Option<String>,
    image_tag: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    manifest_media_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    repository_name: Option<String>,
    image_digest: Option<String>,
    image_tag: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    registry_id: Option<String>,
}

fn decode(_: &HeaderMap, body: &[u8], ctx: &Context<'_>) -> Result<Vec<Meaning>, DecodeError> {
    unwrap(body, ctx, DEEPEST, &|| body_id(body))
}

fn unwrap(
    text: &[u8],
    ctx: &Context<'_>,
    deeper: usize,
    body_id: &dyn Fn() -> String,
) -> Result<Vec<Meaning>, DecodeError> {
    let deeper = deeper
        .checked_sub(1)
        .ok_or_else(|| DecodeError::new("too many envelopes in one another"))?;
    let whole: &RawValue = serde_json::from_slice(text)?;
    let each = |parts: &Parts<'_>| {
        let mut decoded = Vec::with_capacity(parts.0.len());
        for (number, part) in parts.0.iter().enumerate() {
            let body_id = || format!("{}#{number}", body_id());
            decoded.extend(
                unwrap(part.get().as_bytes(), ctx, deeper, &body_id)
                    .unwrap_or_else(|malformed| vec![Meaning::Malformed(malformed)]),
            );
        }
        decoded
    };
    if whole.get().starts_with('[') {
        return Ok(each(&serde_json::from_str(whole.get())?));
    }
    let envelope: Envelope<'_> = serde_json::from_str(whole.get())?;
    match envelope.sns.as_deref() {
        Some("Notification") => {
            let message = envelope.message.unwrap_or_default();
            return unwrap(message.as_bytes(), ctx, deeper, body_id);
        }
        // The gateway never opens an address from a request.
        Some("SubscriptionConfirmation") => {
            return Err(DecodeError::new(format_args!(
                "SNS asks for permission to send here; to grant it, open {}",
                envelope.subscribe_url.unwrap_or_default()
            )));
        }
        Some(_) => return Ok(vec![Meaning::Ignored]),
        None => {}
    }
    if let Some(records) = &envelope.records {
        return Ok(each(records));
    }
    if let Some(body) = &envelope.body {
        return unwrap(body.as_bytes(), ctx, deeper, body_id);
    }
    Ok(vec![event(envelope, ctx, body_id)?])
}

fn event(
    envelope: Envelope<'_>,
    ctx: &Context<'_>,
    body_id: &dyn Fn() -> String,
) -> Result<Meaning, DecodeError> {
    let time = envelope.time.read("time");
    if let (Some(_), Some(what), Some(data)) =
        (&envelope.specversion, &envelope.what, envelope.data)
    {
        let action = match what.rsplit('.').next() {
            Some("push") => Action::Push,
            Some("delete") => Action::Delete,
            _ => return Ok(Meaning::Ignored),
        };
        // urn:aws:ecr:REGION:ACCOUNT:repository/NAME
        let source = envelope.source.unwrap_or_default();
        let mut urn = source.split(':').skip(3);
        let region = urn.next().unwrap_or_default();
        let account = data.registry_id.as_deref().or(urn.next());
        let report = Report {
            action,
            registry: ctx.registry(&host(account.unwrap_or_default(), region))?,
            repository: data.repository_name,
            tag: data.image_tag,
            digest: data.image_digest,
            media_type: None,
            size: None,
            actor: None,
            time,
            id: envelope.id,
        };
        return report.decode(ctx, body_id);
    }
    let (Some(what), Some(detail)) = (envelope.detail_type, envelope.detail) else {
        return Err(DecodeError::wrong_form(
            "neither an event of EventBridge nor an envelope of SNS or SQS",
        ));
    };
    let succeeded = |result: &Option<String>| result.as_deref() == Some("SUCCESS");
    let action = match (what.as_str(), detail.action_type.as_deref()) {
        ("ECR Image Action", Some("PUSH")) if succeeded(&detail.result) => Action::Push,
        ("ECR Image Action", Some("DELETE")) if succeeded(&detail.result) => Action::Delete,
        // Of a replication, the destination sends the event.
        ("ECR Replication Action", _) if succeeded(&detail.result) => Action::Push,
        ("ECR Pull Through Cache Action", _) if succeeded(&detail.sync_status) => Action::Push,
        _ => return Ok(Meaning::Ignored),
    };
    let (account, region) = (envelope.account, envelope.region);
    let report = Report {
        action,
        registry: ctx.registry(&host(
            &account.unwrap_or_default(),
            &region.unwrap_or_default(),
        ))?,
        repository: detail.repository_name,
        tag: detail.image_tag,
        digest: detail.image_digest,
        media_type: detail.manifest_media_type,
        size: None,
        actor: None,
        time,
        id: envelope.id,
    };
    report.decode(ctx, body_id)
}

fn host(account: &str, region: &str) -> String {
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("{account}.dkr.ecr.{region}.amazonaws.com{china}")
}
