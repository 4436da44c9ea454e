//! `/rollouts`: the rollouts of one trigger or of all, newest first.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_config::Names;
use tagtrail_proto::{Name, RolloutState};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::paging::{CURSOR, Items, Page as Part};
use crate::http::parameters::{Parameter, Parameters};
use crate::operations::rollouts::{ALL, IMAGE, OF_TRIGGER, PART, STATE, TRIGGER, filter};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section};
use crate::pages::part::command::command;
use crate::pages::part::question::address;
use crate::pages::part::standing::{state, words};
use crate::pages::part::text::{number, visible};
use crate::pages::part::when::{Form, ago, span, time};
use crate::pages::reader::Reader;
use crate::pages::trigger::parts::{changed, took};
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

const KNOWN: &[Parameter] = &[TRIGGER, STATE, IMAGE, PART, CURSOR];

async fn show(reader: Reader, State(shared): State<Shared>, uri: Uri) -> Result<Response, Error> {
    let parameters = Parameters::read(&uri, KNOWN)?.filled();
    let names = shared.names.get();
    if let Some(part) = unnamed(&parameters, &names) {
        let there = asked(&parameters, None);
        let there = there.map(|(name, value)| match name {
            name if name == IMAGE.name => (name, None),
            name if name == PART.name => (name, Some(part)),
            _ => (name, value),
        });
        return Ok(Redirect::to(&address("/rollouts", &there)).into_response());
    }
    let filter = filter(&parameters, &names)?;
    // A name that no trigger can have is one that no trigger has.
    let trigger = parameters.text(TRIGGER.name).map(str::parse::<Name>);
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
                (Some(Ok(name)), Some(part), _) => {
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
    let mut frame = Frame::new("Rollouts", Section::Rollouts);
    let cursor = parameters.text(CURSOR.name);
    frame.list(address("/v1/rollouts", &asked(&parameters, cursor)));
    let trigger = parameters.text(TRIGGER.name);
    let words = ["rollouts"].into_iter().chain(trigger);
    frame.cli = Some(command(
        &words.collect::<Vec<_>>(),
        &[
            ("state", parameters.text(STATE.name)),
            ("image", parameters.text(IMAGE.name)),
            ("contains", parameters.text(PART.name)),
        ],
    ));
    let content = html! {
        h1 { "Rollouts" }
        section class="card" {
            (form(&parameters))
            @match &found {
                None => (none(&parameters, true)),
                Some((page, _)) if page.items.is_empty() => (none(&parameters, false)),
                Some((page, times)) => {
                    (table(page, times, reader.now))
                    @if let Some(next) = &page.next {
                        div class="bar more" { a class="btn push" rel="next" href=(address("/rollouts", &asked(&parameters, Some(next)))) { "Older" } }
                    }
                }
            }
        }
    };
    Ok(frame.page(&reader, &content).into_response())
}

/// Returns the image of the question if it is no whole name, but a part of one, such as `shop/web`.
fn unnamed<'a>(parameters: &'a Parameters, names: &Names) -> Option<&'a str> {
    let image = parameters.text(IMAGE.name)?;
    let is_part = names.image(image).is_err() && parameters.text(PART.name).is_none();
    is_part.then(|| image.trim())
}

/// Returns the question, with a place in the list.
fn asked<'a>(
    parameters: &'a Parameters,
    cursor: Option<&'a str>,
) -> [(&'static str, Option<&'a str>); 5] {
    let given = |name| (name, parameters.text(name));
    [
        given(TRIGGER.name),
        given(STATE.name),
        given(IMAGE.name),
        given(PART.name),
        (CURSOR.name, cursor),
    ]
}

/// States why there is no rollout, with a way to more.
fn none(parameters: &Parameters, unknown: bool) -> Markup {
    let trigger = parameters.text(TRIGGER.name).filter(|_| unknown);
    let without = asked(parameters, None).map(|(name, value)| match name {
        name if name == TRIGGER.name => (name, None),
        _ => (name, value),
    });
    html! {
        p class="none" {
            @match trigger {
                Some(trigger) => {
                    "There is no trigger " q { (visible(trigger)) } ", and none was removed. "
                    a href=(address("/rollouts", &without)) { "Rollouts of all triggers" } " " a href="/triggers" { "All triggers" }
                },
                None if asked(parameters, None).iter().any(|(_, value)| value.is_some()) => { "No rollout matches. " a href="/rollouts" { "All rollouts" } },
                None => "No rollout is recorded yet.",
            }
        }
    }
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
            label { "Image contains" input name="q" value=(parameters.text(PART.name).unwrap_or(text("image"))); }
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
                th scope="col" { "Push to start" } th scope="col" class="r" { "Took" } td {} th scope="col" class="r" { "Planned" }
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
    html! {
        tr {
            th scope="row" { a href={ "/rollouts/" (rollout.id) } { (visible(&rollout.trigger)) " #" (number(rollout.number)) } }
            td { (state(rollout.state)) }
            td { (changed(rollout)) }
            td class="n" data-l="push to start" {
                @if let Some(length) = to_start {
                    // The clock of the sender may be ahead.
                    @match length.is_negative() { true => { "−" (span(-length)) }, false => (span(length)) }
                    @if push.is_some_and(|push| push.found.is_some()) { " " span class="q" { "since it was found" } }
                }
            }
            td class="n r" data-l="took" { (took(rollout)) }
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
