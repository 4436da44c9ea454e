//! `/v1/rollouts/{id}/outcome`: the result of a rollout, as its receiver reports it.

use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tagtrail_config::Role;
use tagtrail_proto::clean_text;
use uuid::Uuid;

use crate::database::Database;
use crate::http::body::JsonBody;
use crate::http::error::Error;
use crate::http::guard::{ACTING, Actor};
use crate::http::operation::{Method, Operation, RequestBody, ResponseBody, schema};
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::acts::MAX_SIZE;
use crate::operations::rollouts::ID;
use crate::store;
use crate::store::acts::NewAct;
use crate::store::outcome::{NewReport, Reported, ReportedState};

/// Longest text of a report, in bytes.
const LONGEST: usize = 2000;

pub(crate) const REPORT: Operation = Operation {
    id: "report_outcome",
    method: Method::Post,
    path: "/v1/rollouts/{id}/outcome",
    summary: "Reports the result of a rollout whose target has done = \"reported\". A report of progress gives the receiver its whole time again. The same report twice is harmless.",
    role: Role::Report,
    in_path: &[ID],
    query: &[],
    header: ACTING,
    body: Some(RequestBody {
        schema: schema::<Report>,
        max_size: MAX_SIZE,
        required: true,
    }),
    response: ResponseBody::Json(schema::<Accepted>),
    problems: &[(404, "rollout_unknown"), (409, "outcome_unexpected")],
    serve: |method| on(method, report),
};

/// The body of a report.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Report {
    state: ReportedState,
    /// The result in words, for people: 1 to 2000 bytes.
    text: Option<String>,
}

/// The answer to a report.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Accepted {
    /// Id of the rollout.
    rollout: String,
    trigger: String,
    state: ReportedState,
    /// True if the report counts. False: the rollout has ended, or the same result was reported
    /// before.
    counts: bool,
    /// The effect, for people.
    answer: &'static str,
}

async fn report(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    JsonBody(Report { state, text }): JsonBody<Report>,
) -> Result<Json<Accepted>, Error> {
    Parameters::read(&uri, &[])?;
    let id: Uuid = path.parse(&ID).map_err(|_| Error::RolloutUnknown)?;
    let text = match text.as_deref().map(str::trim) {
        None => None,
        Some(text) if text.is_empty() || text.len() > LONGEST => {
            return Err(Error::Body(format!("text has 1 to {LONGEST} bytes")));
        }
        // Terminals print the text.
        Some(text) => Some(clean_text(text, LONGEST)),
    };
    let found = database
        .ask(async |db| store::orders::trigger_of(db, id).await)
        .await?;
    let (trigger, name) = found.ok_or(Error::RolloutUnknown)?;
    actor.may_act_on(&name).await?;
    let act = NewAct {
        actor: &actor,
        act: "outcome",
        trigger: Some(&name),
        rollout: Some(id),
        hold: None,
        reason: None,
        details: json!({ "state": state, "text": text }),
    };
    let report = NewReport {
        trigger,
        rollout: id,
        state,
        text: text.as_deref(),
    };
    let reported = database
        .ask(async |db| store::outcome::report(db, &report, &act).await)
        .await?;
    let (counts, answer) = match reported {
        Reported::Counts => (true, "the report counts"),
        Reported::Known => (
            false,
            "nothing to do: a report since the last attempt has this result",
        ),
        Reported::Ended => (false, "nothing to do: the rollout has ended"),
        Reported::NotAsked => return Err(Error::OutcomeUnexpected(name)),
        Reported::KeyReused => return Err(Error::IdempotencyKeyReused),
    };
    if counts {
        let state = state.as_str();
        tracing::info!(%actor, trigger = name, rollout.id = %id, state, "{actor} reported of rollout {id} of {name}: {state}");
    }
    Ok(Json(Accepted {
        rollout: id.to_string(),
        trigger: name,
        state,
        counts,
        answer,
    }))
}
