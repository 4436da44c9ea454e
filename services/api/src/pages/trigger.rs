//! `/triggers/{name}`: one trigger: why it stands as it does, and the acts of people on it.

pub(crate) mod forms;
mod lanes;
pub(crate) mod parts;
pub(crate) mod standing;

use std::collections::{BTreeMap, HashMap};

use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::html;
use serde_json::{Map, Value, json};
use tagtrail_config::Role;
use tagtrail_history::lanes::Sample;
use tagtrail_proto::Name;
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::triggers::NAME;
use crate::pages::Page;
use crate::pages::act::{self, Acting, Order, is_named};
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::form::{Fields, news};
use crate::pages::part::kind::{Tone, badge};
use crate::pages::part::lane::Window;
use crate::pages::part::standing::condition;
use crate::pages::part::text::number;
use crate::pages::reader::Reader;
use crate::pages::trigger::standing::Standing;
use crate::shared::Shared;
use crate::store;
use crate::store::acts::Act;
use crate::store::rollouts::{Ran, RolloutWithAttempt};

pub(crate) const PAGE: Page = Page {
    id: "page_trigger",
    paths: &["/triggers/{name}"],
    open: false,
    stored: true,
    serve: || get(show),
};
pub(crate) const ACT: Page = Page {
    id: "page_trigger_act",
    paths: &["/triggers/{name}/{act}"],
    open: false,
    stored: false,
    // A person who signs in after sending a form, or loads its answer again, sees the trigger.
    serve: || get(back).post(act).layer(Fields::limit()),
};

/// Rollouts that are read: most for the choice of a set to roll back to.
const ROLLOUTS: i64 = 25;
/// Sets that ran, for the rows of time.
const RAN: i64 = 200;
/// Acts of people that are shown.
const ACTS: i64 = 10;

/// All that the page shows.
pub(crate) struct View {
    pub(crate) standing: Standing,
    pub(crate) rollouts: Vec<RolloutWithAttempt>,
    pub(crate) acts: Vec<Act>,
    /// The last sets that ran, newest first.
    pub(crate) ran: Vec<Ran>,
    /// The time that the rows cover.
    pub(crate) window: Window,
    /// The heads of the tags over time, by the row ids of the tags.
    pub(crate) heads: HashMap<i64, Vec<Sample>>,
    /// Whether triggers carry the name of the reader's token.
    pub(crate) named: bool,
}

impl View {
    async fn read(shared: &Shared, reader: &Reader, name: &Name) -> Result<View, Error> {
        let found = shared.database.ask_page(async |db| {
            let Some(standing) = Standing::read(db, name).await? else {
                return Ok(None);
            };
            let (id, filter) = (standing.id, store::rollouts::Filter::default());
            let tags: Vec<i64> = standing.images.iter().filter_map(|one| one.tag).collect();
            let rollouts = store::rollouts::of(db, id, &filter, None, ROLLOUTS).await?;
            let filter = store::acts::Filter {
                trigger: Some(name.to_string()),
                ..store::acts::Filter::default()
            };
            let acts = store::acts::list(db, &filter, None, ACTS).await?;
            let ran = store::rollouts::ran(db, id, RAN).await?;
            let first = standing.images.iter().filter_map(|one| one.first).min();
            let window = lanes::window(&ran, first, reader.now);
            Ok(Some(View {
                standing,
                window,
                rollouts: rollouts.into_iter().map(|(_, rollout)| rollout).collect(),
                acts: acts.into_iter().map(|(_, act)| act).collect(),
                ran,
                heads: tagtrail_history::lanes::lanes(db, &tags, window.from, window.until).await?,
                named: is_named(db, reader).await?,
            }))
        });
        found.await?.ok_or(Error::TriggerUnknown)
    }
}

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    path: PathValues,
    uri: Uri,
) -> Result<Response, Error> {
    Parameters::read(&uri, &[])?;
    let name: Name = path.parse(&NAME).map_err(|_| Error::TriggerUnknown)?;
    match View::read(&shared, &reader, &name).await {
        Ok(view) => Ok(draw(&reader, &view, false).into_response()),
        Err(Error::TriggerUnknown) => {
            let renamed = shared
                .database
                .ask(async |db| store::triggers::renamed(db, &name).await);
            match renamed.await? {
                Some(present) => Ok(Redirect::to(&format!("/triggers/{present}")).into_response()),
                None => Err(Error::TriggerUnknown),
            }
        }
        Err(error) => Err(error),
    }
}

