//! `/v1/holds`: freezes, pins and faults in force.

use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tagtrail_config::{Role, TriggerGlob};

use crate::database::Database;
use crate::http::body::{JsonBody, OptionalBody};
use crate::http::error::Error;
use crate::http::guard::{ACTING, Actor};
use crate::http::operation::{Method, Operation, RequestBody, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, PathValues, optional, time};
use crate::operations::acts::{BECAUSE, Because, MAX_SIZE, changed, reason};
use crate::operations::orders::future;
use crate::store;
use crate::store::acts::NewAct;
use tagtrail_condition::{Hold, HoldKind};
use tagtrail_history::instant::Instant;

pub(crate) const ID: Parameter = Parameter {
    name: "id",
    required: true,
    description: "Id of the hold.",
    example: "17",
    schema: || json!({ "type": "integer", "minimum": 1 }),
};

pub(crate) const ENDED_SINCE: Parameter = optional(
    "ended_since",
    "Also holds that ended at this time or later (RFC 3339): the newest 1,000.",
    "2026-03-03T14:02:00Z",
    time,
);
const MOST_ENDED: i64 = 1000;

pub(crate) const LIST: Operation = Operation {
    id: "holds",
    method: Method::Get,
    path: "/v1/holds",
    summary: "The freezes, pins and faults in force, newest first; with `ended_since` followed by those that have ended.",
    role: Role::Read,
    in_path: &[],
    query: &[ENDED_SINCE],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Holds>),
    problems: &[(400, "time_invalid")],
    serve: |method| on(method, list),
};
pub(crate) const FREEZE: Operation = Operation {
    id: "freeze",
    method: Method::Post,
    query: &[],
    summary: "Freezes triggers: rollouts of new sets are recorded and held. Sets that have succeeded before pass, unless the freeze is `hard`.",
    role: Role::Operate,
    header: ACTING,
    body: Some(RequestBody {
        schema: schema::<Freeze>,
        max_size: MAX_SIZE,
        required: true,
    }),
    response: ResponseBody::Json(schema::<Hold>),
    problems: &[(400, "match_invalid"), (400, "time_invalid")],
    serve: |method| on(method, freeze),
    ..LIST
};
pub(crate) const THAW: Operation = Operation {
    id: "thaw",
    method: Method::Delete,
    path: "/v1/holds/{id}",
    summary: "Ends a freeze. Pins and faults end by `release` of their trigger.",
    in_path: &[ID],
    body: Some(BECAUSE),
    problems: &[(404, "hold_unknown"), (409, "hold_of_trigger")],
    serve: |method| on(method, thaw),
    ..FREEZE
};

/// The holds in force, and those that have ended if they were asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Holds {
    items: Vec<Listed>,
}

/// A hold in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ListedHold")]
struct Listed {
    #[serde(flatten)]
    hold: Hold,
    /// Time at which the hold ended; null while it is in force.
    ended_at: Option<Instant>,
    /// The token that ended the hold, or `local`; null while it is in force, and if its time was
    /// over.
    released_by: Option<String>,
}

/// The body of an order to freeze.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Freeze {
    /// Name of a trigger, or a pattern such as `shop-*`.
    triggers: String,
    reason: String,
    /// Time at which the freeze ends by itself (RFC 3339).
    until: Option<String>,
    /// Also hold sets that have succeeded before.
    #[serde(default)]
    hard: bool,
}

async fn list(State(database): State<Database>, uri: Uri) -> Result<Json<Holds>, Error> {
    let since = Parameters::read(&uri, LIST.query)?.time(ENDED_SINCE.name)?;
    let (in_force, ended) = database
        .ask_large(async |db| {
            let in_force = Hold::list(db, None).await?;
            let ended = match since {
                Some(since) => store::holds::released(db, since, MOST_ENDED).await?,
                None => Vec::new(),
            };
            Ok((in_force, ended))
        })
        .await?;
    let in_force = in_force.into_iter().map(|hold| Listed {
        hold,
        ended_at: None,
        released_by: None,
    });
    let ended = ended.into_iter().map(|one| Listed {
        hold: one.hold,
        ended_at: Some(Instant(one.ended_at)),
        released_by: one.released_by,
    });
    let items = in_force.chain(ended).collect();
    Ok(Json(Holds { items }))
}

async fn one(database: &Database, id: i64) -> Result<Hold, Error> {
    let found = database
        .ask(async |db| Hold::list(db, Some(id)).await)
        .await?;
    found.into_iter().next().ok_or(Error::HoldUnknown)
}

async fn freeze(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    uri: Uri,
    JsonBody(body): JsonBody<Freeze>,
) -> Result<Json<Hold>, Error> {
    Parameters::read(&uri, &[])?;
    let reason = reason(Some(&body.reason))?;
    let until = future(body.until.as_deref())?;
    let glob = TriggerGlob::try_from(body.triggers)
        .map_err(|error| Error::Match(tagtrail_proto::clean_text(&error, 200)))?;
    actor.may_hold(&glob).await?;
    let act = NewAct {
        actor: &actor,
        act: "freeze",
        trigger: Some(glob.as_ref()),
        rollout: None,
        hold: None,
        reason: reason.as_deref(),
        details: json!({ "until": body.until, "hard": body.hard }),
    };
    let id = database
        .ask(async |db| store::holds::freeze(db, &act, body.hard, until).await)
        .await?;
    let id = id.map_err(|_| Error::IdempotencyKeyReused)?;
    let reason = reason.as_deref();
    tracing::info!(%actor, triggers = %glob, hold = id, reason, "{actor} froze the triggers {glob}");
    one(&database, id).await.map(Json)
}

async fn thaw(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    OptionalBody(because): OptionalBody<Because>,
) -> Result<Json<Hold>, Error> {
    Parameters::read(&uri, &[])?;
    let reason = reason(because.reason.as_deref())?;
    let id: i64 = path.parse(&ID).map_err(|_| Error::HoldUnknown)?;
    let hold = one(&database, id).await?;
    let glob = TriggerGlob::try_from(hold.triggers.clone()).map_err(|_| Error::HoldUnknown)?;
    actor.may_hold(&glob).await?;
    if hold.kind != HoldKind::Freeze {
        return Err(Error::HoldOfTrigger(hold.triggers));
    }
    let act = NewAct {
        actor: &actor,
        act: "thaw",
        trigger: Some(glob.as_ref()),
        rollout: None,
        hold: Some(id),
        reason: reason.as_deref(),
        details: json!({}),
    };
    let effect = database
        .ask(async |db| store::holds::thaw(db, id, &act).await)
        .await?;
    if changed(effect)? {
        let reason = reason.as_deref();
        tracing::info!(%actor, triggers = %glob, hold = id, reason, "{actor} ended the freeze of {glob}");
    }
    Ok(Json(hold))
}
