//! `/v1/triggers`: the images watched, the images deployed, and the orders of people.

use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tagtrail_config::{Role, TriggerGlob};
use tagtrail_proto::{Condition, Name};

use crate::database::Database;
use crate::http::body::OptionalBody;
use crate::http::error::Error;
use crate::http::guard::{ACTING, Actor};
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{PART, Parameter, Parameters, PathValues, optional, text};
use crate::operations::acts::{BECAUSE, Because, changed, reason};
use crate::store;
use crate::store::acts::NewAct;
use crate::store::triggers::{Trigger, TriggerState};

pub(crate) const NAME: Parameter = Parameter {
    name: "name",
    required: true,
    description: "Name of the trigger.",
    example: "shop",
    schema: text,
};

const MATCH: Parameter = optional(
    "match",
    "Only triggers whose name matches this pattern, in which `*` is any text.",
    "shop-*",
    text,
);
const CONDITION: Parameter = optional(
    "condition",
    "Only triggers in this condition.",
    "failing",
    text,
);
const LABEL: Parameter = optional(
    "label",
    "Only triggers with this label, as `name=value`, or as `name` for any value.",
    "team=shop",
    text,
);

const BEHIND: Parameter = optional(
    "behind",
    "`true`: only triggers that want images which do not run yet.",
    "true",
    || json!({ "type": "boolean", "default": false }),
);

pub(crate) const LIST: Operation = Operation {
    id: "triggers",
    method: Method::Get,
    path: "/v1/triggers",
    summary: "The configured triggers, each with its current and its last rollout; with `condition=removed` those that were removed.",
    role: Role::Read,
    in_path: &[],
    query: &[MATCH, PART, CONDITION, LABEL, BEHIND],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Triggers>),
    problems: &[
        (400, "match_invalid"),
        (400, "condition_invalid"),
        (400, "label_invalid"),
        (400, "flag_invalid"),
    ],
    serve: |method| on(method, list),
};
pub(crate) const ONE: Operation = Operation {
    id: "trigger",
    method: Method::Get,
    path: "/v1/triggers/{name}",
    summary: "One trigger: the images that it watches, and the pinned images that scaling up must use.",
    role: Role::Read,
    in_path: &[NAME],
    query: &[],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Trigger>),
    problems: &[(404, "trigger_unknown")],
    serve: |method| on(method, one),
};
pub(crate) const PAUSE: Operation = Operation {
    id: "pause",
    method: Method::Post,
    path: "/v1/triggers/{name}/pause",
    summary: "Pauses the trigger: no rollout starts. Pausing twice is harmless.",
    role: Role::Operate,
    in_path: &[NAME],
    query: &[],
    header: ACTING,
    body: Some(BECAUSE),
    response: ResponseBody::Json(schema::<Trigger>),
    problems: &[(404, "trigger_unknown")],
    serve: |method| on(method, pause),
};
pub(crate) const RESUME: Operation = Operation {
    id: "resume",
    path: "/v1/triggers/{name}/resume",
    summary: "Ends the pause: the present heads of the images are rolled out, once.",
    serve: |method| on(method, resume),
    ..PAUSE
};

pub(crate) const RETRY: Operation = Operation {
    id: "retry",
    path: "/v1/triggers/{name}/retry",
    summary: "Makes the next attempt of the last rollout due now, with short pauses between attempts again; also after it failed for good. Nothing happens if it has succeeded.",
    serve: |method| on(method, retry),
    ..PAUSE
};

/// The configured triggers by name. `tagtrail.toml` lists them all, so they are few: no pages.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Triggers {
    items: Vec<Trigger>,
}

