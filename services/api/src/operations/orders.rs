//! Orders of people on triggers and rollouts, which the planner carries out.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tagtrail_config::Role;
use tagtrail_proto::{Digest, Name, Rollout, instant};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use crate::database::Database;
use crate::http::body::{JsonBody, OptionalBody};
use crate::http::error::Error;
use crate::http::guard::{ACTING, Actor};
use crate::http::operation::{Method, Operation, RequestBody, ResponseBody, schema};
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::acts::{BECAUSE, Because, MAX_SIZE, reason};
use crate::operations::rollouts::ID;
use crate::operations::triggers::NAME;
use crate::store;
use crate::store::acts::{Effect, NewAct};
use crate::store::orders::{Choice, Placed, Refusal, Wish};

/// The time for which an answer waits for the planner, and the interval of its looks.
const WAIT: (Duration, Duration) = (Duration::from_millis(2500), Duration::from_millis(100));
/// The gates that an order may skip.
const SKIPPABLE: [&str; 4] = ["recheck", "manifest", "upstream", "window"];
/// The highest number above which rollouts may go on: far below those that programs read exactly.
const HIGHEST: u64 = 1_000_000_000_000;
/// Most images of a pin.
const IMAGES: usize = 100;

pub(crate) const ROLLOUT: Operation = Operation {
    id: "roll_out",
    method: Method::Post,
    path: "/v1/triggers/{name}/rollout",
    summary: "Rolls out the wanted set again, also if it is current: the pinned set, or the present heads. `to`: the set of that rollout, and a pin.",
    role: Role::Operate,
    in_path: &[NAME],
    query: &[],
    header: ACTING,
    body: Some(RequestBody {
        schema: schema::<RollOut>,
        max_size: MAX_SIZE,
        required: false,
    }),
    response: ResponseBody::Json(schema::<Ordered>),
    problems: &[
        (400, "gate_invalid"),
        (400, "time_invalid"),
        (404, "trigger_unknown"),
        (404, "rollout_unknown"),
        (409, "trigger_paused"),
        (409, "set_impossible"),
    ],
    serve: |method| on(method, roll_out),
};
pub(crate) const ROLLBACK: Operation = Operation {
    id: "roll_back",
    path: "/v1/triggers/{name}/rollback",
    summary: "Rolls out an earlier set and pins it: of the rollout `to`, or the newest set before the current one that succeeded. Pushes roll nothing out until `release`.",
    body: Some(RequestBody {
        schema: schema::<RollBack>,
        max_size: MAX_SIZE,
        required: true,
    }),
    serve: |method| on(method, roll_back),
    ..ROLLOUT
};
pub(crate) const PIN: Operation = Operation {
    id: "pin",
    path: "/v1/triggers/{name}/pin",
    summary: "Rolls out and pins chosen digests; images that are not named stay as in the current rollout.",
    body: Some(RequestBody {
        schema: schema::<Pin>,
        max_size: MAX_SIZE,
        required: true,
    }),
    problems: &[
        (400, "digest_invalid"),
        (400, "revision_invalid"),
        (400, "time_invalid"),
        (404, "trigger_unknown"),
        (404, "revision_unknown"),
        (409, "trigger_paused"),
        (409, "set_impossible"),
    ],
    serve: |method| on(method, pin),
    ..ROLLOUT
};
pub(crate) const RELEASE: Operation = Operation {
    id: "release",
    path: "/v1/triggers/{name}/release",
    summary: "Ends the pin and the faults of the trigger: the present heads are rolled out, once.",
    body: Some(BECAUSE),
    problems: &[(404, "trigger_unknown")],
    serve: |method| on(method, release),
    ..ROLLOUT
};
pub(crate) const CANCEL: Operation = Operation {
    id: "cancel",
    path: "/v1/rollouts/{id}/cancel",
    summary: "Ends a rollout that has not ended. Its set is not offered again until the wanted set differs or an order asks for it.",
    in_path: &[ID],
    body: Some(RequestBody {
        schema: schema::<Cancel>,
        max_size: MAX_SIZE,
        required: true,
    }),
    problems: &[(404, "rollout_unknown")],
    serve: |method| on(method, cancel),
    ..ROLLOUT
};

pub(crate) const RENUMBER: Operation = Operation {
    id: "renumber",
    path: "/v1/triggers/{name}/renumber",
    summary: "Lets the numbers of the next rollouts go on above a number that a receiver has seen, after a loss of all data. Never lowers them.",
    body: Some(RequestBody {
        schema: schema::<Renumber>,
        max_size: MAX_SIZE,
        required: true,
    }),
    problems: &[(404, "trigger_unknown")],
    serve: |method| on(method, renumber),
    ..ROLLOUT
};

/// The body of an order to go on with higher numbers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Renumber {
    /// The number above which the next rollouts are, at most 1,000,000,000,000.
    above: u64,
    reason: Option<String>,
}

/// The body of an order to roll out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RollOut {
    /// The number of a rollout: its set, and a pin.
    to: Option<u64>,
    /// Gates to pass though they are closed: recheck, manifest, upstream, window.
    /// Needs a reason.
    #[serde(default)]
    skip: Vec<String>,
    reason: Option<String>,
}

