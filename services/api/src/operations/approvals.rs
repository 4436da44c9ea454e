//! `/v1/approvals`, and the verdicts of people about rollouts.

use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tagtrail_config::Role;
use tagtrail_proto::{Gate, RolloutState};
use tokio::time::Instant;
use uuid::Uuid;

use crate::database::Database;
use crate::http::body::{JsonBody, OptionalBody};
use crate::http::error::Error;
use crate::http::guard::{ACTING, Actor};
use crate::http::operation::{Method, Operation, RequestBody, ResponseBody, schema};
use crate::http::parameters::{Parameters, PathValues, optional, text};
use crate::operations::acts::{BECAUSE, Because, MAX_SIZE, changed, reason};
use crate::operations::orders::Ordered;
use crate::operations::rollouts::ID;
use crate::store;
use crate::store::acts::NewAct;
use crate::store::approvals::{After, Refusal, Waiting};

/// The time for which an answer waits for the planner, and the interval of its looks.
const WAIT: (Duration, Duration) = (Duration::from_millis(2500), Duration::from_millis(100));

pub(crate) const LIST: Operation = Operation {
    id: "approvals",
    method: Method::Get,
    path: "/v1/approvals",
    summary: "The rollouts that wait for approvals, oldest first, each with the approvals of its images so far.",
    role: Role::Read,
    in_path: &[],
    query: &[optional(
        "trigger",
        "Only rollouts of this trigger.",
        "shop",
        text,
    )],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Approvals>),
    problems: &[],
    serve: |method| on(method, list),
};
pub(crate) const APPROVE: Operation = Operation {
    id: "approve",
    method: Method::Post,
    path: "/v1/rollouts/{id}/approve",
    summary: "Approves the images of a rollout. The approval counts for these images, also if a later rollout has them.",
    role: Role::Approve,
    in_path: &[ID],
    query: &[],
    header: ACTING,
    body: Some(BECAUSE),
    response: ResponseBody::Json(schema::<Ordered>),
    problems: &[
        (403, "not_an_approver"),
        (404, "rollout_unknown"),
        (409, "not_approvable"),
    ],
    serve: |method| on(method, approve),
};
pub(crate) const REJECT: Operation = Operation {
    id: "reject",
    path: "/v1/rollouts/{id}/reject",
    summary: "Rejects the images of a rollout that has not begun, and ends it. They are not offered again until the wanted images differ or an order asks for them.",
    body: Some(RequestBody {
        schema: schema::<Reject>,
        max_size: MAX_SIZE,
        required: true,
    }),
    serve: |method| on(method, reject),
    ..APPROVE
};

/// The rollouts that wait for approvals. They are few: no pages.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Approvals {
    items: Vec<Waiting>,
}

/// The body of a rejection.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reject {
    reason: String,
}

async fn list(State(database): State<Database>, uri: Uri) -> Result<Json<Approvals>, Error> {
    let parameters = Parameters::read(&uri, LIST.query)?;
    let trigger = parameters.text("trigger").map(ToOwned::to_owned);
    let items = database
        .ask_large(async |db| store::approvals::waiting(db, trigger.as_deref()).await)
        .await?;
    Ok(Json(Approvals { items }))
}

async fn approve(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    OptionalBody(body): OptionalBody<Because>,
) -> Result<Json<Ordered>, Error> {
    Parameters::read(&uri, &[])?;
    let reason = reason(body.reason.as_deref())?;
    give(&database, &actor, &path, Verdict::Approved, reason).await
}

async fn reject(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    JsonBody(body): JsonBody<Reject>,
) -> Result<Json<Ordered>, Error> {
    Parameters::read(&uri, &[])?;
    let reason = reason(Some(&body.reason))?;
    give(&database, &actor, &path, Verdict::Rejected, reason).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Approved,
    Rejected,
}

/// Records a verdict, and waits a moment for its effect.
async fn give(
    database: &Database,
    actor: &Actor,
    path: &PathValues,
    verdict: Verdict,
    reason: Option<String>,
) -> Result<Json<Ordered>, Error> {
    let id: Uuid = path.parse(&ID).map_err(|_| Error::RolloutUnknown)?;
    let found = database
        .ask(async |db| store::orders::trigger_of(db, id).await)
        .await?;
    let (_, name) = found.ok_or(Error::RolloutUnknown)?;
    actor.may_act_on(&name).await?;
    let (act, word) = match verdict {
        Verdict::Approved => ("approve", "approved"),
        Verdict::Rejected => ("reject", "rejected"),
    };
    let new = NewAct {
        actor,
        act,
        trigger: Some(&name),
        rollout: Some(id),
        hold: None,
        reason: reason.as_deref(),
        details: json!({}),
    };
    let given = database
        .ask(async |db| store::approvals::give(db, id, word, &new).await)
        .await?;
    if changed(given.map_err(refused)?)? {
        let reason = reason.as_deref();
        tracing::info!(%actor, trigger = name, rollout.id = %id, reason, "{actor} {word} the rollout {id} of {name}");
    }
    let deadline = Instant::now() + WAIT.0;
    loop {
        let after = database
            .ask(async |db| store::approvals::after(db, id).await)
            .await?;
        let after = after.ok_or(Error::RolloutUnknown)?;
        let late = Instant::now() >= deadline;
        if after.evaluated || after.paused || late {
            let (done, answer) = effect(&after, verdict);
            return Ok(Json(Ordered {
                trigger: name,
                act,
                done,
                answer,
                rollout: Some(after.rollout),
            }));
        }
        tokio::time::sleep(WAIT.1).await;
    }
}

/// Returns whether the verdict has had its effect, and a text about it.
fn effect(after: &After, verdict: Verdict) -> (bool, String) {
    let word = match verdict {
        Verdict::Approved => "approved",
        Verdict::Rejected => "rejected",
    };
    let gates = &after.rollout.gates;
    let few = gates.iter().find(|closed| closed.gate == Gate::Approval);
    match few {
        _ if after.paused => (
            false,
            format!("{word}; the gates are evaluated once the trigger is resumed"),
        ),
        _ if !after.evaluated => (
            false,
            format!("{word}; the gates are evaluated as soon as the trigger service runs"),
        ),
        _ if after.rollout.state == RolloutState::Rejected => {
            (true, "rejected; the rollout has ended".to_owned())
        }
        Some(closed) => (true, format!("{word}: {}", closed.why)),
        None if !gates.is_empty() => (
            true,
            format!("{word}; the rollout waits at other closed gates"),
        ),
        None => (true, format!("{word}; the rollout begins")),
    }
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::RolloutUnknown => Error::RolloutUnknown,
        Refusal::TooLate => Error::NotApprovable(
            "the rollout has begun or ended; GET /v1/approvals lists those that wait".to_owned(),
        ),
        Refusal::NotNeeded => Error::NotApprovable(
            "the trigger needs no approvals; POST /v1/rollouts/{id}/cancel ends a rollout"
                .to_owned(),
        ),
        Refusal::NotAnApprover(by) => Error::NotAnApprover(by.join(", ")),
    }
}