async fn list(State(database): State<Database>, uri: Uri) -> Result<Json<Triggers>, Error> {
    let parameters = Parameters::read(&uri, LIST.query)?;
    let pattern = parameters.text("match").map(|text| {
        let pattern = TriggerGlob::try_from(text.to_owned());
        pattern.map_err(|_| Error::TriggerPattern)
    });
    let pattern = pattern.transpose()?;
    let condition = parameters.text("condition").map(|text| {
        let condition = text.parse::<Condition>();
        condition.map_err(|_| Error::Condition)
    });
    let condition = condition.transpose()?;
    let label = parameters
        .text("label")
        .map(|text| match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        });
    if label.is_some_and(|(name, _)| name.is_empty()) {
        return Err(Error::Label);
    }
    let part = parameters.written(PART.name);
    let behind = parameters.flag(BEHIND.name)?;
    let removed = condition == Some(Condition::Removed);
    let mut items = database
        .ask(async |db| match removed {
            true => store::triggers::removed(db).await,
            false => store::triggers::configured(db, None).await,
        })
        .await?;
    items.retain(|trigger| {
        let label = label.is_none_or(|(name, value)| {
            let found = trigger.labels.get(name);
            found.is_some_and(|found| value.is_none_or(|value| value == found))
        });
        label
            && part.is_none_or(|part| has_part(&trigger.name, part))
            && (!behind || trigger.is_behind())
            && pattern
                .as_ref()
                .is_none_or(|pattern| pattern.matches(&trigger.name))
            && condition.is_none_or(|condition| condition == trigger.condition)
    });
    Ok(Json(Triggers { items }))
}

/// Returns whether the name of a trigger, which has no capital letter, has this text in it.
pub(crate) fn has_part(name: &str, part: &str) -> bool {
    name.contains(&part.to_lowercase())
}

async fn one(
    State(database): State<Database>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<Trigger>, Error> {
    let name = named(&path, &uri)?;
    show(&database, &name).await
}

async fn pause(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    OptionalBody(because): OptionalBody<Because>,
) -> Result<Json<Trigger>, Error> {
    let name = named(&path, &uri)?;
    set(&database, &actor, &name, &because, TriggerState::Paused).await
}

async fn resume(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    OptionalBody(because): OptionalBody<Because>,
) -> Result<Json<Trigger>, Error> {
    let name = named(&path, &uri)?;
    set(&database, &actor, &name, &because, TriggerState::Active).await
}

async fn retry(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    OptionalBody(because): OptionalBody<Because>,
) -> Result<Json<Trigger>, Error> {
    let name = named(&path, &uri)?;
    let reason = reason(because.reason.as_deref())?;
    let act = on_trigger(&actor, "retry", &name, reason.as_deref());
    let effect = database
        .ask(async |db| store::triggers::retry(db, &name, &act).await)
        .await?;
    if changed(effect)? {
        let reason = reason.as_deref();
        tracing::info!(%actor, trigger = %name, reason, "{actor} ordered the next attempt of the trigger {name}");
    }
    show(&database, &name).await
}

/// Returns the act of an order without further settings.
pub(super) fn on_trigger<'a>(
    actor: &'a Actor,
    act: &'static str,
    name: &'a Name,
    reason: Option<&'a str>,
) -> NewAct<'a> {
    NewAct {
        actor,
        act,
        trigger: Some(name.as_ref()),
        rollout: None,
        hold: None,
        reason,
        details: json!({}),
    }
}

/// Parses the name, of an operation without parameters in the query. No trigger has an invalid
/// name, so the error is "unknown".
fn named(path: &PathValues, uri: &Uri) -> Result<Name, Error> {
    Parameters::read(uri, &[])?;
    path.parse(&NAME).map_err(|_| Error::TriggerUnknown)
}

/// Sets the state. A repeated request changes nothing.
async fn set(
    database: &Database,
    actor: &Actor,
    name: &Name,
    because: &Because,
    state: TriggerState,
) -> Result<Json<Trigger>, Error> {
    let reason = reason(because.reason.as_deref())?;
    let (order, change) = match state {
        TriggerState::Paused => ("pause", "paused"),
        TriggerState::Active => ("resume", "resumed"),
    };
    let act = on_trigger(actor, order, name, reason.as_deref());
    let paused = state == TriggerState::Paused;
    let effect = database
        .ask(async |db| store::triggers::set_paused(db, name, paused, &act).await)
        .await?;
    if changed(effect)? {
        let reason = reason.as_deref();
        tracing::info!(%actor, trigger = %name, change, reason, "{actor} switched the trigger {name}: {change}");
    }
    show(database, name).await
}

async fn show(database: &Database, name: &Name) -> Result<Json<Trigger>, Error> {
    let found = database
        .ask(async |db| store::triggers::configured(db, Some(name)).await)
        .await?;
    found
        .into_iter()
        .next()
        .map(Json)
        .ok_or(Error::TriggerUnknown)
}
