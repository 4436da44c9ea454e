//! `GET /v1/events?kinds=`: the live feed of all kinds of events; `live.rs` sends it.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tagtrail_config::Role;
use tagtrail_proto::{ConditionChange, Event, Held, Revision, Rollout, clean_text};

use super::live::{self, LAST_EVENT_ID, LAST_EVENT_ID_IN_QUERY, SINCE};
use crate::feed::{EventKind, Kinds};
use crate::http::error::Error;
use crate::http::guard::Actor;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, SIGNATURES, optional, text};
use crate::http::tokens::ACCESS_TOKEN;
use crate::shared::Shared;

const KINDS: Parameter = optional(
    "kinds",
    "Only events of these kinds, separated by commas: `revision`, `rollout` (each change of its state), `hold` (set, released, expired), `trigger` (each change of its condition). Without it, all kinds.",
    "rollout,hold",
    || json!({ "type": "string", "pattern": "^(revision|rollout|hold|trigger)(,(revision|rollout|hold|trigger))*$" }),
);
const MATCH: Parameter = Parameter {
    description: "Only revisions of images that match, and rollouts with such an image: `*` within a part, `**` for any parts; without a tag, every tag matches. A pattern whose first part is no registry matches in any registry. Holds and triggers have no images, and are sent.",
    ..super::revisions::MATCH
};
const TRIGGER: Parameter = optional(
    "trigger",
    "Only rollouts, holds and conditions of triggers with this name, or whose name matches: `*` is any text. Revisions belong to no trigger, and are sent.",
    "shop-*",
    text,
);

pub(crate) const EVENTS: Operation = Operation {
    id: "events",
    method: Method::Get,
    path: "/v1/events",
    summary: "The live feed of all kinds: revisions, and changes of rollouts, holds and triggers, as they are recorded, as server-sent events.",
    role: Role::Read,
    in_path: &[],
    query: &[KINDS, MATCH, TRIGGER, SINCE, SIGNATURES, ACCESS_TOKEN],
    header: &[LAST_EVENT_ID],
    body: None,
    response: ResponseBody::Events(schema::<Change>),
    problems: &[
        (400, "kinds_invalid"),
        (400, "match_invalid"),
        (400, "trigger_invalid"),
        (400, "time_invalid"),
        (400, "flag_invalid"),
        (400, "cursor_invalid"),
    ],
    serve: |method| on(method, events),
};

/// The data of an event, by the name of the event.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "only the schema is used: the feed has the events as text"
)]
enum Change {
    /// Of `event: revision`.
    Revision(Event<Revision>),
    /// Of `event: rollout`.
    Rollout(Event<Rollout>),
    /// Of `event: hold`.
    Hold(Event<Held>),
    /// Of `event: trigger`.
    Trigger(Event<ConditionChange>),
}

async fn events(
    State(shared): State<Shared>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read_also(&uri, EVENTS.query, LAST_EVENT_ID_IN_QUERY)?;
    let kinds = match parameters.text(KINDS.name) {
        Some(text) => read(text)?,
        None => EventKind::ALL.into(),
    };
    live::open(shared, &actor, &headers, &parameters, kinds).await
}

fn read(text: &str) -> Result<Kinds, Error> {
    let kind = |word: &str| {
        let word = word.trim();
        EventKind::parse(word).ok_or_else(|| Error::EventKind(clean_text(word, 80)))
    };
    text.split(',').map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_refused_with_the_known_ones() {
        let all: Kinds = EventKind::ALL.into();
        assert_eq!(read("hold, trigger,rollout,revision,hold").unwrap(), all);
        for wrong in ["", "rollout,", "rollouts", "Hold", "source"] {
            let error = read(wrong).unwrap_err().to_string();
            for kind in EventKind::ALL {
                assert!(error.contains(kind.as_str()), "{wrong}: {error}");
            }
        }
        let pattern = (KINDS.schema)()["pattern"].as_str().unwrap().to_owned();
        let words: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert!(pattern.starts_with(&format!("^({})(,", words.join("|"))));
    }
}
