//! `/v1/rollouts`: the rollouts, newest first.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use serde_json::json;
use tagtrail_config::{Names, Role};
use tagtrail_proto::{Name, RolloutState};
use uuid::Uuid;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{Parameter, Parameters, PathValues, optional, text, time};
use crate::shared::Shared;
use crate::store;
use crate::store::rollouts::{Filter, RolloutWithAttempt};

pub(crate) const TRIGGER: Parameter = Parameter {
    name: "trigger",
    required: false,
    description: "Only rollouts of this trigger, which may no longer be configured.",
    example: "shop",
    schema: text,
};
pub(crate) const STATE: Parameter = optional(
    "state",
    "Only rollouts in this state.",
    "failed",
    || json!({ "type": "string", "enum": RolloutState::ALL }),
);
pub(crate) const IMAGE: Parameter = optional(
    "image",
    "Only rollouts with this image; without a tag, with any tag of the repository.",
    "registry.example.com/shop/web",
    text,
);
pub(crate) const PART: Parameter = optional(
    "q",
    "Only rollouts with an image whose name contains this text, in any case.",
    "shop/web",
    text,
);
const SINCE: Parameter = optional(
    "since",
    "Only rollouts recorded at this time or later (RFC 3339).",
    "2026-03-03T14:02:00Z",
    time,
);
const UNTIL: Parameter = optional(
    "until",
    "Only rollouts recorded before this time (RFC 3339).",
    "2026-03-03T15:00:00Z",
    time,
);
pub(crate) const ID: Parameter = Parameter {
    name: "id",
    required: true,
    description: "Identifier of the rollout.",
    example: "0198c5b0-7a3e-7c51-9f6d-2f1f5d1c9a11",
    schema: || json!({ "type": "string", "format": "uuid" }),
};

pub(crate) const LIST: Operation = Operation {
    id: "rollouts",
    method: Method::Get,
    path: "/v1/rollouts",
    summary: "The rollouts of one trigger or of all, newest first.",
    role: Role::Read,
    in_path: &[],
    query: &[TRIGGER, STATE, IMAGE, PART, SINCE, UNTIL, LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<RolloutWithAttempt>>),
    problems: &[
        (400, "state_invalid"),
        (400, "image_invalid"),
        (400, "time_invalid"),
        (400, "parameter_conflict"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
        (404, "trigger_unknown"),
    ],
    serve: |method| on(method, list),
};
pub(crate) const ONE: Operation = Operation {
    id: "rollout",
    method: Method::Get,
    path: "/v1/rollouts/{id}",
    summary: "One rollout.",
    role: Role::Read,
    in_path: &[ID],
    query: &[],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<RolloutWithAttempt>),
    problems: &[(404, "rollout_unknown")],
    serve: |method| on(method, one),
};

pub(crate) const ALL: List<3> = List {
    name: "rollouts",
    time: Some(0),
};
pub(crate) const OF_TRIGGER: List<1> = List {
    name: "rollouts-of-trigger",
    time: None,
};

/// Returns the rollouts of a trigger, configured or not, or of all triggers.
async fn list(
    State(Shared {
        database, names, ..
    }): State<Shared>,
    uri: Uri,
) -> Result<Json<Items<RolloutWithAttempt>>, Error> {
    let parameters = Parameters::read(&uri, LIST.query)?;
    let filter = filter(&parameters, &names.get())?;
    let Some(name) = parameters.text("trigger") else {
        let page = Page::read(ALL, &parameters)?;
        let rollouts = database
            .ask_large(async |db| store::rollouts::all(db, &filter, page.after, page.fetch()).await)
            .await?;
        return Ok(Json(page.cut(rollouts)));
    };
    let page = Page::read(OF_TRIGGER, &parameters)?;
    let name: Name = name.parse().map_err(|_| Error::TriggerUnknown)?;
    let rollouts = database
        .ask_large(async |db| match store::triggers::id(db, &name).await? {
            Some(trigger) => store::rollouts::of(db, trigger, &filter, page.after, page.fetch())
                .await
                .map(Some),
            None => Ok(None),
        })
        .await?;
    Ok(Json(page.cut(rollouts.ok_or(Error::TriggerUnknown)?)))
}

pub(crate) fn filter(parameters: &Parameters, names: &Names) -> Result<Filter, Error> {
    let words = || {
        let all: Vec<&str> = RolloutState::ALL
            .iter()
            .map(|state| state.as_str())
            .collect();
        all.join(", ")
    };
    let state = parameters.text(STATE.name).map(str::parse).transpose();
    let image = parameters
        .text(IMAGE.name)
        .map(|text| -> Result<String, Error> {
            let image = names.image(text).map_err(Error::Image)?;
            // A colon before the last slash belongs to the port of the registry.
            let tagged = text
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains(':'));
            Ok(match tagged {
                true => image.to_string(),
                false => format!("{}/{}", image.registry, image.repository),
            })
        });
    let (since, until) = parameters.range()?;
    Ok(Filter {
        state: state.map_err(|_| Error::State(words()))?,
        image: image.transpose()?,
        part: parameters.written(PART.name).map(str::to_owned),
        since,
        until,
    })
}

async fn one(
    State(database): State<Database>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<RolloutWithAttempt>, Error> {
    Parameters::read(&uri, &[])?;
    let id: Uuid = path.parse(&ID).map_err(|_| Error::RolloutUnknown)?;
    let found = database
        .ask(async |db| store::rollouts::one(db, id).await)
        .await?;
    found.map(Json).ok_or(Error::RolloutUnknown)
}
