//! `/v1/quarantine`: bodies of authenticated senders that could not be interpreted: lost webhooks,
//! until the cause is mended and the body replayed. Reading needs the role `operate`: bodies may
//! hold secrets.

use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tagtrail_config::Role;
use tagtrail_history::instant::Instant;
use tagtrail_proto::{Quarantined, Replayed};

use crate::http::body::OptionalBody;
use crate::http::error::Error;
use crate::http::guard::Actor;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, List, Page};
use crate::http::parameters::{Parameter, Parameters, PathValues, optional};
use crate::operations::acts::{BECAUSE, Because, changed, reason};
use crate::quarantine::Quarantine;
use crate::shared::Shared;
use crate::store::acts::{self, NewAct};

/// Most entries of a page: each has its body in the stream.
pub(crate) const MOST: usize = 50;

const LIMIT: Parameter = optional(
    "limit",
    "Most items of a page.",
    "50",
    || json!({ "type": "integer", "minimum": 1, "maximum": MOST, "default": MOST }),
);
pub(crate) const NUMBER: Parameter = Parameter {
    name: "number",
    required: true,
    description: "Number of the entry.",
    example: "118",
    schema: || json!({ "type": "integer", "minimum": 1 }),
};

pub(crate) const LIST: Operation = Operation {
    id: "quarantine",
    method: Method::Get,
    path: "/v1/quarantine",
    summary: "The bodies of authenticated senders that could not be interpreted, the newest first, without the bodies themselves. They are kept for 30 days. A page may have fewer items than `limit` though it has a `next`.",
    role: Role::Operate,
    in_path: &[],
    query: &[LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<EntryItem>>),
    problems: &[
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
        (503, "quarantine_unavailable"),
    ],
    serve: |method| on(method, list),
};
pub(crate) const ONE: Operation = Operation {
    id: "quarantined",
    method: Method::Get,
    path: "/v1/quarantine/{number}",
    summary: "One body that could not be interpreted, with its headers and the reason.",
    role: Role::Operate,
    in_path: &[NUMBER],
    query: &[],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<WholeEntry>),
    problems: &[(404, "quarantine_unknown"), (503, "quarantine_unavailable")],
    serve: |method| on(method, one),
};
pub(crate) const REPLAY: Operation = Operation {
    id: "replay",
    method: Method::Post,
    path: "/v1/quarantine/{number}/replay",
    summary: "Interprets a body again, with the present settings of its source, and publishes its pushes. Safe to repeat: pushes that are stored already are dropped as duplicates. The act is recorded after the replay: repeat a request that was answered 503.",
    role: Role::Operate,
    in_path: &[NUMBER],
    query: &[],
    header: &[],
    body: Some(BECAUSE),
    response: ResponseBody::Json(schema::<Replayed>),
    problems: &[
        (404, "quarantine_unknown"),
        (409, "not_replayed"),
        (503, "quarantine_unavailable"),
    ],
    serve: |method| on(method, replay),
};

/// The list, for cursors.
pub(crate) const ALL: List<1> = List {
    name: "quarantine",
    time: None,
};

/// An entry of the quarantine, without its body.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QuarantineEntry")]
pub(crate) struct EntryItem {
    pub(crate) number: u64,
    /// Name of the source that sent the body.
    pub(crate) source: String,
    /// Kind of the source; `push` for a push of the bus that was refused.
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) received_at: Instant,
    /// Length of the whole body in bytes.
    pub(crate) length: u64,
}

/// An entry of the quarantine.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QuarantinedBody")]
pub(crate) struct WholeEntry {
    pub(crate) number: u64,
    #[serde(flatten)]
    pub(crate) entry: Quarantined,
}

async fn list(
    State(shared): State<Shared>,
    Extension(actor): Extension<Actor>,
    uri: Uri,
) -> Result<Json<Items<EntryItem>>, Error> {
    let parameters = Parameters::read(&uri, LIST.query)?;
    actor.may_see_quarantine().await?;
    let page = Page::read(ALL, &parameters)?;
    if page.limit() > MOST {
        return Err(Error::Limit { most: MOST });
    }
    Ok(Json(entries(&shared.quarantine, &page).await?))
}

/// Returns a page of entries.
pub(crate) async fn entries(
    quarantine: &Quarantine,
    page: &Page<1>,
) -> Result<Items<EntryItem>, Error> {
    let below = page.after.and_then(|[number]| u64::try_from(number).ok());
    let (found, next) = quarantine.list(below, page.limit()).await?;
    let items = found.into_iter().map(|(number, entry)| EntryItem {
        number,
        source: entry.source,
        kind: entry.kind,
        reason: entry.reason,
        received_at: Instant(entry.received_at),
        length: entry.length,
    });
    let next = next.and_then(|number| i64::try_from(number).ok());
    Ok(page.of(items.collect(), next.map(|number| [number])))
}

async fn one(
    State(shared): State<Shared>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<WholeEntry>, Error> {
    Parameters::read(&uri, &[])?;
    actor.may_see_quarantine().await?;
    let number = number(&path)?;
    Ok(Json(entry(&shared.quarantine, number).await?))
}

/// Parses the number. No entry has a number of another form, so the error is "unknown".
pub(crate) fn number(path: &PathValues) -> Result<u64, Error> {
    path.parse(&NUMBER).map_err(|_| Error::QuarantineUnknown(0))
}

/// Returns an entry.
pub(crate) async fn entry(quarantine: &Quarantine, number: u64) -> Result<WholeEntry, Error> {
    let entry = quarantine.one(number).await?;
    let entry = entry.ok_or(Error::QuarantineUnknown(number))?;
    Ok(WholeEntry { number, entry })
}

async fn replay(
    State(shared): State<Shared>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    OptionalBody(because): OptionalBody<Because>,
) -> Result<Json<Replayed>, Error> {
    Parameters::read(&uri, &[])?;
    actor.may_see_quarantine().await?;
    let number = number(&path)?;
    let reason = reason(because.reason.as_deref())?;
    let reason = reason.as_deref();
    let act = NewAct {
        actor: &actor,
        act: "replay",
        trigger: None,
        rollout: None,
        hold: None,
        reason,
        details: json!({ "quarantine": number }),
    };
    // Repeating is harmless, so a body is also replayed if the key was sent before.
    let seen = shared.database.ask(async |db| acts::seen(db, &act).await);
    if let Some(effect) = seen.await? {
        changed(effect)?;
    }
    let replayed = shared.quarantine.replay(number).await?;
    tracing::info!(%actor, number, reason, "{actor} replayed the quarantined body {number}");
    let effect = shared
        .database
        .ask(async |db| acts::once(db, &act).await)
        .await?;
    changed(effect)?;
    Ok(Json(replayed))
}