/// The body of an order to roll back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RollBack {
    /// The number of a rollout.
    to: Option<u64>,
    reason: String,
    /// Time at which the pin ends by itself (RFC 3339).
    until: Option<String>,
}

/// The body of an order to pin.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pin {
    /// The chosen revision or digest, by the name of the image in the trigger.
    images: BTreeMap<String, Chosen>,
    reason: String,
    /// Time at which the pin ends by itself (RFC 3339).
    until: Option<String>,
}

/// A revision of the image's tag, or a digest that the tag had.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Chosen {
    Revision(u64),
    Digest(String),
}

/// The body of an order to cancel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cancel {
    reason: String,
}

/// An order, and its effect as far as it is known.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ordered {
    pub(super) trigger: String,
    /// `rollout`, `rollback`, `pin`, `release`, `renumber`, `cancel`, `approve` or `reject`.
    pub(super) act: &'static str,
    /// True once the order is carried out. Otherwise the planner has it, and carries it out as soon
    /// as it runs and the trigger is not paused.
    pub(super) done: bool,
    /// The effect, for people.
    pub(super) answer: String,
    /// The rollout that was recorded or ended.
    pub(super) rollout: Option<Rollout>,
}

async fn roll_out(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    OptionalBody(body): OptionalBody<RollOut>,
) -> Result<Json<Ordered>, Error> {
    if let Some(wrong) = body
        .skip
        .iter()
        .find(|gate| !SKIPPABLE.contains(&gate.as_str()))
    {
        return Err(Error::GateNotSkippable(tagtrail_proto::clean_text(
            wrong, 40,
        )));
    }
    let reason = reason(body.reason.as_deref())?;
    if reason.is_none() && !body.skip.is_empty() {
        return Err(Error::Reason);
    }
    let details = json!({ "to": body.to, "skip": body.skip });
    let (wish, act) = match body.to {
        Some(to) => (
            Wish::RollBack {
                to: Some(to),
                until: None,
            },
            "rollout",
        ),
        None => (Wish::RollOut { skip: body.skip }, "rollout"),
    };
    let name = named(&path, &uri)?;
    on_trigger(&database, &actor, &name, (act, reason, details), &wish).await
}

async fn roll_back(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    JsonBody(body): JsonBody<RollBack>,
) -> Result<Json<Ordered>, Error> {
    let name = named(&path, &uri)?;
    let details = json!({ "to": body.to, "until": body.until });
    let wish = Wish::RollBack {
        to: body.to,
        until: future(body.until.as_deref())?,
    };
    let act = ("rollback", reason(Some(&body.reason))?, details);
    on_trigger(&database, &actor, &name, act, &wish).await
}

async fn pin(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    JsonBody(body): JsonBody<Pin>,
) -> Result<Json<Ordered>, Error> {
    let name = named(&path, &uri)?;
    if body.images.is_empty() || body.images.len() > IMAGES {
        let text = format!("images names 1 to {IMAGES} images");
        return Err(Error::Body(text));
    }
    let (mut images, mut shown) = (BTreeMap::new(), json!({}));
    for (image, chosen) in body.images {
        shown[&image] = match &chosen {
            Chosen::Revision(number) => json!(number),
            Chosen::Digest(digest) => json!(digest),
        };
        let choice = match chosen {
            Chosen::Revision(number @ 1..) if i64::try_from(number).is_ok() => {
                Choice::Revision(number)
            }
            Chosen::Revision(_) => return Err(Error::Revision),
            Chosen::Digest(text) => {
                let digest: Result<Digest, _> = text.parse();
                Choice::Digest(digest.map_err(|_| Error::DigestWhole)?)
            }
        };
        images.insert(image, choice);
    }
    let details = json!({ "images": shown, "until": body.until });
    let until = future(body.until.as_deref())?;
    let act = ("pin", reason(Some(&body.reason))?, details);
    let wish = Wish::Pin { images, until };
    on_trigger(&database, &actor, &name, act, &wish).await
}

async fn release(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    OptionalBody(body): OptionalBody<Because>,
) -> Result<Json<Ordered>, Error> {
    let name = named(&path, &uri)?;
    let act = ("release", reason(body.reason.as_deref())?, json!({}));
    on_trigger(&database, &actor, &name, act, &Wish::Release).await
}

async fn cancel(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    JsonBody(body): JsonBody<Cancel>,
) -> Result<Json<Ordered>, Error> {
    Parameters::read(&uri, &[])?;
    let id: Uuid = path.parse(&ID).map_err(|_| Error::RolloutUnknown)?;
    let reason = reason(Some(&body.reason))?;
    let found = database
        .ask(async |db| store::orders::trigger_of(db, id).await)
        .await?;
    let (trigger, name) = found.ok_or(Error::RolloutUnknown)?;
    actor.may_act_on(&name).await?;
    let act = NewAct {
        actor: &actor,
        act: "cancel",
        trigger: Some(&name),
        rollout: Some(id),
        hold: None,
        reason: reason.as_deref(),
        details: json!({}),
    };
    let placed = database
        .ask(async |db| store::orders::cancel(db, trigger, &act).await)
        .await?;
    follow(&database, &act, placed).await
}

