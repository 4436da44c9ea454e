//! `/v1/triggers/test`: the rollouts that a trigger would have had.

mod answer;
mod reading;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Uri;
use axum::http::header::ALLOW;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::on;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tagtrail_config::{Role, Trigger, Written};
use tagtrail_history::instant::Instant;
use tagtrail_policy::replay::{Replay, Spec};
use tagtrail_proto::{clean_text, instant};
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use crate::http::body::JsonBody;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, RequestBody, ResponseBody, schema};
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::triggers::{self, NAME};
use crate::shared::Shared;
use crate::store::groups;
use answer::Test;
use reading::Work;

/// Time-out of a whole answer.
pub(super) const ANSWER: Duration = Duration::from_secs(25);
/// The time after which a test ends early.
const WORK: Duration = Duration::from_secs(18);
/// Largest body, in bytes.
const MAX_SIZE: usize = 64 * 1024;
/// Most images of a trigger.
const IMAGES: usize = 50;
/// Most tags that a test holds in memory, about 100 MB.
const TAGS: usize = 200_000;
/// The tests at the same time. Another one is refused.
static PLACES: Semaphore = Semaphore::const_new(2);

pub(crate) const TEST: Operation = Operation {
    id: "test_trigger",
    method: Method::Post,
    path: "/v1/triggers/test",
    summary: "Tests a trigger on recorded history: the rollouts that it would have had. Changes nothing.",
    role: Role::Read,
    in_path: &[],
    query: &[],
    header: &[],
    body: Some(RequestBody {
        schema: schema::<Wish>,
        max_size: MAX_SIZE,
        required: true,
    }),
    response: ResponseBody::Json(schema::<Test>),
    problems: &[
        (400, "spec_invalid"),
        (400, "time_invalid"),
        (400, "parameter_conflict"),
        (503, "busy"),
    ],
    serve: |method| on(method, test).route_layer(from_fn(is_test)),
};

/// The body of a test.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// The settings of the trigger, as in `[[trigger]]`. `name` and `target` may be left out. With
    /// `name`, the recorded rollouts of this trigger do not count for its group.
    #[schemars(with = "BTreeMap<String, Value>")]
    spec: BTreeMap<String, Written>,
    /// Begin of the test (RFC 3339).
    from: String,
    /// End of the test (RFC 3339); without it, now.
    until: Option<String>,
}

fn time(parameter: &'static str, text: &str) -> Result<OffsetDateTime, Error> {
    instant::parse(text).ok_or(Error::Time { parameter })
}

/// Reads the settings that decide about rollouts.
fn spec(trigger: &Trigger) -> Result<Spec, Error> {
    if trigger.images.len() > IMAGES {
        let text = format!("a test takes at most {IMAGES} images");
        return Err(Error::Spec(text));
    }
    // The api does not know the registries that can be asked, and takes these for such.
    let registries = trigger
        .images
        .values()
        .map(|image| image.registry().clone());
    let settle = trigger.settle(&registries.collect());
    let images = trigger.images.iter();
    let images = images.map(|(name, image)| (name.get_ref().clone(), image.clone()));
    Ok(Spec {
        images: images.collect(),
        agree: trigger.agree,
        settle,
        settle_max: trigger.settle_max(settle),
        start: trigger.start,
        partial: trigger.partial,
        gates: trigger.gates.clone(),
    })
}

/// Refuses the method for other names than `test`. The route is that of a trigger, so that one may
/// have the name `test`.
async fn is_test(path: PathValues, request: Request, next: Next) -> Response {
    match names_test(&path) {
        true => next.run(request).await,
        false => refuse_method(),
    }
}

fn names_test(path: &PathValues) -> bool {
    path.parse::<String>(&NAME).is_ok_and(|name| name == "test")
}

/// Answers a method that a path does not take.
pub(super) async fn not_allowed(
    route: Option<MatchedPath>,
    path: Result<PathValues, Error>,
) -> Response {
    let is_trigger = route.is_some_and(|route| route.as_str() == triggers::ONE.path);
    match path {
        Ok(path) if is_trigger && !names_test(&path) => refuse_method(),
        _ => Error::MethodNotAllowed.into_response(),
    }
}

/// Answers a method that a trigger of another name than `test` does not take. Without a header here
/// axum names all methods of the route, also the one of the test.
fn refuse_method() -> Response {
    let of_trigger = super::ALL
        .iter()
        .filter(|one| one.path == triggers::ONE.path);
    let names = of_trigger.map(|one| match one.method {
        Method::Get => "GET,HEAD".to_owned(),
        other => other.name().to_uppercase(),
    });
    let names: Vec<String> = names.collect();
    ([(ALLOW, names.join(","))], Error::MethodNotAllowed).into_response()
}

async fn test(
    State(shared): State<Shared>,
    uri: Uri,
    JsonBody(wish): JsonBody<Wish>,
) -> Result<Json<Test>, Error> {
    Parameters::read(&uri, &[])?;
    let settings = wish.spec.into_iter().collect();
    let trigger = Trigger::of_settings(settings, &shared.names.get())
        .map_err(|error| Error::Spec(clean_text(&error.to_string(), 300)))?;
    if let [upstream, ..] = trigger.upstream() {
        let why = format!(
            "trigger.follow: a chain is not tested, since its sets come from the rollouts of other triggers; test {upstream}"
        );
        return Err(Error::Spec(why));
    }
    let spec = spec(&trigger)?;
    let from = time("from", &wish.from)?;
    let now = OffsetDateTime::now_utc();
    let until = match &wish.until {
        Some(text) => time("until", text)?.min(now),
        None => now,
    };
    if from > until {
        return Err(Error::RangeEmpty {
            since: Instant(from),
            until: Instant(until),
        });
    }
    let place = PLACES.try_acquire().map_err(|_| Error::TooManyTests)?;
    let group = spec.gates.group.clone();
    let mut work = Work::new(Replay::new(spec, from), place, from);
    if let Some(group) = group {
        let name = trigger.name.get_ref().to_string();
        let busy = shared
            .database
            .ask_large(async |db| groups::busy(db, &group, &name, (from, until)).await)
            .await?;
        work.set_busy(busy);
    }
    let done = work.test(&shared.database, until).await?;
    Ok(Json(Test::of(Instant(from), done)))
}
