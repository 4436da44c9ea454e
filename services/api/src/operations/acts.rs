//! `/v1/acts`: who did what, when, from where and why; and the parts that all acts share.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Deserialize;
use tagtrail_config::Role;
use tagtrail_proto::clean_text;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, RequestBody, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{Parameter, Parameters, SINCE, optional, text};
use crate::store;
use crate::store::acts::{Act, Effect, Filter};

pub(crate) const LIST: Operation = Operation {
    id: "acts",
    method: Method::Get,
    path: "/v1/acts",
    summary: "The acts of people on triggers, rollouts and holds, newest first.",
    role: Role::Read,
    in_path: &[],
    query: &[
        optional(
            "trigger",
            "Only acts on this trigger, acts on patterns that match it included.",
            "shop",
            text,
        ),
        optional("actor", "Only acts of this token.", "deployer", text),
        Parameter {
            description: "Only acts at this time or later (RFC 3339).",
            ..SINCE
        },
        LIMIT,
        CURSOR,
    ],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<Act>>),
    problems: &[
        (400, "time_invalid"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
    ],
    serve: |method| on(method, list),
};

const ACTS: List<1> = List {
    name: "acts",
    time: None,
};

async fn list(State(database): State<Database>, uri: Uri) -> Result<Json<Items<Act>>, Error> {
    let parameters = Parameters::read(&uri, LIST.query)?;
    let page = Page::read(ACTS, &parameters)?;
    let text = |name: &str| parameters.text(name).map(ToOwned::to_owned);
    let filter = Filter {
        trigger: text("trigger"),
        actor: text("actor"),
        since: parameters.time("since")?,
    };
    let acts = database
        .ask_large(async |db| store::acts::list(db, &filter, page.after, page.fetch()).await)
        .await?;
    Ok(Json(page.cut(acts)))
}

/// Largest body of an order, in bytes.
pub(super) const MAX_SIZE: usize = 8192;
/// Longest reason, in bytes.
const LONGEST: usize = 500;

/// The body of an order that needs none.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Because {
    /// The reason, for the record of acts: 1 to 500 bytes.
    pub(super) reason: Option<String>,
}

pub(super) const BECAUSE: RequestBody = RequestBody {
    schema: schema::<Because>,
    max_size: MAX_SIZE,
    required: false,
};

/// Checks a reason. Control characters are replaced: terminals print the reason.
pub(super) fn reason(given: Option<&str>) -> Result<Option<String>, Error> {
    let Some(given) = given else { return Ok(None) };
    let given = given.trim();
    if given.is_empty() || given.len() > LONGEST {
        return Err(Error::Reason);
    }
    // The replacement character may be longer than the character that it replaces.
    Ok(Some(clean_text(given, LONGEST)))
}

/// Returns whether an order changed something, or the error of its idempotency key.
pub(super) fn changed(effect: Effect) -> Result<bool, Error> {
    match effect {
        Effect::Changed => Ok(true),
        Effect::Nothing | Effect::Repeated => Ok(false),
        Effect::KeyReused => Err(Error::IdempotencyKeyReused),
    }
}