async fn renumber(
    State(database): State<Database>,
    Extension(actor): Extension<Actor>,
    path: PathValues,
    uri: Uri,
    JsonBody(body): JsonBody<Renumber>,
) -> Result<Json<Ordered>, Error> {
    let name = named(&path, &uri)?;
    if body.above > HIGHEST {
        return Err(Error::Body(format!("above is at most {HIGHEST}")));
    }
    let details = json!({ "above": body.above });
    let act = ("renumber", reason(body.reason.as_deref())?, details);
    let wish = Wish::Renumber { above: body.above };
    on_trigger(&database, &actor, &name, act, &wish).await
}

/// Parses the name, of an operation without parameters in the query.
fn named(path: &PathValues, uri: &Uri) -> Result<Name, Error> {
    Parameters::read(uri, &[])?;
    path.parse(&NAME).map_err(|_| Error::TriggerUnknown)
}

/// Parses the end of a hold, which must be in the future.
pub(super) fn future(text: Option<&str>) -> Result<Option<OffsetDateTime>, Error> {
    let Some(text) = text else { return Ok(None) };
    let time = instant::parse(text).ok_or(Error::Time { parameter: "until" })?;
    match time > OffsetDateTime::now_utc() {
        true => Ok(Some(time)),
        false => Err(Error::UntilPast),
    }
}

async fn on_trigger(
    database: &Database,
    actor: &Actor,
    name: &Name,
    (act, reason, details): (&'static str, Option<String>, Value),
    wish: &Wish,
) -> Result<Json<Ordered>, Error> {
    let act = NewAct {
        actor,
        act,
        trigger: Some(name.as_ref()),
        rollout: None,
        hold: None,
        reason: reason.as_deref(),
        details,
    };
    let placed = database
        .ask(async |db| store::orders::place(db, name, wish, &act).await)
        .await?;
    follow(database, &act, placed.map_err(refused)?).await
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::TriggerUnknown => Error::TriggerUnknown,
        Refusal::Paused => Error::TriggerPaused,
        Refusal::NumberUnknown => Error::RolloutUnknown,
        Refusal::NeverHad(image, Choice::Revision(revision)) => {
            Error::RevisionUnknown { image, revision }
        }
        Refusal::NeverHad(image, Choice::Digest(digest)) => Error::SetImpossible(format!(
            "{image} never had {digest}; GET /v1/history lists its digests"
        )),
        Refusal::NoKnownSet => Error::SetImpossible(
            "no other set has succeeded before the current one; name a rollout with `to`"
                .to_owned(),
        ),
        Refusal::OtherImages => Error::SetImpossible(
            "the images of that rollout have other names than those of the trigger today"
                .to_owned(),
        ),
        Refusal::ImageUnknown(name) => Error::SetImpossible(format!(
            "the trigger has no image {:?}",
            tagtrail_proto::clean_text(&name, 80)
        )),
        Refusal::NotChosen(name) => Error::SetImpossible(format!(
            "no current rollout has the image {name}: choose a revision or digest of it too"
        )),
    }
}

/// Logs an order, and waits a moment for its effect.
async fn follow(
    database: &Database,
    act: &NewAct<'_>,
    placed: Placed,
) -> Result<Json<Ordered>, Error> {
    let trigger = act.trigger.unwrap_or_default();
    let answer = |done, answer: &str, rollout| {
        Json(Ordered {
            trigger: trigger.to_owned(),
            act: act.act,
            done,
            answer: answer.to_owned(),
            rollout,
        })
    };
    let order = match placed {
        Placed::Order(order) => order,
        Placed::Effect(Effect::KeyReused) => return Err(Error::IdempotencyKeyReused),
        Placed::Effect(_) => {
            let text = match act.act {
                "release" => "nothing to do: no pin and no fault is in force",
                _ => "nothing to do: the rollout has ended",
            };
            return Ok(answer(true, text, None));
        }
    };
    let (actor, trigger, word, reason) = (act.actor, trigger, act.act, act.reason);
    tracing::info!(%actor, trigger, act = word, reason, order, "{actor} ordered of the trigger {trigger}: {word}");
    let deadline = Instant::now() + WAIT.0;
    loop {
        let progress = database
            .ask(async |db| store::orders::progress(db, order).await)
            .await?;
        if let Some(progress) = progress
            && let Some(text) = progress.answer
        {
            let rollout = progress
                .rollout
                .and_then(|rollout| serde_json::from_value(rollout).ok());
            return Ok(answer(true, &text, rollout));
        }
        if Instant::now() >= deadline {
            let text = "the order is recorded; it is carried out as soon as the trigger service runs, the trigger is not paused and its images are known";
            return Ok(answer(false, text, None));
        }
        tokio::time::sleep(WAIT.1).await;
    }
}
