//! `PUT` and `DELETE /v1/triggers/{name}`: triggers of the API.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::routing::on;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tagtrail_config::Role;
use tagtrail_proto::{Name, clean_text};
use tokio::time::Instant;

use crate::database::Database;
use crate::http::body::{JsonBody, OptionalBody};
use crate::http::error::Error;
use crate::http::guard::{Actor, IDEMPOTENCY_KEY, REQUEST};
use crate::http::operation::{Method, Operation, RequestBody, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, PathValues, optional, text};
use crate::operations::acts::{BECAUSE, Because, reason};
use crate::operations::triggers::{NAME, on_trigger};
use crate::shared::Shared;
use crate::store;
use crate::store::acts::NewAct;
use crate::store::api_triggers::{Applied, Change};

/// The time for which an answer waits for the planner, and the interval of its looks.
const WAIT: (Duration, Duration) = (Duration::from_secs(4), Duration::from_millis(100));
/// Largest settings, in bytes.
const LARGEST: usize = 64 << 10;

const IF_MATCH: Parameter = optional(
    "If-Match",
    "The generation that the change replaces: needed to change a trigger, so that no change of another person is lost.",
    "\"3\"",
    text,
);

pub(crate) const PUT: Operation = Operation {
    id: "apply",
    method: Method::Put,
    path: "/v1/triggers/{name}",
    summary: "Makes a trigger of the API, or changes its settings. The settings are those of a [[trigger]] in tagtrail.toml, with secrets by the names of [[secret]] entries, and without programs. The trigger service follows within about 2 s.",
    role: Role::Operate,
    in_path: &[NAME],
    query: &[],
    header: &[IF_MATCH, IDEMPOTENCY_KEY, REQUEST],
    body: Some(RequestBody {
        schema: schema::<Settings>,
        max_size: LARGEST,
        required: true,
    }),
    response: ResponseBody::Json(schema::<Written>),
    problems: &[
        (400, "trigger_invalid"),
        (400, "generation_invalid"),
        (403, "api_triggers_off"),
        (409, "trigger_of_file"),
        (409, "too_many_triggers"),
        (412, "generation_changed"),
        (428, "generation_required"),
    ],
    serve: |method| on(method, put),
};
pub(crate) const DELETE: Operation = Operation {
    id: "remove",
    method: Method::Delete,
    summary: "Removes a trigger of the API. Its history stays.",
    body: Some(BECAUSE),
    problems: &[
        (400, "generation_invalid"),
        (404, "trigger_unknown"),
        (409, "trigger_of_file"),
        (412, "generation_changed"),
    ],
    serve: |method| on(method, delete),
    ..PUT
};

/// The settings of a trigger, as in `tagtrail.toml`: `images`, `target`, and others.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Settings(Map<String, Value>);

/// A change of a trigger, and its effect as far as it is known.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Written {
    trigger: String,
    /// The generation after the change.
    generation: u64,
    /// False if the settings were these before.
    changed: bool,
    /// True once the planner has taken the change. Otherwise it does so as soon as it runs.
    done: bool,
    /// The mistake in the settings that the trigger service has found: the trigger is not rolled
    /// out.
    problem: Option<String>,
}

async fn put(
    State(shared): State<Shared>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(Settings(mut settings)): JsonBody<Settings>,
) -> Result<Json<Written>, Error> {
    let name = named(&path, &uri)?;
    let replaces = generation(&headers)?;
    let file = shared.file.get();
    let Some(most) = file.api_triggers.as_ref().map(|table| table.most) else {
        return Err(Error::ApiTriggersOff);
    };
    settings
        .entry("name")
        .or_insert_with(|| Value::from(name.to_string()));
    let spec = Value::Object(settings);
    file.read_api_trigger(name.as_ref(), &spec)
        .map_err(|error| Error::TriggerInvalid(clean_text(&error.to_string(), 500)))?;
    let act = on_trigger(&actor, "apply", &name, None);
    let change = Change {
        name: &name,
        spec: Some((&spec, tagtrail_config::hash(&spec))),
        replaces,
        most,
    };
    write(&shared.database, &change, &act).await
}

async fn delete(
    State(shared): State<Shared>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    headers: HeaderMap,
    OptionalBody(because): OptionalBody<Because>,
) -> Result<Json<Written>, Error> {
    let name = named(&path, &uri)?;
    let reason = reason(because.reason.as_deref())?;
    let act = on_trigger(&actor, "remove", &name, reason.as_deref());
    let change = Change {
        name: &name,
        spec: None,
        replaces: generation(&headers)?,
        most: u32::MAX,
    };
    write(&shared.database, &change, &act).await
}

fn named(path: &PathValues, uri: &Uri) -> Result<Name, Error> {
    Parameters::read(uri, &[])?;
    path.parse(&NAME)
        .map_err(|error: tagtrail_proto::NameError| Error::TriggerInvalid(error.to_string()))
}

/// Reads `If-Match`: a generation, in quotation marks or without.
fn generation(headers: &HeaderMap) -> Result<Option<i64>, Error> {
    let mut values = headers.get_all("if-match").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let number = text.and_then(|text| text.trim_matches('"').parse().ok());
    match number {
        Some(number @ 0..) => Ok(Some(number)),
        _ => Err(Error::Generation),
    }
}

/// Records a change, and waits a moment for its effect.
async fn write(
    database: &Database,
    change: &Change<'_>,
    act: &NewAct<'_>,
) -> Result<Json<Written>, Error> {
    let applied = database
        .ask(async |db| store::api_triggers::apply(db, change, act).await)
        .await?;
    let (generation, changed) = match applied {
        Applied::Generation {
            generation,
            changed,
        } => (generation, changed),
        Applied::Other {
            generation,
            known: true,
        } => {
            return Err(Error::GenerationChanged(generation));
        }
        Applied::Other {
            generation,
            known: false,
        } => {
            return Err(Error::GenerationRequired(generation));
        }
        Applied::Full => return Err(Error::TooManyTriggers(change.most)),
        Applied::OfFile => return Err(Error::TriggerOfFile),
        Applied::Unknown => return Err(Error::TriggerUnknown),
        Applied::KeyReused => return Err(Error::IdempotencyKeyReused),
    };
    let (actor, word) = (act.actor, act.act);
    let trigger = act.trigger.unwrap_or_default();
    if changed {
        tracing::info!(%actor, trigger, act = word, generation, "{actor} changed the settings of the trigger {trigger}: {word}");
    }
    let deadline = Instant::now() + WAIT.0;
    loop {
        let state = database
            .ask(async |db| store::api_triggers::state(db, change.name, generation).await)
            .await?;
        if state.done || Instant::now() >= deadline {
            return Ok(Json(Written {
                trigger: trigger.to_owned(),
                generation: u64::try_from(generation).unwrap_or_default(),
                changed,
                done: state.done,
                problem: state.problem,
            }));
        }
        tokio::time::sleep(WAIT.1).await;
    }
}