async fn back(path: PathValues) -> Result<Redirect, Error> {
    let name: Name = path.parse(&NAME).map_err(|_| Error::TriggerUnknown)?;
    Ok(Redirect::to(&format!("/triggers/{name}")))
}

async fn act(
    acting: Acting,
    State(shared): State<Shared>,
    path: PathValues,
    fields: Fields,
) -> Result<Response, Error> {
    let name: Name = path.parse(&NAME).map_err(|_| Error::TriggerUnknown)?;
    let act: String = path.parse(&act::ACT).unwrap_or_default();
    let body = match act.as_str() {
        "pause" | "resume" | "retry" | "release" => because(&fields),
        "rollout" => roll_out(&fields),
        "rollback" => roll_back(&fields, acting.reader.now)?,
        "pin" => pin(&fields, acting.reader.now)?,
        _ => return Err(Error::NotFound),
    };
    let order = Order {
        method: Method::POST,
        path: format!("/v1/triggers/{name}/{act}"),
        body: Value::Object(body),
        role: Role::Operate,
        trigger: Some(name.to_string()),
    };
    let view = View::read(&shared, &acting.reader, &name).await?;
    let seen = view.standing.seen(&act);
    let again = |reader: &Reader, view: View| draw(reader, &view, true);
    let then = format!("/triggers/{name}");
    acting
        .order(&shared, &fields, order, (view, seen), again, &then)
        .await
}

/// Returns the body of an order with the reason that was given.
pub(crate) fn because(fields: &Fields) -> Map<String, Value> {
    let reason = fields.text("reason");
    reason
        .map(|reason| ("reason".to_owned(), json!(reason)))
        .into_iter()
        .collect()
}

fn roll_out(fields: &Fields) -> Map<String, Value> {
    let mut body = because(fields);
    let skip: Vec<&str> = fields.of("skip.").map(|(gate, _)| gate).collect();
    body.insert("skip".to_owned(), json!(skip));
    body
}

/// Adds the end of a pin; the reason of an order that must have one is empty if none was given.
pub(crate) fn lasting(fields: &Fields, now: OffsetDateTime) -> Result<Map<String, Value>, Error> {
    let mut body = because(fields);
    body.entry("reason").or_insert(json!(""));
    if let Some(until) = fields.until(now)? {
        body.insert("until".to_owned(), json!(until));
    }
    Ok(body)
}

fn roll_back(fields: &Fields, now: OffsetDateTime) -> Result<Map<String, Value>, Error> {
    let mut body = lasting(fields, now)?;
    let to: u64 = match fields.text("to").map(str::parse) {
        Some(Ok(to)) => to,
        // A person saw the set that is rolled out: there is no default.
        _ => return Err(Error::Form),
    };
    body.insert("to".to_owned(), json!(to));
    Ok(body)
}

fn pin(fields: &Fields, now: OffsetDateTime) -> Result<Map<String, Value>, Error> {
    let mut body = lasting(fields, now)?;
    let images: BTreeMap<&str, Value> = fields
        .of("image.")
        .filter(|(_, digest)| !digest.is_empty())
        .map(|(name, digest)| (name, json!({ "digest": digest })))
        .collect();
    body.insert("images".to_owned(), json!(images));
    Ok(body)
}

/// Draws the page.
fn draw(reader: &Reader, view: &View, out_of_date: bool) -> Html<String> {
    let trigger = &view.standing.trigger;
    let name = &trigger.name;
    let mut frame = Frame::new(format!("Trigger {name}"), Section::Triggers);
    frame.json = Some(format!("/v1/triggers/{name}"));
    frame.cli = Some(format!("tagtrail status {name}"));
    let behind = view.standing.behind();
    let content = html! {
        (crumbs(&[("Triggers".to_owned(), Some("/triggers".to_owned())), (name.clone(), None)]))
        @if out_of_date { (news()) }
        div class="bar" {
            h1 { (name) }
            (condition(trigger.condition))
            @if behind > 0 {
                @let word = match behind { 1 => "1 revision behind".to_owned(), _ => format!("{} revisions behind", number(behind)) };
                (badge(Tone::Warning, "warn", &word))
            }
            span class="push" { a class="btn" href={ "/triggers/" (name) "/explain" } { "Explain" } }
        }
        (parts::verdict(&view.standing, reader.now))
        div class="g2" {
            div class="col" {
                (parts::images(&view.standing, reader.now))
                (parts::gates(trigger, reader.now))
                (lanes::draw(view, reader.now))
                (parts::rollouts(view))
            }
            div class="col" {
                (forms::all(reader, view))
                (parts::settings(trigger))
                (parts::acts(&view.acts))
            }
        }
    };
    frame.page(reader, &content)
}
