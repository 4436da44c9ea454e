//! `/rollouts`: the rollouts of one trigger or of all, newest first.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_proto::{Name, RolloutState};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::paging::{CURSOR, Items, Page as Part};
use crate::http::parameters::{Parameter, Parameters, optional, text};
use crate::operations::rollouts::{ALL, OF_TRIGGER, STATE, TRIGGER, filter};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section};
use crate::pages::part::standing::{state, words};
use crate::pages::part::text::{number, visible};
use crate::pages::part::when::{Form, ago, span, time};
use crate::pages::reader::Reader;
use crate::pages::trigger::parts::changed;
use crate::shared::Shared;
use crate::store;
use crate::store::rollouts::RolloutWithAttempt;
use crate::store::times::Times;

pub(crate) const PAGE: Page = Page {
    id: "page_rollouts",
    paths: &["/rollouts"],
    open: false,
    stored: true,
    serve: || get(show),
};

const IMAGE: Parameter = optional(
    "image",
    "An image, or a repository.",
    "registry.example.com/shop/web",
    text,
);
const KNOWN: &[Parameter] = &[TRIGGER, STATE, IMAGE, CURSOR];

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    uri: Uri,
) -> Result<Html<String>, Error> {
    let parameters = Parameters::read(&uri, KNOWN)?.filled();
    let filter = filter(&parameters, &shared.names.get())?;
    let trigger = parameters.text(TRIGGER.name);
    let trigger = trigger.map(|name| name.parse::<Name>().map_err(|_| Error::TriggerUnknown));
    let trigger = trigger.transpose()?;
    let of_all = match trigger {
        None => Some(Part::read(ALL, &parameters)?),
        Some(_) => None,
    };
    let of_one = match trigger {
        Some(_) => Some(Part::read(OF_TRIGGER, &parameters)?),
        None => None,
    };
    let found = shared
        .database
        .ask_page(async |db| {
            let page = match (&trigger, &of_one, &of_all) {
                (Some(name), Some(part), _) => {
                    let Some(id) = store::triggers::id(db, name).await? else {
                        return Ok(None);
                    };
                    part.cut(store::rollouts::of(db, id, &filter, part.after, part.fetch()).await?)
                }
                (_, _, Some(part)) => {
                    part.cut(store::rollouts::all(db, &filter, part.after, part.fetch()).await?)
                }
                _ => return Ok(None),
            };
            let ids = page.items.iter().map(|one| one.rollout.id.as_str());
            let times = store::times::of(db, ids).await?;
            Ok(Some((page, times)))
        })
        .await?;
    let (page, times) = found.ok_or(Error::TriggerUnknown)?;
    let mut frame = Frame::new("Rollouts", Section::Rollouts);
    frame.list(match uri.query() {
        Some(_) => format!("/v1/rollouts?{}", query(&parameters, None)),
        None => "/v1/rollouts".to_owned(),
    });
    frame.cli = Some(match &trigger {
        Some(name) => format!("tagtrail rollouts {name}"),
        None => "tagtrail rollouts".to_owned(),
    });
    let content = html! {
        h1 { "Rollouts" }
        section class="card" {
            (form(&parameters))
            @match page.items.is_empty() {
                true => p class="none" { "No rollout matches." },
                false => (table(&page, &times, reader.now)),
            }
            @if let Some(next) = &page.next {
                div class="bar more" { a class="btn push" rel="next" href={ "/rollouts?" (query(&parameters, Some(next))) } { "Older" } }
            }
        }
    };
    Ok(frame.page(&reader, &content))
}

/// Writes the question again, with another place in the list.
fn query(parameters: &Parameters, cursor: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for name in [TRIGGER.name, STATE.name, IMAGE.name] {
        if let Some(value) = parameters.text(name) {
            query.append_pair(name, value);
        }
    }
    if let Some(cursor) = cursor {
        query.append_pair(CURSOR.name, cursor);
    }
    query.finish()
}

fn form(parameters: &Parameters) -> Markup {
    let text = |name: &str| parameters.text(name).unwrap_or_default();
    html! {
        form class="bar e" {
            label { "Trigger" input name="trigger" size="16" value=(text("trigger")); }
            label { "State" select name="state" {
                option value="" { "all" }
                @for one in RolloutState::ALL {
                    option value=(one.as_str()) selected[one.as_str() == text("state")] { (words(one.as_str())) }
                }
            } }
            label { "Image" input name="image" value=(text("image")); }
            button class="pri" { "Show" }
        }
    }
}

fn table(
    page: &Items<RolloutWithAttempt>,
    times: &BTreeMap<String, Times>,
    now: OffsetDateTime,
) -> Markup {
    html! {
        table class="st" {
            thead { tr {
                th scope="col" { "Rollout" } th scope="col" { "State" } th scope="col" { "Differs in" }
                th scope="col" { "Push to start" } th scope="col" class="r" { "Start to done" } td {} th scope="col" class="r" { "When" }
            } }
            tbody { @for one in &page.items { (row(one, times.get(&one.rollout.id), now)) } }
        }
    }
}

fn row(one: &RolloutWithAttempt, times: Option<&Times>, now: OffsetDateTime) -> Markup {
    let rollout = &one.rollout;
    let started = times.and_then(|times| times.started_at);
    let push = times.and_then(|times| times.push.as_ref());
    let to_start = push
        .zip(started)
        .map(|(push, start)| start - push.occurred_at);
    let to_done = started
        .zip(rollout.finished_at)
        .map(|(start, end)| end - start);
    html! {
        tr {
            th scope="row" { a href={ "/rollouts/" (rollout.id) } { (visible(&rollout.trigger)) " #" (number(rollout.number)) } }
            td { (state(rollout.state)) }
            td { (changed(rollout)) }
            td class="n" data-l="push to start" {
                @if let Some(length) = to_start {
                    // The clock of the sender may be ahead.
                    @match length.is_negative() { true => { "−" (span(-length)) }, false => (span(length)) }
                }
            }
            td class="n r" data-l="start to done" { @if let Some(length) = to_done { (span(length)) } }
            td class="s full" { (note(one, times, now)) }
            td class="r nw" { (time(rollout.created_at, Form::Short)) " " (ago(rollout.created_at, now)) }
        }
    }
}

/// Returns the state of a rollout in words: why it waits, failed, or is observed.
pub(crate) fn note(one: &RolloutWithAttempt, times: Option<&Times>, now: OffsetDateTime) -> Markup {
    let rollout = &one.rollout;
    let next = times.and_then(|times| times.next_attempt_at);
    html! {
        @for (place, gate) in rollout.gates.iter().enumerate() {
            @if place > 0 { "; " } (words(gate.gate.as_str())) ": " (visible(&gate.why))
        }
        @if let Some(error) = &rollout.error { (visible(error)) }
        @if let Some(seen) = one.watch.as_ref().and_then(|watch| watch.seen.as_ref()) { (visible(seen)) }
        @if matches!(rollout.state, RolloutState::Running | RolloutState::Failed) {
            @if let Some(next) = next.filter(|next| *next > now) { "; the next attempt in " (span(next - now)) }
        }
        @if let Some(actor) = times.and_then(|times| times.actor.as_ref()) { " ordered by " (visible(actor)) }
    }
}
